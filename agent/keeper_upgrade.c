/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An upgrade, seen from the keeper: the process goes on as another image of the
 * program, with the same id, children, sockets and connections.
 *
 *   trial      the new program runs beside us as a child, reads the configuration
 *              and loads its module, and says which record it understands
 *   handover   the worker rests and writes the record
 *   execve     keeper_inherit.c goes on from here
 *
 * Whatever fails before the execve() leaves the old program serving. A new one that
 * fails behind it, before its worker serves, goes back to the old image, whose file
 * is held open. One that dies there at once leaves the worker at rest without a
 * keeper, which then delivers what it has and ends, as after any keeper's death.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/cli.h"
#include "agent/keeper_private.h"

#define MODULE "keeper"
#define TRIAL_NS (10000 * MS_NS)
#define HANDOVER_NS (30000 * MS_NS)
#define DELETED " (deleted)"
#define MORE_FDS 4096 /* of workers, where close_range() is missing */

/* ---- The program -------------------------------------------------------- */

static bool is_this_program(const char *path)
{
    struct stat own, other;

    return stat("/proc/self/exe", &own) == 0 && stat(path, &other) == 0 &&
           own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

/* As it was called, so that a symbolic link may lead elsewhere later. */
static bool find_called(char path[PATH_MAX])
{
    const char *name = cli_original_argv()[0];
    const char *dirs = getenv("PATH");

    if (strchr(name, '/') != NULL) {
        char cwd[PATH_MAX] = "";

        if (name[0] != '/' && getcwd(cwd, sizeof(cwd)) == NULL)
            return false;
        return snprintf(path, PATH_MAX, "%s%s%s", cwd,
                        name[0] != '/' ? "/" : "", name) < PATH_MAX &&
               is_this_program(path);
    }
    for (const char *p = dirs; p != NULL;) {
        size_t n = strcspn(p, ":");

        if (snprintf(path, PATH_MAX, "%.*s/%s", (int)n, p, name) < PATH_MAX &&
            is_this_program(path))
            return true;
        p = p[n] == ':' ? p + n + 1 : NULL;
    }
    return false;
}

void keeper_find_program(struct keeper *k)
{
    char path[PATH_MAX];
    ssize_t n;

    if (!find_called(path)) {
        n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        path[n > 0 ? n : 0] = '\0';
        /* After a way back the file of this image is gone. */
        if (n > (ssize_t)strlen(DELETED) &&
            strcmp(path + n - strlen(DELETED), DELETED) == 0)
            path[(size_t)n - strlen(DELETED)] = '\0';
    }
    k->upgrade.program = strdup(path);
}

/* ---- The end of an attempt ---------------------------------------------- */

static void close_answer(struct keeper *k)
{
    struct upgrade *u = &k->upgrade;

    if (u->answer_fd < 0)
        return;
    fd_set_remove(&k->kept, u->answer_fd);
    close(u->answer_fd);
    u->answer_fd = -1;
}

static void close_trial(struct keeper *k)
{
    struct upgrade *u = &k->upgrade;

    if (u->trial != 0)
        (void)kill(u->trial, SIGKILL); /* its end is reaped like any child's */
    close_answer(k);
    u->trial = 0;
}

static void fail(struct keeper *k, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void fail(struct keeper *k, const char *fmt, ...)
{
    struct supervision *sup = k->sup;
    va_list ap;

    close_trial(k);
    k->upgrade.step = UPGRADE_NONE;
    va_start(ap, fmt);
    (void)vsnprintf(sup->upgrade_error, sizeof(sup->upgrade_error), fmt, ap);
    va_end(ap);
    atomic_store(&sup->handover_order, 0);
    atomic_fetch_add(&sup->n_upgrades_failed, 1);
    keeper_ring(k);
    log_error(MODULE, "not upgraded, serving on as before: %s",
              sup->upgrade_error);
}

void keeper_upgrade_abort(struct keeper *k)
{
    if (k->upgrade.step != UPGRADE_NONE)
        fail(k, "the agent stops");
}

/* ---- Trial --------------------------------------------------------------- */

void keeper_close_all_at_exec(const struct keeper *k)
{
    /* Libraries in the worker make descriptors without the flag, in the table that
     * is the keeper's, too. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    for (size_t fd = 3; fd < k->kept.n + MORE_FDS; fd++)
        keeper_keep_over_exec((int)fd, false);
}

void keeper_keep_over_exec(int fd, bool keep)
{
    if (fd >= 0)
        (void)fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

_Noreturn static void be_trial(struct keeper *k, int answer_fd)
{
    char value[64];

    (void)snprintf(value, sizeof(value), "%d %d", answer_fd, k->env.run_dir);
    (void)setenv(KEEPER_TRIAL_VARIABLE, value, 1);
    keeper_close_all_at_exec(k);
    keeper_keep_over_exec(answer_fd, true);
    keeper_keep_over_exec(k->env.run_dir, true);
    (void)execv(k->upgrade.program, cli_original_argv());
    dprintf(answer_fd, "refused: %s: %s\n", k->upgrade.program,
            strerror(errno));
    _exit(EXIT_NOT_EXECUTABLE);
}

void keeper_upgrade_begin(struct keeper *k)
{
    struct upgrade *u = &k->upgrade;
    int fds[2];

    if (u->step != UPGRADE_NONE)
        return; /* who asks now gets the answer of the one under way */
    if (k->env.handover == NULL || u->program == NULL) {
        log_error(MODULE, "not upgraded: that needs `keeper: on`");
        return;
    }
    log_info(MODULE, "upgrade began program=%s", u->program);
    u->n_answer = 0;
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        fail(k, "no pipe: %s", strerror(errno));
        return;
    }
    u->answer_fd = fds[0];
    fd_set_add(&k->kept, fds[0]);
    u->trial = fork();
    if (u->trial == 0)
        be_trial(k, fds[1]);
    close(fds[1]);
    if (u->trial < 0) {
        u->trial = 0;
        fail(k, "no process: %s", strerror(errno));
        return;
    }
    u->step = UPGRADE_TRIAL;
    u->until_ns = keeper_now_ns() + TRIAL_NS;
}

static void order_handover(struct keeper *k)
{
    k->upgrade.step = UPGRADE_HANDOVER;
    k->upgrade.until_ns = keeper_now_ns() + HANDOVER_NS;
    atomic_store(&k->sup->handover, HANDOVER_NOT_YET);
    atomic_store(&k->sup->handover_order, 1);
    keeper_ring(k);
}

static void judge_trial(struct keeper *k, int status)
{
    static const char accepted[] = KEEPER_TRIAL_ACCEPTED;
    struct upgrade *u = &k->upgrade;

    u->answer[u->n_answer] = '\0';
    u->answer[strcspn(u->answer, "\n")] = '\0';
    if (strncmp(u->answer, accepted, sizeof(accepted) - 1) == 0 &&
        WIFEXITED(status) && WEXITSTATUS(status) == 0)
        order_handover(k);
    else if (u->n_answer > 0)
        fail(k, "%s", u->answer);
    else if (WIFSIGNALED(status))
        fail(k, "the new program died in its trial by %s: %s",
             sigabbrev_np(WTERMSIG(status)), u->program);
    else
        fail(k, "the new program ended its trial with status %d: %s",
             WEXITSTATUS(status), u->program);
}

void keeper_upgrade_answer(struct keeper *k)
{
    struct upgrade *u = &k->upgrade;
    ssize_t n;

    if (u->answer_fd < 0)
        return;
    do {
        size_t room = sizeof(u->answer) - 1 - u->n_answer;
        char rest[64]; /* a flood is read and forgotten */

        n = room > 0 ? read(u->answer_fd, u->answer + u->n_answer, room)
                     : read(u->answer_fd, rest, sizeof(rest));
        if (n > 0 && room > 0)
            u->n_answer += (size_t)n;
    } while (n > 0);
    if (n == 0)
        close_answer(k); /* its exit status follows */
}

bool keeper_upgrade_reaped(struct keeper *k, pid_t pid, int status)
{
    if (k->upgrade.trial == 0 || pid != k->upgrade.trial)
        return false;
    keeper_upgrade_answer(k); /* what it said before */
    k->upgrade.trial = 0;
    close_trial(k);
    if (k->upgrade.step == UPGRADE_TRIAL)
        judge_trial(k, status);
    return true;
}

/* ---- Execve -------------------------------------------------------------- */

/* All that the next image finds by number, and the old module and program for the
 * way back. */
static void keep_descriptors(const struct keeper *k, bool keep)
{
    const struct handover_files *f = k->env.handover;

    for (uint32_t i = 0; i < k->sockets.n; i++)
        keeper_keep_over_exec(k->sockets.entries[i].fd, keep);
    /* In a table of its own a worker's numbers mean something else here. */
    for (uint32_t i = 0; i < k->landing.n_conns && k->shares_table; i++)
        keeper_keep_over_exec(k->landing.conns[i].fd, keep);
    keeper_keep_over_exec(f->record, keep);
    keeper_keep_over_exec(f->payloads, keep);
    keeper_keep_over_exec(f->points, keep);
    keeper_keep_over_exec(f->baton_fd, keep);
    keeper_keep_over_exec(k->env.run_dir, keep);
    keeper_keep_over_exec(k->env.http_module, keep);
    keeper_keep_over_exec(k->env.httpd_module, keep);
    keeper_keep_over_exec(k->sup->to_worker, keep);
}

static void execute(struct keeper *k)
{
    int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    char value[96];
    int rc;

    if (exe < 0) {
        fail(k, "no way back: /proc/self/exe: %s", strerror(errno));
        return;
    }
    (void)snprintf(value, sizeof(value), "%d %d %d %d", k->env.handover->record,
                   exe, k->env.http_module, k->env.httpd_module);
    (void)setenv(KEEPER_HANDOVER_VARIABLE, value, 1);
    keeper_close_all_at_exec(k);
    keep_descriptors(k, true);
    keeper_keep_over_exec(exe, true);
    keeper_leave_identity(k); /* or our worker had it, beside the next image */
    (void)execv(k->upgrade.program, cli_original_argv());
    rc = errno;
    keeper_claim_identity(k);
    if (k->claim_fd >= 0)
        fd_set_add(&k->kept, k->claim_fd);
    keep_descriptors(k, false);
    (void)unsetenv(KEEPER_HANDOVER_VARIABLE);
    close(exe);
    fail(k, "%s: %s", k->upgrade.program, strerror(rc));
}

void keeper_upgrade_look(struct keeper *k)
{
    struct upgrade *u = &k->upgrade;

    if (u->step == UPGRADE_HANDOVER) {
        switch ((enum handover_answer)atomic_load(&k->sup->handover)) {
        case HANDOVER_NOT_YET:
            break;
        case HANDOVER_READY:
            if (atomic_load(&k->sup->command_stop) == 0)
                execute(k);
            return; /* or the doorbell says so first */
        case HANDOVER_FAILED:
            fail(k, "the record was not written; see the log");
            return;
        }
    }
    if (u->step != UPGRADE_NONE && keeper_now_ns() >= u->until_ns)
        fail(k, u->step == UPGRADE_TRIAL
                    ? "the new program did not answer in its trial"
                    : "the worker did not come to rest");
}

void keeper_upgrade_worker_died(struct keeper *k)
{
    if (k->env.handover != NULL)
        atomic_store(&k->env.handover->baton->state, BATON_HELD);
    atomic_store(&k->sup->handover, HANDOVER_NOT_YET); /* its successor will */
}
