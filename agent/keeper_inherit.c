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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/cli.h"
#include "agent/keeper_private.h"
#include "agent/stamps.h"
#include "forwarder/http_module.h"

#define MODULE "keeper"

extern char **environ;

/* ---- Trial --------------------------------------------------------------- */

bool keeper_on_trial(struct keeper *k)
{
    const char *value = getenv(KEEPER_TRIAL_VARIABLE);
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
    const char *value = getenv(KEEPER_HANDOVER_VARIABLE);
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
    log_error(MODULE, "this program could not go on: back to the old one");
    (void)snprintf(value, sizeof(value), "%d %d %d %d last", in->files.record,
                   in->exe, in->http_module, in->httpd_module);
    (void)setenv(KEEPER_HANDOVER_VARIABLE, value, 1);
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
            landing_conn_restore(&k->landing, n, c->fd, listener,
                                 h->bytes + c->at, c->n_bytes) == 0) {
            n++;
            continue;
        }
        n_lost++;
        close(c->fd);
    }
    if (n_lost > 0)
        log_warn(MODULE,
                 "stream connections were closed: the new configuration has no "
                 "room or listener for them connections=%u",
                 n_lost);
}
