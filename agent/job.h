/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wrapped command of `retriever exec`: a child of the keeper and the worker's
 * sibling. It runs as if nobody wrapped it: same descriptors, signal mask,
 * dispositions, arguments, session and process group; its environment gains the
 * address of our sockets where it says nothing.
 *
 * Thread:  the keeper's.
 * Memory:  a copy of the environment's pointers, three strings of our own.
 * Promise: starting it depends on nothing of telemetry; every signal that was not
 *          already sent to it by the terminal reaches it; its exit code is ours.
 */
#ifndef RETRIEVER_AGENT_JOB_H
#define RETRIEVER_AGENT_JOB_H

#include <stdbool.h>
#include <sys/signalfd.h>
#include <sys/types.h>

#include "agent/sockets.h"

struct fd_set_of;

struct job {
    pid_t pid; /* 0 = none */
    bool own_group;
    bool ignores_children; /* we were started with SIGCHLD ignored */
    bool exited;
    int exit_code;           /* valid with exited; 128 + n for signal n */
    bool descendants_hidden; /* they cannot be counted, which was said */
};

/** Fork and execute @argv[0] (looked up in PATH). @inherited: the descriptors
 *  that Retriever itself was started with. @own_group: exec_signal_group; taken
 *  only without a controlling terminal, whose foreground group is never
 *  changed. Returns 0 or -errno; a command that cannot be executed ends with
 *  126 or 127 as a shell's would. */
int job_start(struct job *j, char **argv, const struct sockets *s,
              const struct fd_set_of *inherited, bool own_group);

/** Pass a signal on, unless the terminal or the job itself has sent it. */
void job_signal(const struct job *j, const struct signalfd_siginfo *si);

/** The job was stopped by the terminal's @sig: stop this process as well, so that
 *  a shell sees it; returns after SIGCONT. */
void job_mirror_stop(int sig);

/** Children of this process that are neither job nor @worker, the job being reaped.
 *  Returns how many, or -errno: the kernel does not tell. */
int job_count_descendants(pid_t worker);

#endif
