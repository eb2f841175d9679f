/* SPDX-License-Identifier: Apache-2.0 */
/* The table of subcommands, their help, and the options that several share. */
#include "agent/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct command {
    const char *name;
    const char *summary; /* NULL: not in the list */
    const char *help;    /* NULL: the command prints its own */
    int (*run)(int argc, char **argv);
    bool keeps_signals_blocked;
};

#define CONFIG_OPTIONS                                                         \
    "  -c FILE              configuration file, in place of\n"                 \
    "                       /etc/retriever/retriever.yaml or\n"                \
    "                       /etc/datadog-agent/datadog.yaml\n"                 \
    "  --set KEY=VALUE      one key, stronger than files and environment;\n"   \
    "                       may be repeated (not for the API key: every\n"     \
    "                       user can read a command line)\n"                   \
    "  -h, --help           this text\n"

#define CONFIG_LIST                                                            \
    "Configuration: retriever check prints every key with its value and\n"     \
    "where it came from; each is also a variable (stop_timeout is\n"           \
    "DD_STOP_TIMEOUT).\n"

#define SOCKET_OPTION                                                          \
    "  --socket PATH        control socket of the agent; default: the one\n"   \
    "                       that $DD_CONTROL_SOCKET or control_socket of\n"    \
    "                       the configuration file names, else\n"              \
    "                       " CLI_CONTROL_SOCKET "\n"                          \
    "  -c FILE              configuration file, as for retriever run\n"

static const char run_help[] =
    "Usage: retriever run [-c FILE] [--set KEY=VALUE]...\n"
    "\n"
    "Receive, aggregate and deliver until SIGTERM or SIGINT.\n"
    "\n" CONFIG_OPTIONS "\n" CONFIG_LIST "\n"
    "Signals: SIGTERM or SIGINT stop: everything received is delivered within\n"
    "stop_timeout, then one line of JSON, the receipt, goes to stderr. A "
    "second\n"
    "SIGINT cuts that short. SIGUSR1 logs the status. SIGUSR2 is `retriever\n"
    "upgrade`.\n"
    "\n"
    "Exit status: 0 everything was delivered or saved; 1 could not start, or\n"
    "lost what it needs; 2 usage or configuration; 3 the stop left samples\n"
    "behind (the receipt names them); 4 the ledger does not balance.\n";

static const char exec_help[] =
    "Usage: retriever exec [-c FILE] [--set KEY=VALUE]... -- COMMAND [ARG]...\n"
    "\n"
    "Run COMMAND with a DogStatsD listener beside it; when it has ended,\n"
    "deliver what it sent and give back its exit status. The command keeps "
    "its\n"
    "arguments, environment, standard input and output, and gets every signal\n"
    "that is sent to retriever. DD_AGENT_HOST and DD_DOGSTATSD_URL are set "
    "for\n"
    "it where they are not. No fault of telemetry stops it or changes its\n"
    "status.\n"
    "\n" CONFIG_OPTIONS "\n" CONFIG_LIST "\n"
    "Exit status: the command's, 128 + n when signal n ended it; 125 "
    "retriever\n"
    "itself could not run it; 126 found but not executable; 127 not found.\n";

static const char check_help[] =
    "Usage: retriever check [--exec] [-c FILE] [--set KEY=VALUE]...\n"
    "\n"
    "Print the effective configuration, where each value comes from, and\n"
    "everything that is wrong with it. Secrets are printed as their last five\n"
    "characters. Starts nothing and touches no socket.\n"
    "\n"
    "  --exec               what `retriever exec` would use (some defaults\n"
    "                       differ)\n" CONFIG_OPTIONS "\n"
    "Exit status: 0 good; 1 it could not be printed; 2 usage, or `retriever\n"
    "run` would refuse.\n";

static const char status_help[] =
    "Usage: retriever status [--json] [--socket PATH | -c FILE]\n"
    "\n"
    "Ask a running agent for its ledger: what was received, rejected, "
    "delivered,\n"
    "dropped and is still on its way, and how the intake answers.\n"
    "\n"
    "  --json               one line of JSON, with the keys of the "
    "receipt\n" SOCKET_OPTION
    "  --timeout SECONDS    longest wait for the answer\n"
    "  -h, --help           this text\n"
    "\n"
    "Exit status: 0; 1 no agent answers there; 2 usage.\n";

static const char ebpf_help[] =
    "Usage: retriever ebpf status [--json] [--socket PATH | -c FILE]\n"
    "\n"
    "Ask a running agent for its kernel metrics: each feature, whether it is "
    "on,\n"
    "why not and what would switch it on (a capability, a newer kernel), and "
    "how\n"
    "many kernel events were sent and lost. docs/kernel.md says what each "
    "feature\n"
    "measures.\n"
    "\n"
    "  --json               one line of JSON\n" SOCKET_OPTION
    "  --timeout SECONDS    longest wait for the answer\n"
    "  -h, --help           this text\n"
    "\n"
    "Exit status: 0; 1 no agent answers there; 2 usage.\n";

static const char flush_help[] =
    "Usage: retriever flush [--wait] [--json] [--socket PATH | -c FILE]\n"
    "\n"
    "Close and send the open bucket of a running agent now.\n"
    "\n"
    "  --wait               return when all that was received before is\n"
    "                       delivered, with its numbers\n"
    "  --json               one line of JSON\n" SOCKET_OPTION
    "  --timeout SECONDS    longest wait for the answer\n"
    "  -h, --help           this text\n"
    "\n"
    "Exit status: 0; 1 no agent answers there, or it could not deliver; 2\n"
    "usage.\n";

static const char stop_help[] =
    "Usage: retriever stop [--wait] [--socket PATH | -c FILE]\n"
    "\n"
    "Stop a running agent as SIGTERM does.\n"
    "\n"
    "  --wait               return when it has ended\n" SOCKET_OPTION
    "  --timeout SECONDS    longest wait for the answer, and for the end\n"
    "  -h, --help           this text\n"
    "\n"
    "Exit status: 0; 1 no agent answers there, or it did not end in time; 2\n"
    "usage.\n";

static const char upgrade_help[] =
    "Usage: retriever upgrade [--json] [--socket PATH | -c FILE]\n"
    "\n"
    "Let a running agent go on as the program that lies where it was started\n"
    "from: a new version, or the same one with its configuration read anew.\n"
    "The process, its sockets and connections stay; nothing is lost. A "
    "program\n"
    "that cannot go on is refused, and the old one serves on. The same as "
    "SIGUSR2.\n"
    "\n"
    "  --json               one line of JSON\n" SOCKET_OPTION
    "  --timeout SECONDS    longest wait for the answer\n"
    "  -h, --help           this text\n"
    "\n"
    "Exit status: 0 it is done; 1 it is not, and why; 2 usage.\n";

static const char version_help[] = "Usage: retriever version\n"
                                   "\n"
                                   "Print the version. Exit status: 0.\n";

static const struct command commands[] = {
    {"run", "receive and deliver until SIGTERM", run_help, cmd_run, true},
    {"exec", "run a command, deliver what it sends, end with it", exec_help,
     cmd_exec, true},
    {"check", "print the effective configuration and its faults", check_help,
     cmd_check, false},
    {"status", "counters of a running agent", status_help, cmd_status, false},
    {"ebpf", "kernel metrics of a running agent: what is on, what is off, why",
     ebpf_help, cmd_ebpf, false},
    {"flush", "send the open bucket of a running agent now", flush_help,
     cmd_flush, false},
    {"stop", "stop a running agent", stop_help, cmd_stop, false},
    {"upgrade", "go on as the program that is installed now", upgrade_help,
     cmd_upgrade, false},
    {"intake", "a local stand-in for the intake, to look and to test", NULL,
     cmd_intake, false},
    {"send", "send test lines to a DogStatsD socket", NULL, cmd_send, false},
    {"version", "print the version", version_help, cmd_version, false},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

int cli_help(const char *command, FILE *out)
{
    const struct command *c;

    if (command != NULL) {
        c = find(command);
        if (c == NULL)
            return -ENOENT;
        (void)fputs(c->help != NULL ? c->help : c->summary, out);
        return 0;
    }
    (void)fputs("Usage: retriever COMMAND [OPTION]...\n"
                "\n"
                "A StatsD and DogStatsD agent that loses nothing.\n"
                "\n",
                out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        (void)fprintf(out, "  %-9s %s\n", commands[i].name,
                      commands[i].summary);
    (void)fputs("\n"
                "retriever COMMAND --help says all about one of them.\n"
                "\n"
                "  DD_API_KEY=... retriever exec -- ./job     wrap a job\n"
                "  DD_API_KEY=... retriever run               a sidecar or a "
                "host\n"
                "  retriever intake                           a first look, "
                "no account\n",
                out);
    return 0;
}

/* ---- Options of run, exec and check ------------------------------------- */

static int add_set(struct cli_config *out, const char *command,
                   const char *assignment)
{
    if (out->sources.n_sets == CLI_MAX_SETS) {
        (void)fprintf(stderr, "retriever %s: more than %d --set\n", command,
                      CLI_MAX_SETS);
        return CLI_USAGE;
    }
    out->sets[out->sources.n_sets++] = assignment;
    return 0;
}

int cli_parse_config(struct cli_config *out, int argc, char **argv)
{
    static const struct option options[] = {
        {"set", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    static const struct option check_options[] = {
        {"set", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {"exec", no_argument, NULL, 'e'},
        {0},
    };
    bool is_check = strcmp(argv[0], "check") == 0;
    int opt;

    *out = (struct cli_config){
        .sources = {.env = environ, .exec_mode = strcmp(argv[0], "exec") == 0}};
    out->sources.sets = out->sets;
    optind = 0; /* also forgets what an earlier parse had reached */
    opterr = 0; /* our own words below: getopt knows no subcommands */
    /* '+': the first word that is no option begins the job's own line. */
    while ((opt = getopt_long(argc, argv, "+:c:h",
                              is_check ? check_options : options, NULL)) !=
           -1) {
        switch (opt) {
        case 'c':
            out->sources.file = optarg;
            break;
        case 's':
            if (add_set(out, argv[0], optarg) != 0)
                return CLI_USAGE;
            break;
        case 'h':
            (void)cli_help(argv[0], stdout);
            return CLI_HELP;
        case 'e':
            out->sources.exec_mode = true;
            break;
        default:
            (void)fprintf(stderr,
                          "retriever %s: %s %s; see retriever %s "
                          "--help\n",
                          argv[0],
                          opt == ':' ? "a value is missing behind"
                                     : "unknown option",
                          argv[optind - 1], argv[0]);
            return CLI_USAGE;
        }
    }
    out->first = optind;
    return 0;
}

/* ---- Dispatch ----------------------------------------------------------- */

int cmd_version(int argc, char **argv)
{
    if (argc > 1 &&
        (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)cli_help("version", stdout);
        return EXIT_OK;
    }
    if (argc > 1) {
        (void)fprintf(stderr, "retriever version: unexpected argument '%s'\n",
                      argv[1]);
        return EXIT_USAGE;
    }
    (void)printf("retriever %s\n", RETRIEVER_VERSION);
    return EXIT_OK;
}

static int help_command(int argc, char **argv)
{
    const struct command *c;

    if (argc < 3 || argv[2][0] == '-') {
        (void)cli_help(NULL, stdout);
        return EXIT_OK;
    }
    c = find(argv[2]);
    if (c != NULL && c->help == NULL) {
        char option[] = "--help";
        char *words[] = {argv[2], option, NULL};

        return c->run(2, words);
    }
    if (cli_help(argv[2], stdout) == 0)
        return EXIT_OK;
    (void)fprintf(stderr,
                  "retriever help: there is no command '%s'; see retriever "
                  "--help\n",
                  argv[2]);
    return EXIT_USAGE;
}

/* A standard descriptor that is closed would become the next socket, which then
 * got our output. What is opened for reading alone refuses it. */
static void hold_standard_fds(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        (void)close(fd);
}

/* Output that did not arrive is a failure of the command, whatever it did. */
static int finish_output(const char *command, int status)
{
    bool failed = ferror(stdout) != 0;

    errno = EIO; /* where an earlier write failed and the rest did not */
    if (fflush(stdout) == 0 && !failed)
        return status;
    (void)fprintf(stderr, "retriever %s: writing to stdout: %s\n", command,
                  strerror(errno));
    return status == EXIT_OK ? EXIT_FAILED : status;
}

/* All but run and exec. @c: NULL when there is no command argv[1]. */
static int run_short_command(const struct command *c, int argc, char **argv)
{
    if (c != NULL)
        return c->run(argc - 1, argv + 1);
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0)
        return help_command(argc, argv);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return cmd_version(1, argv + 1);
    (void)fprintf(stderr,
                  "retriever: there is no command '%s'; see retriever "
                  "--help\n",
                  argv[1]);
    return EXIT_USAGE;
}

int cli_main(int argc, char **argv)
{
    const struct command *c;

    if (argc < 2) {
        (void)cli_help(NULL, stderr);
        return EXIT_USAGE;
    }
    c = find(argv[1]);
    if (c != NULL && c->keeps_signals_blocked)
        return c->run(argc - 1, argv + 1);
    (void)sigprocmask(SIG_SETMASK, cli_original_mask(), NULL);
    hold_standard_fds();
    return finish_output(argv[1], run_short_command(c, argc, argv));
}
