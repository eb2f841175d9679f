/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An hour without intake in virtual time: 100,000 samples a second in 3,000
 * contexts, 360 flushes through the encoder into a store of 64 MiB on disk.
 *
 * Parts are made here as the aggregator hands them over, each item with the
 * number of samples that it stands for: parsing 360 million values would take
 * minutes and say nothing about the store. Bodies are not compressed: otherwise
 * 64 MiB would hold the hour, and nothing would be evicted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forwarder/encode.h"
#include "tests/support/disk_rig.h"

enum { N_FLUSHES = 360, N_CONTEXTS = 3000, FLUSH_S = 10 };
#define SAMPLES_PER_FLUSH UINT64_C(1000000)
#define STORE_BYTES ((size_t)64 << 20)

/* ---- Parts -------------------------------------------------------------- */

struct part_iter {
    uint32_t next;
    int64_t ts_s;
    struct flush_point point;
    char name[64];
    char tag[64];
    struct view tags[2];
};

void part_iter_close(struct part_iter *it)
{
    (void)it;
}

/* A third of the contexts have one sample more: a million in all. */
int part_iter_next(struct part_iter *it, struct flush_item *out)
{
    uint32_t i = it->next++;

    if (i == N_CONTEXTS)
        return 0;
    it->point = (struct flush_point){it->ts_s, i * 0.1, 0};
    it->tags[0] = (struct view){"env:production", 14};
    it->tags[1] =
        (struct view){it->tag, (uint32_t)snprintf(it->tag, sizeof(it->tag),
                                                  "pod_name:checkout-%u", i)};
    *out = (struct flush_item){
        .kind = FLUSH_SERIES,
        .n_samples = i % 3 == 0 ? 334 : 333,
        .name = {it->name, (uint32_t)snprintf(it->name, sizeof(it->name),
                                              "shop.requests.%u", i % 50)},
        .host = {"host-1", 6},
        .tags = it->tags,
        .n_tags = 2,
        .interval_s = FLUSH_S,
        .series = {{"", SERIES_RATE, "", &it->point, 1}},
        .n_series = 1,
    };
    return 1;
}

/* ---- The outage --------------------------------------------------------- */

struct outage {
    struct disk_rig rig;
    struct encoder *encoder;
    uint64_t n_in;                   /* samples */
    uint64_t last_id[2 * N_FLUSHES]; /* of the payloads of each flush */
    int64_t ts_s[2 * N_FLUSHES];
    size_t n_flushes;
};

static void start_encoder(struct outage *o)
{
    static const struct encode_config cfg = {
        .encoding = ENCODING_NONE,
        .limits = {[PAYLOAD_SERIES] = {512000, 5242880, 10000},
                   [PAYLOAD_SKETCHES] = {2621440, 4194304, 0},
                   [PAYLOAD_EVENTS] = {2621440, 4194304, 0},
                   [PAYLOAD_CHECKS] = {2621440, 4194304, 0}},
        .internal_hostname = "host-1",
        .have_endpoint = true,
    };

    encoder_close(o->encoder);
    assert_int_equal(encoder_create(&o->encoder, o->rig.s, &cfg), 0);
}

static int64_t now_s(struct outage *o)
{
    return clock_wall_ns(&o->rig.clock.clock) / CLOCK_NS_PER_S;
}

/* Room is made as the loop does it; one part of new payloads. */
static void flush(struct outage *o)
{
    struct part_iter it = {.ts_s = now_s(o)};
    struct store *s = o->rig.s;
    struct encode_result r;
    struct payload *p;

    while (store_evict(s, 2u << 20) != 0)
        fail();
    assert_int_equal(encoder_run(o->encoder, &it, false, &r), 0);
    assert_int_equal(r.n_losses, 0);
    rig_write_drafts(&o->rig, r.drafts, r.n_drafts);
    store_commit_part(s, store_encoded_seq(s) + 1, r.drafts, r.n_drafts, NULL,
                      0);
    o->n_in += SAMPLES_PER_FLUSH;
    /* The freshest is tried, and the intake does not take it. */
    p = store_take(s);
    assert_non_null(p);
    store_count_attempt(s, p);
    store_mark_maybe_sent(s, p);
    o->last_id[o->n_flushes] = p->id;
    o->ts_s[o->n_flushes++] = it.ts_s;
    store_put_back(s, p);
}

static void check(struct outage *o)
{
    struct store_stats st = rig_stats(&o->rig);
    const struct delivery_counts *c = store_counts(o->rig.s);

    rig_assert_balanced(&o->rig);
    assert_int_equal(st.accepted.n_samples, o->n_in);
    assert_int_equal(rig_dropped(c), c->dropped[DROP_EVICTED]);
    assert_true(st.bytes <= STORE_DISK_MEMORY_BYTES);
    assert_true(st.disk.n_bytes <= STORE_BYTES);
    assert_false(st.disk.failing);
}

/* Which flush a payload is of. */
static size_t flush_of(const struct outage *o, uint64_t id)
{
    size_t i = 0;

    while (o->last_id[i] < id)
        i++;
    return i;
}

/* Everything is delivered, freshest first; each 100 payloads time passes and a
 * new part comes, which goes before all that waits. */
static void recover(struct outage *o)
{
    uint64_t n_old = 0;
    size_t n_taken = 0;
    size_t expected = o->n_flushes - 1;
    struct payload *p;

    while ((p = store_take(o->rig.s)) != NULL) {
        size_t i = flush_of(o, p->id);

        assert_true(i <= expected);
        if (n_taken++ % 100 == 0)
            assert_int_equal(i, o->n_flushes - 1);
        expected = i;
        if (o->ts_s[i] < now_s(o) - STORE_OLD_S)
            n_old += p->load.n_samples;
        store_count_attempt(o->rig.s, p);
        store_settle_delivered(o->rig.s, p);
        if (n_taken % 100 == 0) {
            rig_pass_seconds(&o->rig, FLUSH_S);
            flush(o);
            expected = o->n_flushes - 1;
            check(o);
        }
    }
    assert_true(n_old > 0);
    assert_int_equal(store_counts(o->rig.s)->delivered_old, n_old);
}

static void an_hour_without_intake_loses_what_it_says(void **state)
{
    struct outage *o = calloc(1, sizeof(*o));
    const struct delivery_counts *c;

    (void)state;
    assert_non_null(o);
    rig_begin(&o->rig, STORE_BYTES);
    start_encoder(o);
    for (int i = 0; i < N_FLUSHES; i++) {
        rig_pass_seconds(&o->rig, FLUSH_S);
        flush(o);
        if (i % 20 == 0)
            check(o);
        if (i == N_FLUSHES / 2) { /* in between the worker is killed */
            rig_successor(&o->rig);
            rig_look(&o->rig);
            start_encoder(o);
        }
    }
    check(o);
    c = store_counts(o->rig.s);
    assert_int_equal(o->n_in, N_FLUSHES * SAMPLES_PER_FLUSH);
    assert_int_equal(c->dropped[DROP_EVICTED],
                     o->n_in - rig_stats(&o->rig).load.n_samples);
    assert_true(c->dropped[DROP_EVICTED] > 0);
    print_message("evicted %llu of %llu samples, %u payloads of %llu bytes "
                  "wait\n",
                  (unsigned long long)c->dropped[DROP_EVICTED],
                  (unsigned long long)o->n_in, rig_stats(&o->rig).n_payloads,
                  (unsigned long long)rig_stats(&o->rig).disk.n_bytes);
    rig_pass_seconds(&o->rig, 1800);
    flush(o);
    recover(o);
    check(o);
    assert_int_equal(c->delivered, o->n_in - c->dropped[DROP_EVICTED]);
    assert_int_equal(rig_stats(&o->rig).load.n_samples, 0);
    assert_int_equal(rig_stats(&o->rig).disk.n_bytes, SEGMENT_HEAD_BYTES);
    encoder_close(o->encoder);
    rig_end(&o->rig);
    free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_hour_without_intake_loses_what_it_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
