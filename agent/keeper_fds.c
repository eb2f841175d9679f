/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many descriptors are needed, before the first of them is opened: libuv aborts
 * where it gets no pipe, and a worker that does so at each start looks like one
 * whose memory is damaged.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/resource.h>

#include "agent/base/log.h"
#include "agent/keeper_private.h"

/* keeper_prepare() and, later, memory that is made anew. */
enum keeper_fds {
    FDS_SUPERVISION = 3, /* two doorbells, the pidfd */
    FDS_MEMORY = 3,      /* two regions, the landing zone */
    FDS_RING = 2,        /* the tap's */
    FDS_HANDOVER = 4,
    FDS_FILES = 6, /* run_path, two modules, /proc/self/fd, the identity and its
                      seconds */
    FDS_ANEW = 2,  /* a region and the used seconds */
    KEEPER_FDS = FDS_SUPERVISION + FDS_MEMORY + FDS_RING + FDS_HANDOVER +
                 FDS_FILES + FDS_ANEW
};

/* The least with which a worker serves and delivers. The kernel's side and
 * `health_port` are not in it: without descriptors for them it does the rest. */
enum worker_fds {
    FDS_LIBUV = 2 + 2 * 4, /* a pipe; two loops: epoll, eventfd, a pipe each */
    FDS_READER = 2,        /* what wakes it, the ring's epoll */
    FDS_RUN_PATH = 4,      /* stamps, the folder, a segment out and one in */
    FDS_CONTROL = 3,       /* a copy of its socket, a reserve, one client */
    FDS_DELIVERY = 7, /* curl's wake-up 2, a connection, a name looked up 3,
                              the certificates */
    FDS_PROC = 1,
    WORKER_FDS = FDS_LIBUV + FDS_READER + FDS_RUN_PATH + FDS_CONTROL +
                 FDS_DELIVERY + FDS_PROC
};

/* What is well spent on the rest beside connections of clients: requests in flight,
 * kernel programs, and what the reader leaves free. */
#define SPARE_FDS (LANDING_FDS_KEPT + 128)

/* All of them, where none is left to look with. */
static rlim_t count_open(rlim_t limit)
{
    struct fd_set_of open;
    rlim_t n = 0;

    if (fd_set_snapshot(&open) == -EMFILE)
        return limit;
    for (size_t i = 0; i < open.n; i++)
        n += open.has[i];
    fd_set_fini(&open);
    return n;
}

/* Shells and service managers start us with 1024 descriptors and let us take
 * more. */
static void raise_limit(struct rlimit *lim, rlim_t want)
{
    if (lim->rlim_cur >= want)
        return;
    lim->rlim_cur = lim->rlim_max < want ? lim->rlim_max : want;
    (void)setrlimit(RLIMIT_NOFILE, lim);
}

int keeper_claim_fds(const struct keeper *k, uint32_t n_conns)
{
    struct rlimit lim;
    rlim_t least, want;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return 0;
    least = count_open(lim.rlim_cur) + KEEPER_FDS + WORKER_FDS;
    want = least + SPARE_FDS + n_conns;
    raise_limit(&lim, want);
    /* What an upgrade took over is served with what there is. */
    if (lim.rlim_cur < least && !k->inherited.present) {
        log_write(NULL, k->exec_mode ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR,
                  "keeper",
                  "the limit of open files is too low to serve: raise "
                  "LimitNOFILE= (ulimit -Hn) to %ju limit=%ju",
                  (uintmax_t)least, (uintmax_t)lim.rlim_cur);
        return -EMFILE;
    }
    if (lim.rlim_cur < want && n_conns > 0)
        log_warn("keeper",
                 "connections beyond the limit of open files are refused: "
                 "raise LimitNOFILE= (ulimit -Hn) or lower "
                 "stream_max_connections max_connections=%u limit=%ju",
                 n_conns, (uintmax_t)lim.rlim_cur);
    return 0;
}
