/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream connections over a restart: what their clients have sent and the drain
 * has not read stays in the kernel, and the service manager keeps it open.
 *
 * They are given away at the end of a life, at the end of a frame, and not when
 * they are accepted: a killed life has parts of frames in its memory, and who read
 * on behind them would never find a frame again. So killed with the keeper
 * they end, and their clients are told.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/keeper_private.h"

#define MODULE "keeper"

static uint32_t count_stored(const struct sockets *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n; i++)
        n += s->entries[i].stored;
    return n;
}

void keeper_take_kept_conns(struct keeper *k)
{
    struct sockets *s = &k->sockets;
    uint32_t n_stored = count_stored(s) + (k->env.ring_held ? 2 : 0);
    uint32_t n_ended = 0;
    int rc;

    k->env.n_keep_conns =
        k->notify.store_max > n_stored ? k->notify.store_max - n_stored : 0;
    if (s->n_kept_conns == 0)
        return;
    for (uint32_t i = 0; i < s->n_kept_conns; i++) {
        int fd = s->kept_conns[i];

        if ((size_t)fd < k->kept.n)
            k->kept.has[fd] = false; /* a worker's like any other */
        if (keeper_adopt_conn(k, fd))
            continue;
        close(fd);
        n_ended++;
    }
    if (n_ended > 0)
        log_warn(MODULE,
                 "kept connections have no listener or no place any more and "
                 "were closed connections=%u",
                 n_ended);
    s->n_kept_conns = 0;
    rc = notify_unstore(&k->notify, SOCKETS_CONN_NAME);
    if (rc != 0)
        log_warn(MODULE,
                 "the service manager was not told to let go of connections: "
                 "their clients will not see them end cause=%s",
                 strerror(-rc));
}

/* What a worker wrote into the landing zone is not trusted with a descriptor of
 * ours. */
static bool goes_on(const struct keeper *k, uint32_t i)
{
    const struct landing_conn *c = &k->landing.conns[i];

    return c->fd >= 0 && c->closing == 0 &&
           sockets_is_conn_of(&k->sockets, c->listener, c->fd) &&
           k->sockets.entries[c->listener].stored && landing_at_frame_end(c);
}

void keeper_keep_conns(struct keeper *k)
{
    int fds[NOTIFY_MAX_FDS];
    unsigned n_kept = 0;
    unsigned n = 0;
    int rc = 0;

    if (k->env.n_keep_conns == 0 || (k->config.keeper && !k->shares_table))
        return;
    for (uint32_t i = 0; rc == 0 && i < k->landing.n_conns; i++) {
        if (n_kept + n < k->env.n_keep_conns && goes_on(k, i))
            fds[n++] = k->landing.conns[i].fd;
        if (n == 0 || (n < NOTIFY_MAX_FDS && i + 1 < k->landing.n_conns))
            continue;
        rc = notify_store(&k->notify, SOCKETS_CONN_NAME, fds, n);
        n_kept += n;
        n = 0;
    }
    if (rc != 0)
        log_error(MODULE,
                  "the service manager did not take the connections: what "
                  "their clients sent last is lost cause=%s",
                  strerror(-rc));
}
