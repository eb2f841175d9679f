/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>

#include "agent/cli.h"

static sigset_t original_mask;
static char **original_argv;

const sigset_t *cli_original_mask(void)
{
    return &original_mask;
}

char **cli_original_argv(void)
{
    return original_argv;
}

int main(int argc, char **argv)
{
    sigset_t all;

    /* First of all: a SIGTERM that comes now must find a stop machine, and a
     * SIGCHLD somebody who waits for it. */
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &original_mask);
    original_argv = argv;
    return cli_main(argc, argv);
}
