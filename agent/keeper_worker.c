/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's process.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/keeper_private.h"

#define OOM_RAISE 100

/* When memory runs out the worker goes before its keeper and before the job: it
 * is the one that comes back. */
static void raise_oom_score(void)
{
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    char text[16] = "";
    long score;
    int n;

    if (fd < 0)
        return;
    if (read(fd, text, sizeof(text) - 1) > 0) {
        score = strtol(text, NULL, 10) + OOM_RAISE;
        n = snprintf(text, sizeof(text), "%ld", score > 1000 ? 1000 : score);
        (void)!pwrite(fd, text, (size_t)n, 0);
    }
    close(fd);
}

/* Without pidfd the kernel's death signal stands for it: blocked like all
 * others, it makes a signalfd readable. */
static void watch_keeper(struct keeper *k, pid_t keeper)
{
    sigset_t term;

    if (k->has_pidfd)
        return; /* else the word is a predecessor's, its descriptor closed */
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    k->sup->keeper_pidfd = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
    if (getppid() != keeper)
        (void)raise(SIGTERM);
}

/* Not while, after an upgrade, the old worker kept the baton. */
static bool env_is_ours(const struct worker_env *env)
{
    return env->inherited == NULL ||
           atomic_load(&env->inherited_files->baton->state) == BATON_TAKEN;
}

_Noreturn static void be_worker(struct keeper *k, pid_t keeper)
{
    int status;

    (void)setsid();
    (void)prctl(PR_SET_NAME, "retriever-work");
    (void)umask(077);
    raise_oom_score();
    watch_keeper(k, keeper);
    if (!k->shares_table)
        k->env.n_keep_conns = 0; /* they would end with this process */
    status = worker_main(&k->env);
    if (getppid() != keeper) {
        /* Nobody else is left to do it; the receipt may be printed already. */
        receipt_print(&k->sup->receipt, k->env.run_dir,
                      atomic_load(&k->sup->deadline_ns));
        if (env_is_ours(&k->env))
            sockets_close(&k->sockets);
    }
    _exit(status);
}

int keeper_start_worker(struct keeper *k)
{
    pid_t keeper = getpid();
    pid_t pid;

    k->env.job_pid = (uint32_t)k->job.pid;
    pid = keeper_fork(k);

    if (pid < 0)
        return -errno;
    if (pid == 0)
        be_worker(k, keeper);
    atomic_store(&k->sup->worker_started_ns, keeper_now_ns());
    k->worker = pid;
    return 0;
}
