/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's counters are never reset: setting one to zero while a program adds
 * to it would lose what it adds. An entry that is removed may lose so, but the
 * totals have it.
 */
#include "bpf/drop_senders.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_BUCKETS 1024u
#define LITTLE_ROOM (DROP_MAX_SENDERS / 2) /* from so many entries on */

struct drop_senders {
    struct drop_entry *buckets[N_BUCKETS];
    uint32_t n_entries;
    struct drop_total total[DROP_N_TRANSPORTS];
    /* given out as differences */
    struct drop_total known[DROP_N_TRANSPORTS];
    struct drop_total unknown[DROP_N_TRANSPORTS];
};

static const char *const transport_names[] = {"udp", "uds"};

int drop_senders_create(struct drop_senders **out)
{
    struct drop_senders *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return -ENOMEM;
    *out = s;
    return 0;
}

static void free_entry(struct drop_entry *e)
{
    free(e->tags);
    free(e);
}

void drop_senders_close(struct drop_senders *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < N_BUCKETS; i++) {
        while (s->buckets[i] != NULL) {
            struct drop_entry *e = s->buckets[i];

            s->buckets[i] = e->next;
            free_entry(e);
        }
    }
    free(s);
}

/* ---- Readings ----------------------------------------------------------- */

/* FNV-1a. A bad one costs time, never more than DROP_MAX_SENDERS steps. */
static uint32_t bucket_of(const struct drop_key *key)
{
    const unsigned char *p = (const unsigned char *)key;
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < sizeof(*key); i++)
        h = (h ^ p[i]) * 16777619u;
    return (h ^ h >> 16) % N_BUCKETS;
}

static void copy_comm(char out[16], const char in[16])
{
    size_t i;

    for (i = 0; i < 15 && in[i] != '\0'; i++)
        out[i] = in[i] > ' ' && in[i] < 127 ? in[i] : '_';
    out[i] = '\0';
}

static struct drop_entry *find(struct drop_senders *s,
                               const struct drop_key *key,
                               const struct drop_value *v)
{
    struct drop_entry **at = &s->buckets[bucket_of(key)];
    struct drop_entry *e;

    for (; *at != NULL; at = &(*at)->next) {
        if (memcmp(&(*at)->key, key, sizeof(*key)) == 0)
            return *at;
    }
    if (s->n_entries >= DROP_MAX_SENDERS)
        return NULL;
    e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    e->key = *key;
    copy_comm(e->comm, v->comm);
    s->n_entries++;
    *at = e;
    return e;
}

static uint64_t above(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

static void add(struct drop_total *sum, const struct drop_total *more)
{
    sum->packets += more->packets;
    sum->bytes += more->bytes;
}

void drop_senders_total(struct drop_senders *s, enum drop_transport transport,
                        const struct drop_total *total)
{
    s->total[transport] = *total;
}

struct drop_entry *drop_senders_update(struct drop_senders *s,
                                       const struct drop_key *key,
                                       const struct drop_value *v,
                                       struct drop_total *more)
{
    struct drop_entry *e = NULL;

    if (key->transport < DROP_N_TRANSPORTS)
        e = find(s, key, v);
    if (e == NULL)
        return NULL;
    more->packets = above(v->packets, e->lost.packets);
    more->bytes = above(v->bytes, e->lost.bytes);
    e->n_quiet = more->packets > 0 ? 0 : e->n_quiet + 1;
    add(&e->lost, more);
    add(&s->known[key->transport], more);
    return e;
}

void drop_senders_name(struct drop_entry *e, const char *tags)
{
    free(e->tags);
    e->tags = strdup(tags);
}

void drop_senders_unknown(struct drop_senders *s, enum drop_transport transport,
                          struct drop_total *more)
{
    const struct drop_total *known = &s->known[transport];
    struct drop_total *unknown = &s->unknown[transport];

    more->packets =
        above(s->total[transport].packets, known->packets + unknown->packets);
    more->bytes =
        above(s->total[transport].bytes, known->bytes + unknown->bytes);
    add(unknown, more);
}

/* ---- Ranking ------------------------------------------------------------ */

typedef uint64_t rank_fn(const struct drop_entry *e);

static uint64_t by_lost(const struct drop_entry *e)
{
    return e->lost.packets;
}

static uint64_t by_news(const struct drop_entry *e)
{
    return above(e->lost.packets, e->n_told);
}

/* The @max entries that rank highest, in order; those that rank 0 never. */
static uint32_t rank(const struct drop_senders *s, rank_fn *value,
                     struct drop_entry **top, uint32_t max)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < N_BUCKETS; i++) {
        for (struct drop_entry *e = s->buckets[i]; e != NULL; e = e->next) {
            uint32_t at = n < max ? n : max;

            while (at > 0 && value(top[at - 1]) < value(e)) {
                if (at < max)
                    top[at] = top[at - 1];
                at--;
            }
            if (at == max || value(e) == 0)
                continue;
            top[at] = e;
            n += n < max;
        }
    }
    return n;
}

void drop_senders_forget(struct drop_senders *s, uint32_t n_quiet,
                         drop_gone_fn *gone, void *arg)
{
    struct drop_entry *top[DROP_TOP];
    uint64_t worst;
    uint32_t n;

    if (s->n_entries < LITTLE_ROOM)
        return;
    n = rank(s, by_lost, top, DROP_TOP);
    worst = n > 0 ? by_lost(top[n - 1]) : 0;
    for (uint32_t i = 0; i < N_BUCKETS; i++) {
        struct drop_entry **at = &s->buckets[i];

        while (*at != NULL) {
            struct drop_entry *e = *at;

            if (e->n_quiet < n_quiet || by_lost(e) > worst) {
                at = &e->next;
                continue;
            }
            *at = e->next;
            s->n_entries--;
            gone(arg, &e->key);
            free_entry(e);
        }
    }
}

/* ---- For people --------------------------------------------------------- */

static void write_address(const struct drop_key *key, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN];

    out[0] = '\0';
    if (key->family == 0 ||
        inet_ntop(key->family, key->address, text, sizeof(text)) == NULL)
        return;
    if (key->port == 0)
        (void)snprintf(out, size, "%s", text);
    else
        (void)snprintf(out, size, key->family == AF_INET6 ? "[%s]:%u" : "%s:%u",
                       text, (unsigned)key->port);
}

static void describe(const struct drop_entry *e, struct drop_sender *out)
{
    *out = (struct drop_sender){
        .transport = e->key.transport,
        .pid = e->key.tgid,
        .lost = e->lost,
    };
    memcpy(out->comm, e->comm, sizeof(out->comm));
    write_address(&e->key, out->address, sizeof(out->address));
    if (e->tags != NULL && strlen(e->tags) < sizeof(out->tags))
        memcpy(out->tags, e->tags, strlen(e->tags) + 1);
}

void drop_senders_report(const struct drop_senders *s, struct drop_report *out)
{
    struct drop_entry *top[DROP_TOP];

    for (int i = 0; i < DROP_N_TRANSPORTS; i++) {
        out->unknown[i] = s->unknown[i];
        out->lost[i] = s->known[i];
        add(&out->lost[i], &s->unknown[i]);
    }
    out->n_top = rank(s, by_lost, top, DROP_TOP);
    for (uint32_t i = 0; i < out->n_top; i++)
        describe(top[i], &out->top[i]);
}

/* All of it has been told, or counts as told. */
static uint64_t tell(struct drop_senders *s)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < N_BUCKETS; i++) {
        for (struct drop_entry *e = s->buckets[i]; e != NULL; e = e->next) {
            sum += by_news(e);
            e->n_told = e->lost.packets;
        }
    }
    return sum;
}

bool drop_senders_top(struct drop_senders *s, char *line, size_t size)
{
    struct drop_entry *e;
    struct drop_sender who;
    uint64_t n, sum;

    if (rank(s, by_news, &e, 1) == 0)
        return false;
    n = by_news(e);
    sum = tell(s);
    describe(e, &who);
    (void)snprintf(line, size,
                   "senders lost datagrams n=%" PRIu64 " top_n=%" PRIu64
                   " transport=%s pid=%u comm=%s address=%s tags=%s",
                   sum, n, transport_names[who.transport], who.pid, who.comm,
                   who.address, who.tags);
    return true;
}
