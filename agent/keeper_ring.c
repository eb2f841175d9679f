/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring that the tap fills, as far as it outlives workers: the keeper holds its
 * maps. Sockets that outlive the keeper, too, are tapped only when the ring does:
 * then the service manager holds it beside them, and a life that was killed leaves
 * what it had not read to the next one.
 *
 * Making it takes a millisecond, mostly for its pages, and two system calls; the
 * programs are loaded later (tapping.c).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/ingress.h"
#include "agent/keeper_private.h"
#include "bpf/tap.h"

#define MODULE "keeper"
#define N_MAPS 2u

static void detach_all(const struct sockets *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (ingress_socket_id(&s->entries[i]) != 0)
            (void)tap_detach(s->entries[i].fd);
    }
}

/* The manager gives them back in any order. */
static void take_kept(struct keeper *k)
{
    struct sockets *s = &k->sockets;
    const int *fd = s->kept_ring;
    int rc = -EINVAL;

    if (s->n_kept_ring == N_MAPS) {
        rc = landing_ring_take(&k->landing, fd[0], fd[1]);
        if (rc != 0)
            rc = landing_ring_take(&k->landing, fd[1], fd[0]);
    }
    k->env.ring_held = rc == 0;
    if (rc == 0 || s->n_kept_ring == 0)
        return;
    log_warn(MODULE,
             "the ring that the service manager kept is of no use: what lies "
             "in it is lost cause=%s",
             strerror(-rc));
    for (unsigned i = 0; i < s->n_kept_ring; i++)
        close(fd[i]);
    (void)notify_unstore(&k->notify, SOCKETS_RING_NAME);
}

static bool has_room(const struct keeper *k)
{
    uint32_t n = N_MAPS;

    for (uint32_t i = 0; i < k->sockets.n; i++)
        n += k->sockets.entries[i].stored;
    return n <= k->notify.store_max;
}

static void hold(struct keeper *k)
{
    const struct landing_tap *t = &k->landing.head->tap;
    const int fds[N_MAPS] = {t->ring_fd, t->control_fd};

    if (k->exec_mode || k->notify.store_max == 0)
        return;
    if (k->inherited.present) /* the image before had its own */
        (void)notify_unstore(&k->notify, SOCKETS_RING_NAME);
    k->env.ring_held =
        has_room(k) &&
        notify_store(&k->notify, SOCKETS_RING_NAME, fds, N_MAPS) == 0;
    if (!k->env.ring_held)
        log_warn(MODULE,
                 "sockets that are kept over a restart are not tapped, since "
                 "the service manager does not keep the tap's ring: raise "
                 "FileDescriptorStoreMax= max=%u",
                 k->notify.store_max);
}

static void make(struct keeper *k)
{
    struct loader_cause *cause = &k->tap_cause;
    int ring_fd, control_fd;
    int rc;

    if (!k->config.dogstatsd_tap) {
        (void)snprintf(cause->why, sizeof(cause->why), "dogstatsd_tap: off");
        k->env.no_tap = cause;
        return;
    }
    if (k->env.ring_held)
        return;
    rc = ring_make(&ring_fd, &control_fd, TAP_RING_BYTES, cause);
    if (rc == 0)
        rc = landing_ring_take(&k->landing, ring_fd, control_fd);
    if (rc < 0)
        (void)snprintf(cause->why, sizeof(cause->why), "no ring: %s",
                       strerror(-rc));
    if (rc != 0)
        k->env.no_tap = cause;
    else
        hold(k);
}

void keeper_open_ring(struct keeper *k)
{
    take_kept(k);
    /* Programs of another life: perhaps nobody reads their ring or wants them, and what
     * they took from here on would escape the two counts below. */
    detach_all(&k->sockets);
    make(k);
    if (k->inherited.present)
        return;
    /* The kernel counts over a socket's life, which may be longer than ours, and
     * counts what lies in the ring as dropped. */
    for (uint32_t i = 0; i < k->sockets.n; i++) {
        const struct socket_entry *e = &k->sockets.entries[i];
        uint32_t unread =
            landing_ring_unread(&k->landing, ingress_socket_id(e));

        if (e->kind == SOCKET_UDP)
            k->landing.head->drops_seen[i] = ingress_dropped(e->fd) - unread;
    }
}

void keeper_close_ring(struct keeper *k)
{
    if (k->env.ring_held)
        (void)notify_unstore(&k->notify, SOCKETS_RING_NAME);
}
