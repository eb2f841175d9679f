/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/losses.h"

#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/reader.h"

#define MODULE "losses"
#define TELL_EACH_NS (60 * (uint64_t)CLOCK_NS_PER_S)

void losses_init(struct losses *l)
{
    *l = (struct losses){.known = false};
    (void)pthread_mutex_init(&l->lock, NULL);
}

void losses_fini(struct losses *l)
{
    (void)pthread_mutex_destroy(&l->lock);
}

void losses_watch(struct losses *l, const struct sockets *s,
                  struct feature_opts *opts)
{
    for (uint32_t i = 0; i < s->n; i++) {
        const struct socket_entry *e = &s->entries[i];
        int rc = 0;

        if (e->kind == SOCKET_UDP || e->kind == SOCKET_UNIXGRAM)
            rc = drop_add_socket(&opts->drop, e->fd);
        if (rc != 0)
            log_warn(MODULE, "losses at %s are not seen: %s", e->name,
                     strerror(-rc));
    }
    opts->drop.collected = losses_collected;
    opts->runq.own_thread = READER_THREAD;
    opts->drop.closed = losses_collected_end;
    opts->runq.collected = losses_waited;
    opts->runq.closed = losses_waited_end;
    opts->drop.arg = opts->runq.arg = l;
}

static void add_total(struct drop_total *to, const struct drop_total *more)
{
    to->packets += more->packets;
    to->bytes += more->bytes;
}

/* Without a name of its own: the one from before. */
static void add_waits(struct own_waits_report *to,
                      const struct own_waits_report *before)
{
    to->waited_ns += before->waited_ns;
    if (before->longest_ns > to->longest_ns)
        to->longest_ns = before->longest_ns;
    if (to->because[0] == '\0')
        memcpy(to->because, before->because, sizeof(to->because));
}

void losses_waited(void *arg, void *runq)
{
    struct losses *l = arg;
    struct own_waits_report waits;

    runq_waits(runq, &waits);
    add_waits(&waits, &l->waits_before);
    l->runq = runq;
    (void)pthread_mutex_lock(&l->lock);
    l->waits = waits;
    l->waits_known = true;
    (void)pthread_mutex_unlock(&l->lock);
}

void losses_collected(void *arg, void *drop)
{
    struct losses *l = arg;
    uint64_t now_ns = clock_mono_ns(&clock_real);
    char line[DROP_TAGS_BYTES + 256], why[OWN_WAITS_NAME_MAX + 100] = "";
    struct drop_report report;

    drop_report(drop, &report); /* takes a while: nobody waits for it */
    for (int t = 0; t < DROP_N_TRANSPORTS; t++) {
        add_total(&report.lost[t], &l->lost_before[t]);
        add_total(&report.unknown[t], &l->unknown_before[t]);
    }
    (void)pthread_mutex_lock(&l->lock);
    l->report = report;
    l->known = true;
    (void)pthread_mutex_unlock(&l->lock);
    if (l->told_ns != 0 && now_ns - l->told_ns < TELL_EACH_NS)
        return;
    if (!drop_top(drop, line, sizeof(line)))
        return;
    if (l->runq != NULL)
        (void)runq_tell_waits(l->runq, why, sizeof(why));
    log_warn(MODULE, "%s%s%s", line, why[0] != '\0' ? "; " : "", why);
    l->told_ns = now_ns;
}

/* By the thread that alone writes what is read here. */
void losses_waited_end(void *arg)
{
    struct losses *l = arg;

    l->waits_before = l->waits;
    l->runq = NULL;
}

void losses_collected_end(void *arg)
{
    struct losses *l = arg;

    memcpy(l->lost_before, l->report.lost, sizeof(l->lost_before));
    memcpy(l->unknown_before, l->report.unknown, sizeof(l->unknown_before));
}

bool losses_get(struct losses *l, struct drop_report *out)
{
    bool known;

    (void)pthread_mutex_lock(&l->lock);
    known = l->known;
    if (known)
        *out = l->report;
    (void)pthread_mutex_unlock(&l->lock);
    return known;
}

bool losses_get_waits(struct losses *l, struct own_waits_report *out)
{
    bool known;

    (void)pthread_mutex_lock(&l->lock);
    known = l->waits_known;
    if (known)
        *out = l->waits;
    (void)pthread_mutex_unlock(&l->lock);
    return known;
}
