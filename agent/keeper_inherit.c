/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other side of an upgrade (keeper_upgrade.c): this process was another image
 * of the program a moment ago, or this is the child that tries out whether it can
 * go on as one.
 *
 * Everything that has a number in the record is closed at the next execve() again;
 * what the configuration does not want any more is closed at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/cli.h"
#include "agent/keeper_private.h"
#include "agent/stamps.h"
#include "forwarder/http_module.h"

#define MODULE "keeper"
#define TAKE_NS (5000 * MS_NS)  /* from our start until our worker serves */
#define LEAVE_NS (1000 * MS_NS) /* from then on until the old one has ended */

extern char **environ;

/* ---- Trial --------------------------------------------------------------- */

bool keeper_on_trial(struct keeper *k)
{
    const char *value = secure_getenv(KEEPER_TRIAL_VARIABLE);
    int run_dir;
    int fd;

    if (value == NULL || sscanf(value, "%d %d", &fd, &run_dir) != 2)
        return false;
    k->trial = (struct trial){.on = true, .answer_fd = fd, .run_dir = run_dir};
    (void)unsetenv(KEEPER_TRIAL_VARIABLE);
    return true;
}

static bool same_folder(int fd, const char *path)
{
    struct stat a, b;

    if (fd < 0 || path[0] == '\0')
        return fd < 0 && path[0] == '\0';
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* NULL, or why this program cannot go on for the one that asks. */
static const char *find_fault(struct keeper *k, int status, char *scratch)
{
    int fd;

    if (status != 0)
        return "its configuration has errors, see above";
    if (!k->config.keeper)
        return "`keeper: off` in its configuration: restart it instead";
    if (!same_folder(k->trial.run_dir, k->config.run_path))
        return "run_path changed: restart it instead";
    fd = keeper_open_module("retriever-http.so");
    if (fd < 0)
        return "retriever-http.so is missing beside it";
    return http_module_open(fd, "", scratch) == NULL ? scratch : NULL;
}

int keeper_trial(struct keeper *k, int status)
{
    char scratch[HTTP_MODULE_ERROR_MAX];
    const char *fault = find_fault(k, status, scratch);

    if (fault != NULL)
        dprintf(k->trial.answer_fd, "refused by the new program (%s): %s\n",
                RETRIEVER_VERSION, fault);
    else
        dprintf(k->trial.answer_fd, KEEPER_TRIAL_ACCEPTED " %s\n",
                RETRIEVER_VERSION);
    return fault != NULL ? EXIT_FAILED : EXIT_OK;
}

/* ---- Going on ------------------------------------------------------------- */

static void close_at_exec(int fd)
{
    if (fd >= 0)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void close_all_at_exec(const struct inheritance *in)
{
    const struct handover *h = &in->record;

    close_at_exec(in->files.payloads);
    close_at_exec(in->files.points);
    close_at_exec(in->files.baton_fd);
    close_at_exec(h->run_dir);
    close_at_exec(h->doorbell);
    for (uint32_t i = 0; i < h->sockets.n; i++)
        close_at_exec(h->sockets.entries[i].fd);
    for (uint32_t i = 0; i < h->n_conns; i++)
        close_at_exec(h->conns[i].fd);
}

int keeper_inherit(struct keeper *k)
{
    const char *value = secure_getenv(KEEPER_HANDOVER_VARIABLE);
    struct inheritance *in = &k->inherited;
    const char *why = "";
    char last[8] = "";
    int rc;

    if (value == NULL)
        return 0;
    in->present = sscanf(value, "%d %d %d %d %7s", &in->files.record, &in->exe,
                         &in->http_module, &in->httpd_module, last) >= 4;
    in->last = strcmp(last, "last") == 0;
    (void)unsetenv(KEEPER_HANDOVER_VARIABLE);
    if (!in->present)
        return 0; /* somebody's own variable */
    close_at_exec(in->files.record);
    close_at_exec(in->exe);
    close_at_exec(in->http_module);
    close_at_exec(in->httpd_module);
    rc = handover_read(&in->record, in->files.record, &why);
    if (rc == 0) {
        in->files.payloads = in->record.payloads;
        in->files.points = in->record.points;
        in->files.baton_fd = in->record.baton_fd;
        close_all_at_exec(in);
        rc = handover_files_adopt(&in->files);
    }
    in->old_worker = in->record.worker_pid;
    in->take_by_ns = keeper_now_ns() + TAKE_NS;
    if (rc == 0)
        return 0;
    log_error(MODULE, "the old program's record was not taken cause=\"%s\"",
              rc == HANDOVER_REFUSED ? why : strerror(-rc));
    return EXIT_FAILED;
}

void keeper_fall_back(struct keeper *k)
{
    struct inheritance *in = &k->inherited;
    char value[96];

    if (!in->present || in->last)
        return;
    if (k->sup != NULL && atomic_load(&k->sup->stop_request) != STOP_NONE)
        (void)raise(SIGTERM); /* blocked: the other image reads it */
    log_error(MODULE, "this program could not go on: back to the old one");
    (void)snprintf(value, sizeof(value), "%d %d %d %d last", in->files.record,
                   in->exe, in->http_module, in->httpd_module);
    (void)setenv(KEEPER_HANDOVER_VARIABLE, value, 1);
    if (in->record.worker_pid != 0) /* else it is not known what lives on */
        keeper_close_all_at_exec(k);
    keeper_keep_over_exec(in->files.record, true);
    keeper_keep_over_exec(in->http_module, true);
    keeper_keep_over_exec(in->httpd_module, true);
    keeper_keep_over_exec(in->record.payloads, true);
    keeper_keep_over_exec(in->record.points, true);
    keeper_keep_over_exec(in->record.baton_fd, true);
    keeper_keep_over_exec(in->record.run_dir, true);
    keeper_keep_over_exec(in->record.doorbell, true);
    for (uint32_t i = 0; i < in->record.sockets.n; i++)
        keeper_keep_over_exec(in->record.sockets.entries[i].fd, true);
    for (uint32_t i = 0; i < in->record.n_conns; i++)
        keeper_keep_over_exec(in->record.conns[i].fd, true);
    (void)fexecve(in->exe, cli_original_argv(), environ);
    log_error(MODULE, "the old program was not started: %s", strerror(errno));
}

void keeper_inherit_stamps(struct keeper *k)
{
    const struct handover *h = &k->inherited.record;
    int rc = stamps_read(&k->stamps, h->points,
                         clock_wall_ns(&clock_real) / CLOCK_NS_PER_S);

    if (rc != 0)
        log_warn(MODULE,
                 "the old program's used seconds were not read: a point with a "
                 "timestamp may replace one of before cause=%s",
                 strerror(-rc));
    if (k->stamps.last_s < h->last_stamp_s)
        k->stamps.last_s = h->last_stamp_s;
}

/* Returns the index of the listener that connections of the old one belong to. */
static bool find_listener(const struct keeper *k, uint32_t was, uint32_t *now)
{
    for (uint32_t i = 0; i < k->sockets.n; i++) {
        if (k->sockets.entries[i].was == was + 1 &&
            k->sockets.entries[i].kind == SOCKET_UNIXSTREAM) {
            *now = i;
            return true;
        }
    }
    return false;
}

static bool is_socket(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

void keeper_inherit_conns(struct keeper *k)
{
    const struct handover *h = &k->inherited.record;
    uint32_t n_lost = 0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < k->sockets.n; i++) {
        if (k->sockets.entries[i].was > 0)
            k->landing.head->drops_seen[i] =
                h->drops_seen[k->sockets.entries[i].was - 1];
    }
    for (uint32_t i = 0; i < h->n_conns; i++) {
        const struct handover_conn *c = &h->conns[i];
        uint32_t listener;

        if (n < k->landing.n_conns &&
            find_listener(k, c->listener, &listener) &&
            sockets_is_conn_of(&k->sockets, listener, c->fd) &&
            landing_conn_restore(&k->landing, n, c->fd, listener,
                                 h->bytes + c->at, c->n_bytes) == 0) {
            n++;
            continue;
        }
        n_lost++;
        if (is_socket(c->fd)) /* else the number is somebody else's */
            close(c->fd);
    }
    if (n_lost > 0)
        log_warn(MODULE,
                 "stream connections were closed: the new configuration has no "
                 "room or listener for them connections=%u",
                 n_lost);
}

/* ---- Until the new worker has the baton ------------------------------------ */

bool keeper_is_offered(const struct keeper *k)
{
    const struct baton *b = k->inherited.files.baton;

    return k->inherited.present && b != NULL &&
           atomic_load(&b->state) == BATON_OFFERED;
}

/* The new worker, if there is one, has not taken the baton and will not: the other
 * image goes on, or, where this is the other one, its worker alone. */
void keeper_inherit_give_back(struct keeper *k)
{
    if (k->worker != 0) {
        (void)kill(k->worker, SIGKILL);
        (void)waitpid(k->worker, NULL, 0);
        k->worker = 0;
    }
    if (!keeper_is_offered(k)) {
        k->restart_ns = keeper_now_ns(); /* it had just taken it */
        return;
    }
    keeper_fall_back(k);
    log_error(MODULE, "no program can go on: the old worker delivers alone");
    k->worker_over = true;
    k->restart_ns = 0;
    k->exit_status = EXIT_FAILED;
}

bool keeper_inherit_worker_died(struct keeper *k)
{
    if (!keeper_is_offered(k))
        return false;
    k->worker = 0;
    keeper_inherit_give_back(k);
    return true;
}

uint64_t keeper_inherit_next_ns(const struct keeper *k)
{
    const struct inheritance *in = &k->inherited;

    if (keeper_is_offered(k))
        return in->take_by_ns;
    return in->old_worker != 0 ? in->gone_by_ns : UINT64_MAX;
}

void keeper_inherit_look(struct keeper *k)
{
    struct inheritance *in = &k->inherited;
    uint64_t now_ns = keeper_now_ns();

    if (keeper_is_offered(k)) {
        if (now_ns >= in->take_by_ns)
            keeper_inherit_give_back(k);
    } else if (in->old_worker != 0) {
        if (in->gone_by_ns == 0) {
            in->gone_by_ns = now_ns + LEAVE_NS;
        } else if (now_ns >= in->gone_by_ns) {
            /* It was told and does not hear: its sockets are ours alone. */
            (void)kill(in->old_worker, SIGKILL);
            in->gone_by_ns = UINT64_MAX;
        }
    }
}

bool keeper_inherit_reaped(struct keeper *k, pid_t pid)
{
    if (k->inherited.old_worker == 0 || pid != k->inherited.old_worker)
        return false;
    k->inherited.old_worker = 0;
    return true;
}
