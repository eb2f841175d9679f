/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the keeper waits for: signals (read from a descriptor, since all are
 * blocked), the worker's doorbell, and three instants: a restart, the deadline of
 * a stop, nothing else.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/cli.h"
#include "agent/keeper_private.h"

#define MODULE "keeper"
#define NEVER UINT64_MAX
#define KILLED_MS 500
/* A worker that dies is followed at once, this often in a second: a crash that
 * comes with each start must not take the machine. */
#define RESTARTS_PER_S 32u

void keeper_ring(const struct keeper *k)
{
    uint64_t one = 1;

    if (k->sup != NULL)
        (void)!write(k->sup->to_worker, &one, sizeof(one));
}

/* ---- The service manager ------------------------------------------------ */

static void tell_ready(struct keeper *k)
{
    char status[64];
    int rc;

    if (k->told_ready || atomic_load(&k->sup->serving) == 0)
        return;
    k->told_ready = true;
    (void)snprintf(status, sizeof(status), "Serving %u sockets", k->sockets.n);
    rc = notify_ready(&k->notify, status);
    if (rc != 0)
        log_warn(MODULE, "the service manager was not told that we serve: %s",
                 strerror(-rc));
}

static void tell_stopping(struct keeper *k, enum stop_reason reason)
{
    char status[64];

    k->told_ready = true; /* or never: the stop came first */
    (void)snprintf(status, sizeof(status), "Stopping (%s), %u ms at most",
                   stop_reason_name(reason),
                   (unsigned)k->config.stop_timeout_ms);
    (void)notify_stopping(&k->notify, status);
}

/* ---- The stop ---------------------------------------------------------- */

static bool stopping(const struct keeper *k)
{
    return k->sup != NULL && atomic_load(&k->sup->stop_request) != STOP_NONE;
}

static void begin_stop(struct keeper *k, enum stop_reason reason)
{
    uint64_t now_ns = keeper_now_ns();

    if (k->sup == NULL || stopping(k))
        return;
    keeper_upgrade_abort(k);
    atomic_store(&k->sup->stop_at_ns, now_ns);
    atomic_store(&k->sup->deadline_ns,
                 now_ns + k->config.stop_timeout_ms * MS_NS);
    atomic_store(&k->sup->stop_request, reason);
    keeper_ring(k);
    tell_stopping(k, reason);
}

static void hurry(struct keeper *k)
{
    atomic_store(&k->sup->hurry, 1);
    keeper_ring(k);
}

/* exec: the job was asked to end and may take its time. What came so far is
 * delivered within the budget that this request opens. */
static void request_flush(struct keeper *k)
{
    if (k->sup == NULL || stopping(k))
        return;
    atomic_store(&k->sup->flush_deadline_ns,
                 keeper_now_ns() + k->config.stop_timeout_ms * MS_NS);
    atomic_fetch_add(&k->sup->flush_request, 1);
    keeper_ring(k);
}

/* Nothing more will come from a worker: the receipt from what it left. */
static void end_without_worker(struct keeper *k)
{
    k->worker_over = true;
    k->restart_ns = 0;
    keeper_salvage_abort(k);
    if (k->can_work)
        k->exit_status = keeper_last_receipt(k);
}

/* ---- Children ---------------------------------------------------------- */

/* One token for each restart, RESTARTS_PER_S new ones a second. Returns the
 * instant at which there is one. */
static uint64_t take_token(struct keeper *k)
{
    const uint64_t each_ns = UINT64_C(1000000000) / RESTARTS_PER_S;
    uint64_t now_ns = keeper_now_ns();
    uint64_t fresh = (now_ns - k->tokens_ns) / each_ns;

    if (fresh > 0) {
        k->tokens_ns = now_ns;
        k->n_tokens = fresh + k->n_tokens > RESTARTS_PER_S
                          ? RESTARTS_PER_S
                          : k->n_tokens + (uint32_t)fresh;
    }
    if (k->n_tokens == 0)
        return now_ns + each_ns;
    k->n_tokens--;
    return now_ns;
}

static void start_worker(struct keeper *k)
{
    int rc = keeper_start_worker(k);

    k->restart_ns = 0;
    if (rc == 0)
        return;
    log_error(MODULE, "worker was not started: %s", strerror(-rc));
    k->restart_ns = keeper_now_ns() + 1000 * MS_NS;
}

static void log_death(const struct keeper *k, int status)
{
    if (WIFSIGNALED(status))
        log_warn(MODULE,
                 "worker died, a successor takes over its state pid=%d "
                 "signal=%s",
                 k->worker, sigabbrev_np(WTERMSIG(status)));
    else
        log_warn(MODULE,
                 "worker died, a successor takes over its state pid=%d "
                 "status=%d",
                 k->worker, WEXITSTATUS(status));
}

static void print_receipt(struct keeper *k)
{
    if (k->sup != NULL)
        receipt_print(&k->sup->receipt, k->env.run_dir,
                      atomic_load(&k->sup->deadline_ns));
}

/* However it ended: nothing that it still had to do matters to anybody. */
static bool left_receipt(struct keeper *k)
{
    if (!receipt_is_ready(&k->sup->receipt))
        return false;
    print_receipt(k);
    k->worker = 0;
    k->worker_over = true;
    k->restart_ns = 0;
    k->exit_status = atomic_load(&k->sup->receipt.exit_status);
    return true;
}

/* No worker has ever served, and a further one would not. */
static void give_up_start(struct keeper *k)
{
    k->worker = 0;
    k->worker_over = true;
    k->exit_status = EXIT_FAILED;
    log_error(MODULE, "worker could not start%s",
              k->exec_mode ? ": the job runs without telemetry" : "");
    if (!k->exec_mode)
        return;
    keeper_stop_intake(k);
    if (k->job.exited)
        end_without_worker(k);
}

/* Faults of workers before it are none of the memory's. */
static void note_served(struct keeper *k)
{
    if (k->has_served || atomic_load(&k->sup->serving) == 0)
        return;
    k->has_served = true;
    k->salvage.n_faults = 0;
}

static void on_fault_too_many(struct keeper *k)
{
    if (k->has_served) {
        keeper_salvage_begin(k);
        return;
    }
    log_error(MODULE, "workers died of faults %d times before one served",
              SALVAGE_FAULTS);
    give_up_start(k);
}

static void on_worker_end(struct keeper *k, int status)
{
    if (left_receipt(k) || keeper_inherit_worker_died(k))
        return;
    note_served(k);
    if (WIFEXITED(status) && !k->has_served) {
        give_up_start(k); /* it has said why */
        return;
    }
    log_death(k, status);
    atomic_store(&k->sup->worker_died_ns, keeper_now_ns());
    k->worker = 0;
    atomic_fetch_add(&k->sup->worker_deaths, 1);
    keeper_after_worker(k, status);
    keeper_upgrade_worker_died(k);
    if (stopping(k) && keeper_now_ns() >= atomic_load(&k->sup->deadline_ns)) {
        end_without_worker(k);
        return;
    }
    if (keeper_is_faulty(k, status)) {
        on_fault_too_many(k);
        return;
    }
    k->restart_ns = take_token(k);
    if (k->restart_ns <= keeper_now_ns())
        start_worker(k);
}

/* Who cannot be counted may still send: then quiet ends the linger, as in `run`. */
static void count_descendants(struct keeper *k)
{
    int n = job_count_descendants(k->worker);

    if (n < 0 && !k->job.descendants_hidden) {
        k->job.descendants_hidden = true;
        log_warn(MODULE,
                 "processes that the job left behind were not counted: the end "
                 "waits for stop_quiet_ms without data cause=%s",
                 strerror(-n));
    }
    atomic_store(&k->sup->n_descendants,
                 n < 0 ? DESCENDANTS_UNKNOWN : (uint32_t)n);
}

static void on_job_change(struct keeper *k, int status)
{
    if (WIFSTOPPED(status)) {
        int sig = WSTOPSIG(status);

        if (sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU)
            job_mirror_stop(sig);
        return;
    }
    k->job.exited = true;
    k->job.pid = 0;
    k->job.exit_code =
        WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (k->sup == NULL)
        return;
    atomic_store(&k->sup->job_exit_ns, keeper_now_ns());
    count_descendants(k);
    begin_stop(k, STOP_JOB_EXIT);
    if (k->worker_over) /* since its start: what came before that is named */
        end_without_worker(k);
}

static void reap(struct keeper *k)
{
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (pid == k->worker && !WIFSTOPPED(status))
            on_worker_end(k, status);
        else if (pid == k->job.pid)
            on_job_change(k, status);
        else if (!keeper_upgrade_reaped(k, pid, status) &&
                 !keeper_inherit_reaped(k, pid))
            (void)keeper_salvage_reaped(k, pid, status);
    }
    if (!k->job.exited || k->sup == NULL)
        return;
    count_descendants(k);
    keeper_ring(k);
}

/* ---- Signals ----------------------------------------------------------- */

/* nohup and shells without job control start us with signals ignored. */
static bool is_ignored(int sig)
{
    struct sigaction sa;

    return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

static void on_run_signal(struct keeper *k, const struct signalfd_siginfo *si)
{
    switch ((int)si->ssi_signo) {
    case SIGTERM:
        begin_stop(k, STOP_SIGTERM);
        break;
    case SIGINT:
    case SIGQUIT:
        if (is_ignored((int)si->ssi_signo))
            break;
        if (stopping(k))
            hurry(k);
        else
            begin_stop(k, STOP_SIGINT);
        break;
    case SIGHUP: /* the terminal is gone, or somebody expects a reload */
        if (si->ssi_code != SI_KERNEL)
            log_info(MODULE, "SIGHUP is ignored; `retriever upgrade` reads the "
                             "configuration anew");
        else if (!is_ignored(SIGHUP))
            begin_stop(k, STOP_SIGTERM);
        break;
    case SIGUSR1:
        atomic_fetch_add(&k->sup->n_dump, 1);
        keeper_ring(k);
        break;
    case SIGUSR2:
        if (!stopping(k))
            keeper_upgrade_begin(k);
        break;
    default:
        break;
    }
}

static void on_signals(struct keeper *k)
{
    struct signalfd_siginfo si;

    while (read(k->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        if (si.ssi_signo == SIGCHLD) {
            reap(k);
        } else if (!k->exec_mode) {
            on_run_signal(k, &si);
        } else {
            job_signal(&k->job, &si);
            if (si.ssi_signo == SIGTERM && !k->job.exited)
                request_flush(k);
        }
    }
}

/* ---- Time -------------------------------------------------------------- */

/* `retriever stop`: in exec it asks the job to end, as SIGTERM would. */
static void on_doorbell(struct keeper *k)
{
    uint64_t n;

    while (read(k->sup->to_keeper, &n, sizeof(n)) > 0)
        ;
    print_receipt(k);
    tell_ready(k);
    if (atomic_exchange(&k->sup->command_upgrade, 0) != 0 && !stopping(k))
        keeper_upgrade_begin(k);
    if (atomic_exchange(&k->sup->command_stop, 0) == 0)
        return;
    if (!k->exec_mode) {
        begin_stop(k, STOP_COMMAND);
    } else if (k->job.pid != 0) {
        (void)kill(k->job.pid, SIGTERM);
        request_flush(k);
    }
}

/* Instant at which a worker that is still there is killed. */
static uint64_t kill_at(const struct keeper *k)
{
    if (!stopping(k) || k->worker_over)
        return NEVER;
    return atomic_load(&k->sup->deadline_ns) + KEEPER_GRACE_NS;
}

/* SIGKILL does not end what waits in the kernel for something that does not come, such
 * as a page of a file system that hangs: whoever waited for it would not end either. */
static void wait_for_killed(struct keeper *k, int *status)
{
    struct pollfd ended = {.events = POLLIN};

    ended.fd = (int)syscall(SYS_pidfd_open, k->worker, 0u);
    if (ended.fd >= 0 && poll(&ended, 1, KILLED_MS) == 0) {
        log_error(MODULE,
                  "worker was killed, and the kernel does not let go of it");
        k->worker_stays = true;
    } else {
        (void)waitpid(k->worker, status, 0);
    }
    if (ended.fd >= 0)
        (void)close(ended.fd);
}

static void on_deadline(struct keeper *k)
{
    int status = SIGKILL;

    if (!k->config.keeper) { /* its state is in this process: no way back */
        if (left_receipt(k))
            _exit(k->exec_mode ? k->job.exit_code : k->exit_status);
        log_error(MODULE, "worker did not end by the deadline");
        _exit(k->exec_mode ? k->job.exit_code : EXIT_UNDELIVERED);
    }
    if (keeper_is_offered(k)) { /* the old worker has it all, and delivers it */
        keeper_inherit_give_back(k);
        return;
    }
    if (k->worker != 0) {
        (void)kill(k->worker, SIGKILL);
        wait_for_killed(k, &status);
        if (left_receipt(k))
            return;
        log_error(MODULE, "worker did not end by the deadline and was killed");
        k->worker = 0;
        atomic_fetch_add(&k->sup->worker_deaths, 1);
        keeper_after_worker(k, status);
    }
    end_without_worker(k);
}

static int wait_ms(const struct keeper *k)
{
    uint64_t now_ns = keeper_now_ns();
    uint64_t next_ns = kill_at(k);

    if (k->restart_ns != 0 && k->restart_ns < next_ns)
        next_ns = k->restart_ns;
    if (k->upgrade.step != UPGRADE_NONE && k->upgrade.until_ns < next_ns)
        next_ns = k->upgrade.until_ns;
    if (k->salvage.pid > 0 && k->salvage.until_ns < next_ns)
        next_ns = k->salvage.until_ns;
    if (keeper_inherit_next_ns(k) < next_ns)
        next_ns = keeper_inherit_next_ns(k);
    if (next_ns == NEVER)
        return -1;
    return next_ns <= now_ns ? 0 : (int)((next_ns - now_ns) / MS_NS) + 1;
}

static bool is_over(struct keeper *k)
{
    if (atomic_load(&k->inside_done) != 0)
        k->worker_over = true;
    return k->worker_over && (!k->exec_mode || k->job.exited);
}

void keeper_watch(struct keeper *k)
{
    struct pollfd fds[3] = {
        {.fd = k->signal_fd, .events = POLLIN},
        {.fd = k->sup != NULL ? k->sup->to_keeper : -1, .events = POLLIN},
    };

    k->n_tokens = RESTARTS_PER_S;
    k->tokens_ns = keeper_now_ns();
    while (!is_over(k)) {
        if (k->restart_ns != 0 && keeper_now_ns() >= k->restart_ns)
            start_worker(k);
        fds[2] = (struct pollfd){.fd = k->upgrade.answer_fd, .events = POLLIN};
        (void)poll(fds, 3, wait_ms(k));
        on_signals(k);
        if (fds[2].revents != 0)
            keeper_upgrade_answer(k);
        if ((fds[1].revents & POLLIN) != 0)
            on_doorbell(k);
        keeper_upgrade_look(k);
        keeper_inherit_look(k);
        keeper_salvage_look(k);
        if (keeper_now_ns() >= kill_at(k))
            on_deadline(k);
    }
    print_receipt(k); /* keeper: off, and the worker was done first */
}
