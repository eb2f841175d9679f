/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: one table of subcommands (cli.c), the options that several
 * of them share, exit codes.
 *
 * Each cmd_NAME() gets its own arguments with argv[0] = the command's name, and
 * returns the exit status of the process. `run` and `exec` are entered with all
 * signals blocked; the others with the mask the process was started with.
 *
 * Thread:  the main thread, before any other exists.
 * Memory:  borrows argv for the life of the process.
 * Promise: behind exec's first word that is no option nothing is looked at: it
 *          is the job's.
 */
#ifndef RETRIEVER_AGENT_CLI_H
#define RETRIEVER_AGENT_CLI_H

#include <signal.h>
#include <stdio.h>

#include "agent/config.h"

enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,           /* could not start or lost what it needs */
    EXIT_USAGE = 2,            /* command line or configuration */
    EXIT_UNDELIVERED = 3,      /* run: the stop left samples behind */
    EXIT_UNBALANCED = 4,       /* run: the ledger does not balance */
    EXIT_EXEC_FAILED = 125,    /* exec: we could not run the job */
    EXIT_NOT_EXECUTABLE = 126, /* exec: found but not executable */
    EXIT_NOT_FOUND = 127
};

int cmd_run(int argc, char **argv);     /* keeper.c */
int cmd_exec(int argc, char **argv);    /* job.c */
int cmd_check(int argc, char **argv);   /* check.c */
int cmd_status(int argc, char **argv);  /* control_client.c */
int cmd_ebpf(int argc, char **argv);    /* control_client.c */
int cmd_flush(int argc, char **argv);   /* control_client.c */
int cmd_stop(int argc, char **argv);    /* control_client.c */
int cmd_upgrade(int argc, char **argv); /* control_client.c */
int cmd_version(int argc, char **argv); /* cli.c */
int cmd_intake(int argc, char **argv);  /* intake.c */
int cmd_send(int argc, char **argv);    /* send.c */

/** The mask the process was started with: what a job must get back. */
const sigset_t *cli_original_mask(void);

/** The whole command line, the program's name included. */
char **cli_original_argv(void);

/** Complete help of one command, or of all (@command NULL). Returns 0, or
 *  -ENOENT when there is no such command (nothing printed). */
int cli_help(const char *command, FILE *out);

/** Dispatch; except for run and exec, output that could not be written to stdout
 *  makes success a failure. Returns the exit status. */
int cli_main(int argc, char **argv);

#define CLI_MAX_SETS 64

/** The options of run, exec and check: -c FILE, --set KEY=VALUE, --help. */
struct cli_config {
    struct config_sources sources;
    const char *sets[CLI_MAX_SETS];
    int first; /* index of the first argument that is not an option: exec's
                  command. == argc when there is none */
};

/** Parse up to the first non-option (or behind `--`). Borrows @argv and *out: keep
 *  both while out->sources is used. Returns 0, CLI_HELP (help was printed: exit
 *  0) or CLI_USAGE (said on stderr: exit 2, or 125 in exec). */
enum cli_rc { CLI_HELP = 1, CLI_USAGE };
int cli_parse_config(struct cli_config *out, int argc, char **argv);

/** Where the client commands ask when nothing names another socket. */
#define CLI_CONTROL_SOCKET "/run/retriever/control.sock"

#endif
