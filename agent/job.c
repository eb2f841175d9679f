/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/job.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/cli.h"
#include "agent/keeper_private.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
#define DEFAULT_PORT 8125
#define N_OWN_VARIABLES 3

extern char **environ;

/* ---- Environment ------------------------------------------------------- */

struct job_env {
    char **vars;
    char own[N_OWN_VARIABLES][160];
    size_t n_own;
};

static const struct socket_entry *first_of(const struct sockets *s,
                                           enum socket_kind kind)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->entries[i].kind == kind)
            return &s->entries[i];
    }
    return NULL;
}

/* Where the job reaches a UDP listener: its address, and loopback where it is
 * bound to all of them. */
static void host_of(const struct socket_entry *udp, char *host, size_t n)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {.any.sa_family = AF_UNSPEC};
    socklen_t n_a = sizeof(a);

    (void)snprintf(host, n, "127.0.0.1");
    if (getsockname(udp->fd, &a.any, &n_a) != 0)
        return;
    if (a.any.sa_family == AF_INET && a.v4.sin_addr.s_addr != INADDR_ANY)
        (void)inet_ntop(AF_INET, &a.v4.sin_addr, host, (socklen_t)n);
    else if (a.any.sa_family == AF_INET6 &&
             !IN6_IS_ADDR_UNSPECIFIED(&a.v6.sin6_addr))
        (void)inet_ntop(AF_INET6, &a.v6.sin6_addr, host, (socklen_t)n);
}

static void set_own(struct job_env *e, const char *name, const char *value)
{
    (void)snprintf(e->own[e->n_own], sizeof(e->own[0]), "%s=%s", name, value);
    e->n_own++;
}

/* Clients take the URL before host and port; older ones know only those. A port
 * that the kernel chose is named even where the variable says "__random__". */
static void choose_variables(struct job_env *e, const struct sockets *s)
{
    const struct socket_entry *udp = first_of(s, SOCKET_UDP);
    const struct socket_entry *uds = first_of(s, SOCKET_UNIXGRAM);
    const char *port = getenv("DD_DOGSTATSD_PORT");
    char host[INET6_ADDRSTRLEN] = "";
    char text[140];

    if (udp != NULL)
        host_of(udp, host, sizeof(host));
    if (udp != NULL && getenv("DD_AGENT_HOST") == NULL)
        set_own(e, "DD_AGENT_HOST", host);
    if (udp != NULL && (port == NULL ? udp->port != DEFAULT_PORT
                                     : strcmp(port, "__random__") == 0)) {
        (void)snprintf(text, sizeof(text), "%u", udp->port);
        set_own(e, "DD_DOGSTATSD_PORT", text);
    }
    if (getenv("DD_DOGSTATSD_URL") != NULL)
        return;
    if (uds != NULL && uds->path[0] == '/')
        (void)snprintf(text, sizeof(text), "unix://%s", uds->path);
    else if (udp != NULL)
        (void)snprintf(text, sizeof(text),
                       strchr(host, ':') != NULL ? "udp://[%s]:%u"
                                                 : "udp://%s:%u",
                       host, udp->port);
    else
        return;
    set_own(e, "DD_DOGSTATSD_URL", text);
}

static bool same_name(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");

    return strncmp(a, b, n + 1) == 0;
}

static int make_environment(struct job_env *e, const struct sockets *s)
{
    size_t n = 0;
    size_t at = 0;

    choose_variables(e, s);
    while (environ[n] != NULL)
        n++;
    e->vars = calloc(n + N_OWN_VARIABLES + 1, sizeof(*e->vars));
    if (e->vars == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        bool replaced = false;

        for (size_t k = 0; k < e->n_own; k++)
            replaced = replaced || same_name(e->own[k], environ[i]);
        if (!replaced)
            e->vars[at++] = environ[i];
    }
    for (size_t k = 0; k < e->n_own; k++)
        e->vars[at++] = e->own[k];
    return 0;
}

/* ---- Start ------------------------------------------------------------- */

/* execve() along PATH. Unlike execvpe() a file without a known format is not
 * given to a shell: unwrapped it would not run either. Returns the errno that
 * says most. */
static int execute(char **argv, char **vars)
{
    const char *path = getenv("PATH");
    int best = ENOENT;

    if (argv[0][0] == '\0')
        return ENOENT; /* a folder of PATH would be found in its place */
    if (strchr(argv[0], '/') != NULL) {
        (void)execve(argv[0], argv, vars);
        return errno;
    }
    for (const char *p = path != NULL ? path : DEFAULT_PATH; p != NULL;) {
        size_t n = strcspn(p, ":");
        char file[PATH_MAX];

        if (snprintf(file, sizeof(file), "%.*s%s%s", (int)n, p,
                     n > 0 ? "/" : "", argv[0]) < (int)sizeof(file)) {
            (void)execve(file, argv, vars);
            if (errno != ENOENT && errno != ENOTDIR)
                best = errno;
        }
        p = p[n] == ':' ? p + n + 1 : NULL;
    }
    return best;
}

_Noreturn static void be_job(const struct job *j, char **argv, char **vars,
                             const struct fd_set_of *inherited)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    int rc;

    if (j->own_group)
        (void)setpgid(0, 0);
    if (j->ignores_children)
        (void)sigaction(SIGCHLD, &ignore, NULL);
    fd_set_close_others(inherited);
    (void)sigprocmask(SIG_SETMASK, cli_original_mask(), NULL);
    rc = execute(argv, vars);
    fprintf(stderr, "retriever exec: %s: %s\n", argv[0], strerror(rc));
    _exit(rc == ENOENT || rc == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int job_start(struct job *j, char **argv, const struct sockets *s,
              const struct fd_set_of *inherited, bool own_group)
{
    struct job_env e = {0};
    char **vars = environ;
    pid_t pid;

    if (make_environment(&e, s) == 0)
        vars = e.vars;
    j->own_group = own_group && !has_terminal();
    pid = fork();
    if (pid == 0)
        be_job(j, argv, vars, inherited);
    free(e.vars);
    if (pid < 0)
        return -errno;
    if (j->own_group)
        (void)setpgid(pid, pid); /* before the first signal, on either side */
    j->pid = pid;
    return 0;
}

/* ---- Signals ----------------------------------------------------------- */

/* The terminal's driver sends to the whole foreground group, which the job is
 * part of. A hang-up is sent to the session's leader alone. */
static bool from_terminal(const struct signalfd_siginfo *si)
{
    if (si->ssi_code != SI_KERNEL)
        return false;
    switch (si->ssi_signo) {
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGWINCH:
        return true;
    case SIGHUP:
        return getsid(0) != getpid();
    default:
        return false;
    }
}

void job_signal(const struct job *j, const struct signalfd_siginfo *si)
{
    int sig = (int)si->ssi_signo;
    pid_t to = j->own_group ? -j->pid : j->pid;

    if (j->pid == 0 || sig == SIGCHLD || from_terminal(si) ||
        si->ssi_pid == (uint32_t)getpid() || /* SIGPIPE of our own log */
        si->ssi_pid == (uint32_t)j->pid)     /* to its whole group */
        return;
    if (si->ssi_code != SI_QUEUE || j->own_group ||
        sigqueue(to, sig,
                 (union sigval){.sival_ptr = (void *)(uintptr_t)si->ssi_ptr}) !=
            0)
        (void)kill(to, sig);
}

void job_mirror_stop(int sig)
{
    const struct timespec now = {0};
    sigset_t one;

    if (getpid() == 1)
        return; /* nobody could continue us */
    (void)sigemptyset(&one);
    (void)sigaddset(&one, sig);
    while (sigtimedwait(&one, NULL, &now) == sig)
        ; /* the terminal's own copy: one stop is enough */
    (void)raise(sig);
    (void)sigprocmask(SIG_UNBLOCK, &one, NULL); /* stops here */
    (void)sigprocmask(SIG_BLOCK, &one, NULL);
}

int job_count_descendants(pid_t worker)
{
    char path[64];
    char text[4096];
    char *at = text;
    int n = 0;
    ssize_t got;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    got = read(fd, text, sizeof(text) - 1);
    if (got < 0)
        n = -errno;
    close(fd);
    if (n < 0)
        return n;
    text[got] = '\0';
    for (;;) {
        char *end;
        long pid = strtol(at, &end, 10);

        if (end == at)
            return n;
        n += pid != worker;
        at = end;
    }
}

/* ---- The command ------------------------------------------------------- */

/* A signal that would have ended the command before it began. */
static int ended_before_start(void)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
    sigset_t pending;

    if (sigpending(&pending) != 0)
        return 0;
    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++) {
        struct sigaction sa;

        if (sigismember(&pending, ending[i]) == 1 &&
            sigaction(ending[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
            return ending[i];
    }
    return 0;
}

static int run_job(struct keeper *k, struct cli_config *cc, char **argv,
                   const struct fd_set_of *inherited)
{
    int sig;
    int rc;

    k->job.ignores_children = keeper_expect_children();
    if (keeper_configure(k, &cc->sources) == 0)
        (void)keeper_listen(k);
    sig = ended_before_start();
    if (sig != 0)
        return 128 + sig;
    if (keeper_watch_signals(k) != 0) { /* no descriptor left for us */
        log_warn("keeper", "the job runs without telemetry");
        be_job(&k->job, argv, environ, inherited);
    }
    rc = job_start(&k->job, argv, &k->sockets, inherited,
                   k->config.exec_signal_group);
    if (rc != 0) {
        fprintf(stderr, "retriever exec: %s: %s\n", argv[0], strerror(-rc));
        return EXIT_EXEC_FAILED;
    }
    if (keeper_prepare(k) != 0) {
        log_warn("keeper", "the job runs without telemetry");
        keeper_stop_intake(k);
    }
    (void)keeper_run(k);
    return k->job.exit_code;
}

/* Options and command of `exec`. Returns 0, or 1 and the exit status. */
static int parse(struct cli_config *cc, int argc, char **argv, int *status)
{
    int rc = cli_parse_config(cc, argc, argv);

    *status = rc == CLI_HELP ? EXIT_OK : EXIT_EXEC_FAILED;
    if (rc == 0 && cc->first >= argc) {
        fprintf(stderr, "retriever exec: no command; usage: retriever exec "
                        "[options] -- COMMAND [ARGS...]\n");
        rc = CLI_USAGE;
    }
    return rc != 0;
}

int cmd_exec(int argc, char **argv)
{
    static struct keeper k = {.exec_mode = true,
                              .claim_fd = -1,
                              .seconds = {.fd = -1},
                              .signal_fd = -1,
                              .upgrade = {.answer_fd = -1},
                              .handover = {-1, -1, -1, -1, NULL}};
    struct fd_set_of inherited;
    struct cli_config cc;
    int status;

    if (fd_set_snapshot(&inherited) != 0)
        log_debug("keeper", "/proc is missing: descriptors are closed by exec");
    if (parse(&cc, argc, argv, &status) == 0) {
        keeper_hold_standard_fds();
        (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        status = run_job(&k, &cc, argv + cc.first, &inherited);
        keeper_fini(&k);
    }
    fd_set_fini(&inherited);
    return status;
}
