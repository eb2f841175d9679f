/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's process, and the receipt when none is left to write it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/keeper_private.h"
#include "agent/ledger.h"
#include "agent/wiring.h"

#define MODULE "keeper"
#define OOM_RAISE 100
#define LAST_RECEIPT_NS (1000 * MS_NS)

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

    if (k->sup->keeper_pidfd >= 0)
        return;
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    k->sup->keeper_pidfd = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
    if (getppid() != keeper)
        (void)raise(SIGTERM);
}

_Noreturn static void be_worker(struct keeper *k, pid_t keeper)
{
    int status;

    (void)setsid();
    (void)prctl(PR_SET_NAME, "retriever-work");
    (void)umask(077);
    raise_oom_score();
    watch_keeper(k, keeper);
    status = worker_main(&k->env);
    if (getppid() != keeper)
        sockets_close(&k->sockets); /* nobody is left to unlink the paths */
    _exit(status);
}

int keeper_start_worker(struct keeper *k)
{
    pid_t keeper = getpid();
    pid_t pid = keeper_fork(k);

    if (pid < 0)
        return -errno;
    if (pid == 0)
        be_worker(k, keeper);
    atomic_store(&k->sup->worker_started_ns, keeper_now_ns());
    k->worker = pid;
    return 0;
}

/* ---- The receipt without a worker -------------------------------------- */

static int receipt_status(struct keeper *k)
{
    struct supervision *sup = k->sup;
    const struct store_opts store_opts = {.max_bytes =
                                              k->config.store_max_bytes};
    uint32_t stage_ms[STAGE_DONE];
    struct ledger_facts f = {
        .reason = stop_reason_name(atomic_load(&sup->stop_request)),
        .duration_ms =
            (keeper_now_ns() - atomic_load(&sup->stop_at_ns)) / MS_NS,
        .stage_ms = stage_ms,
        .worker_deaths = atomic_load(&sup->worker_deaths),
    };
    struct wiring w;
    struct agg *agg;
    struct store *store;
    struct ledger l;

    for (int i = 0; i < STAGE_DONE; i++)
        stage_ms[i] = atomic_load(&sup->stage_ms[i]);
    if (wiring_init(&w, &k->env, 0) != 0 ||
        agg_create(&agg, &k->ingest, &w.agg) != 0 ||
        store_open(&store, &k->store, &store_opts) != 0)
        return 1;
    ledger_collect(&l, agg, store);
    ledger_finish(&l);
    f.exit_status =
        ledger_exit_status(&l, atomic_load(&sup->dropped_before_stop));
    ledger_emit_receipt(&l, &f, k->env.run_dir,
                        keeper_now_ns() + LAST_RECEIPT_NS / 2);
    return f.exit_status;
}

/* In a process of its own: a region that ends the worker may end this, too, and
 * the job's exit code must not hang on it. */
int keeper_last_receipt(struct keeper *k)
{
    uint64_t end_ns = keeper_now_ns() + LAST_RECEIPT_NS;
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(receipt_status(k));
    while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
        struct timespec ms = {.tv_nsec = 1000000};

        if (keeper_now_ns() > end_ns)
            (void)kill(pid, SIGKILL);
        (void)nanosleep(&ms, NULL); /* nothing else is left to wait for */
    }
    if (pid > 0 && WIFEXITED(status))
        return WEXITSTATUS(status);
    log_error(MODULE, "the receipt was not written: shared memory is damaged");
    return 1;
}
