/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/handover_counts.h"

#include <stdio.h>
#include <string.h>

struct row {
    const char *name;
    size_t at;
};

#define ROW(type, field)                                                       \
    {                                                                          \
#field, offsetof(struct type, field)                                   \
    }

static const struct row ingest_rows[] = {
    ROW(ingest_counts, datagrams),
    ROW(ingest_counts, bytes),
    ROW(ingest_counts, aggregated),
    ROW(ingest_counts, folded),
    ROW(ingest_counts, closed),
    ROW(ingest_counts, events),
    ROW(ingest_counts, checks),
    ROW(ingest_counts, events_rejected),
    ROW(ingest_counts, checks_rejected),
    ROW(ingest_counts, events_closed),
    ROW(ingest_counts, checks_closed),
    ROW(ingest_counts, damaged),
    ROW(ingest_counts, ring_busy),
    ROW(ingest_counts, damaged_contexts),
    ROW(ingest_counts, delivered_old),
    ROW(ingest_counts, bad_rate),
    ROW(ingest_counts, bad_utf8),
    ROW(ingest_counts, clipped_tags),
    ROW(ingest_counts, clipped_hosts),
    ROW(ingest_counts, type_clashes),
    ROW(ingest_counts, hist_capped),
    ROW(ingest_counts, truncated_datagrams),
    ROW(ingest_counts, stream_refused),
    ROW(ingest_counts, stream_oversize),
};

static const struct row delivery_rows[] = {
    ROW(delivery_counts, delivered),
    ROW(delivery_counts, saved),
    ROW(delivery_counts, events_delivered),
    ROW(delivery_counts, checks_delivered),
    ROW(delivery_counts, events_dropped),
    ROW(delivery_counts, checks_dropped),
    ROW(delivery_counts, points_delivered),
    ROW(delivery_counts, payloads_sent),
    ROW(delivery_counts, payloads_retried),
    ROW(delivery_counts, payloads_dropped),
    ROW(delivery_counts, payloads_ambiguous),
    ROW(delivery_counts, delivered_old),
};

static const struct row books_rows[] = {
    {"accepted_samples", offsetof(struct store_books, accepted.n_samples)},
    {"accepted_points", offsetof(struct store_books, accepted.n_points)},
    {"accepted_events", offsetof(struct store_books, accepted.n_events)},
    {"accepted_checks", offsetof(struct store_books, accepted.n_checks)},
    {"accepted_payloads", offsetof(struct store_books, n_payloads)},
};

/* Arrays: one member for each name; those of value 0 are left out. */
typedef const char *name_fn(unsigned i, char scratch[16]);

struct array {
    const char *name;
    size_t at;
    unsigned n;
    name_fn *name_of;
};

static const char *transport_key(unsigned i, char scratch[16])
{
    (void)scratch;
    return transport_name((enum transport)i);
}

static const char *reject_key(unsigned i, char scratch[16])
{
    (void)scratch;
    return i < DSD_FIRST_REJECT ? NULL : dsd_reject_name((enum dsd_result)i);
}

static const char *filter_key(unsigned i, char scratch[16])
{
    (void)scratch;
    return filter_name((enum filter_reason)i);
}

static const char *cause_key(unsigned i, char scratch[16])
{
    (void)scratch;
    return drop_cause_name((enum drop_cause)i);
}

static const char *status_key(unsigned i, char scratch[16])
{
    (void)snprintf(scratch, 16, "%u", i + 100);
    return scratch;
}

static const struct array ingest_arrays[] = {
    {"received", offsetof(struct ingest_counts, received), TRANSPORT_N,
     transport_key},
    {"rejected", offsetof(struct ingest_counts, rejected), DSD_N_RESULTS,
     reject_key},
    {"filtered", offsetof(struct ingest_counts, filtered), FILTER_N,
     filter_key},
    {"kernel_drops", offsetof(struct ingest_counts, kernel_drops), TRANSPORT_N,
     transport_key},
    {"tapped", offsetof(struct ingest_counts, tapped), TRANSPORT_N,
     transport_key},
};

static const struct array delivery_arrays[] = {
    {"dropped", offsetof(struct delivery_counts, dropped), DROP_N, cause_key},
    {"dropped_http", offsetof(struct delivery_counts, dropped_http),
     STORE_N_HTTP_CODES, status_key},
};

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* ---- Writing ----------------------------------------------------------- */

static const uint64_t *word_of(const void *base, size_t at)
{
    return (const uint64_t *)(const void *)((const char *)base + at);
}

static void write_rows(struct json *j, const void *base, const struct row *rows,
                       size_t n)
{
    for (size_t i = 0; i < n; i++)
        json_member_u64(j, rows[i].name, *word_of(base, rows[i].at));
}

static void write_arrays(struct json *j, const void *base,
                         const struct array *arrays, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t *words = word_of(base, arrays[i].at);

        json_key(j, arrays[i].name);
        json_object(j);
        for (unsigned k = 0; k < arrays[i].n; k++) {
            char scratch[16];
            const char *key = arrays[i].name_of(k, scratch);

            if (words[k] > 0 && key != NULL)
                json_member_u64(j, key, words[k]);
        }
        json_end(j);
    }
}

void handover_write_ingest(struct json *j, const struct ingest_counts *c)
{
    json_object(j);
    write_rows(j, c, ingest_rows, N(ingest_rows));
    write_arrays(j, c, ingest_arrays, N(ingest_arrays));
    json_end(j);
}

void handover_write_books(struct json *j, const struct store_books *b)
{
    json_object(j);
    write_rows(j, b, books_rows, N(books_rows));
    write_rows(j, &b->counts, delivery_rows, N(delivery_rows));
    write_arrays(j, &b->counts, delivery_arrays, N(delivery_arrays));
    json_end(j);
}

/* ---- Reading ----------------------------------------------------------- */

static int read_word(const struct jsonread *d, const struct jsonread_node *v,
                     const char *key, uint64_t *to)
{
    const struct jsonread_node *m = jsonread_get(d, v, key);
    int64_t n;

    if (m == NULL)
        return 0;
    if (jsonread_int(m, &n) != 0 || n < 0)
        return JSONREAD_BAD;
    *to = (uint64_t)n;
    return 0;
}

static uint64_t *word_in(void *base, size_t at)
{
    return (uint64_t *)(void *)((char *)base + at);
}

static int read_rows(const struct jsonread *d, const struct jsonread_node *v,
                     void *base, const struct row *rows, size_t n)
{
    int rc = v == NULL || v->type != JSONREAD_OBJECT ? JSONREAD_BAD : 0;

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = read_word(d, v, rows[i].name, word_in(base, rows[i].at));
    return rc;
}

static int read_arrays(const struct jsonread *d, const struct jsonread_node *v,
                       void *base, const struct array *arrays, size_t n)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct jsonread_node *o = jsonread_get(d, v, arrays[i].name);
        uint64_t *words = word_in(base, arrays[i].at);

        for (unsigned k = 0; rc == 0 && o != NULL && k < arrays[i].n; k++) {
            char scratch[16];
            const char *key = arrays[i].name_of(k, scratch);

            if (key != NULL)
                rc = read_word(d, o, key, &words[k]);
        }
    }
    return rc;
}

int handover_read_ingest(const struct jsonread *d,
                         const struct jsonread_node *v, struct ingest_counts *c)
{
    struct ingest_counts got = {0};
    int rc = read_rows(d, v, &got, ingest_rows, N(ingest_rows));

    if (rc == 0)
        rc = read_arrays(d, v, &got, ingest_arrays, N(ingest_arrays));
    if (rc == 0)
        *c = got;
    return rc;
}

int handover_read_books(const struct jsonread *d, const struct jsonread_node *v,
                        struct store_books *b)
{
    struct store_books got = {.n_payloads = 0};
    int rc = read_rows(d, v, &got, books_rows, N(books_rows));

    if (rc == 0)
        rc = read_rows(d, v, &got.counts, delivery_rows, N(delivery_rows));
    if (rc == 0)
        rc =
            read_arrays(d, v, &got.counts, delivery_arrays, N(delivery_arrays));
    if (rc == 0)
        *b = got;
    return rc;
}
