/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "forwarder/compress.h"
#include "forwarder/split.h"
#include "forwarder/store.h"

#define KIB 1024u

struct fixture {
    struct region r;
    struct store *s;
    size_t max_bytes;
};

static void open_store(struct fixture *f, size_t max_bytes, bool prove)
{
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test-store",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};

    f->max_bytes = max_bytes;
    opts.budget_bytes = store_reserve(reserve, max_bytes);
    assert_int_equal(region_create(&f->r, &opts), 0);
    assert_int_equal(store_open(&f->s, &f->r,
                                &(struct store_opts){.max_bytes = max_bytes}),
                     0);
    if (prove)
        region_prove(&f->r);
}

static void close_store(struct fixture *f)
{
    store_close(f->s);
    region_close(&f->r);
}

/* As the successor of a killed worker does. */
static void take_over(struct fixture *f)
{
    (void)region_rollback(&f->r);
    assert_int_equal(store_open(&f->s, &f->r,
                                &(struct store_opts){.max_bytes =
                                                         f->max_bytes}),
                     0);
}

static void reopen(struct fixture *f)
{
    store_close(f->s);
    take_over(f);
}

static struct payload_draft draft(struct store *s, enum payload_kind kind,
                                  size_t n, char fill, uint64_t n_samples)
{
    struct payload_draft d = {.kind = kind,
                              .encoding = ENCODING_NONE,
                              .n_bytes = (uint32_t)n,
                              .n_raw_bytes = (uint32_t)n,
                              .load = {n_samples, n_samples, 0, 0}};

    assert_int_equal(store_block_alloc(s, n, &d.block), 0);
    memset(store_block_bytes(s, d.block), fill, n);
    return d;
}

static void put(struct store *s, enum payload_kind kind, size_t n, char fill,
                uint64_t n_samples)
{
    struct payload_draft d = draft(s, kind, n, fill, n_samples);

    store_commit_part(s, store_encoded_seq(s) + 1, &d, 1, NULL, 0);
}

static uint64_t samples_held(struct store *s)
{
    struct store_stats st;

    store_stats(s, &st);
    return st.load.n_samples;
}

static uint64_t samples_dropped(const struct store *s)
{
    uint64_t n = 0;

    for (int i = 0; i < DROP_N; i++)
        n += store_counts(s)->dropped[i];
    return n;
}

static void assert_balanced(struct store *s)
{
    struct store_stats st;

    store_stats(s, &st);
    assert_int_equal(st.accepted.n_samples, store_counts(s)->delivered +
                                                samples_dropped(s) +
                                                st.load.n_samples);
}

static void the_freshest_payload_is_taken_first(void **state)
{
    struct fixture f;
    struct payload *a, *b, *c;

    (void)state;
    open_store(&f, 256 * KIB, true);
    put(f.s, PAYLOAD_SERIES, 100, 'a', 1);
    put(f.s, PAYLOAD_SKETCHES, 5000, 'b', 2);
    put(f.s, PAYLOAD_SERIES, 200, 'c', 4);
    c = store_take(f.s);
    assert_int_equal(c->load.n_samples, 4);
    assert_int_equal(((const char *)c->body)[199], 'c');
    assert_ptr_equal(store_take_kinds(f.s, 1u << PAYLOAD_EVENTS), NULL);
    a = store_take_kinds(f.s, 1u << PAYLOAD_SERIES);
    assert_int_equal(a->load.n_samples, 1);
    b = store_take(f.s);
    assert_int_equal(b->load.n_samples, 2);
    assert_null(store_take(f.s));
    store_put_back(f.s, a);
    a = store_take(f.s);
    assert_int_equal(a->load.n_samples, 1);
    store_settle_delivered(f.s, a);
    store_settle_delivered(f.s, b);
    store_settle_dropped(f.s, c, DROP_HTTP, 413);
    assert_int_equal(store_counts(f.s)->delivered, 3);
    assert_int_equal(store_counts(f.s)->points_delivered, 3);
    assert_int_equal(store_counts(f.s)->payloads_sent, 2);
    assert_int_equal(store_counts(f.s)->dropped[DROP_HTTP], 4);
    assert_int_equal(store_counts(f.s)->dropped_http[313], 4);
    assert_int_equal(store_counts(f.s)->payloads_dropped, 1);
    assert_int_equal(samples_held(f.s), 0);
    assert_balanced(f.s);
    close_store(&f);
}

static void a_part_is_committed_once_with_its_losses(void **state)
{
    struct fixture f;
    struct store_loss losses[] = {{{5, 5, 1, 2}, DROP_TOO_LARGE},
                                  {{7, 0, 0, 0}, DROP_NO_API_KEY}};
    struct payload_draft d[3];
    struct store_stats st;

    (void)state;
    open_store(&f, 256 * KIB, true);
    for (int i = 0; i < 3; i++)
        d[i] = draft(f.s, PAYLOAD_SERIES, 4097, 'x', 10);
    store_commit_part(f.s, 3, d, 3, losses, 2);
    assert_int_equal(store_encoded_seq(f.s), 3);
    store_stats(f.s, &st);
    assert_int_equal(st.n_payloads, 3);
    assert_int_equal(st.bytes, 6 * 4096);
    assert_int_equal(st.load.n_samples, 30);
    assert_int_equal(st.accepted.n_samples, 42);
    assert_int_equal(store_counts(f.s)->dropped[DROP_TOO_LARGE], 5);
    assert_int_equal(store_counts(f.s)->dropped[DROP_NO_API_KEY], 7);
    assert_int_equal(store_counts(f.s)->events_dropped, 1);
    assert_int_equal(store_counts(f.s)->checks_dropped, 2);
    /* The same part again: encoded twice around a kill, counted once. */
    d[0] = draft(f.s, PAYLOAD_SERIES, 100, 'y', 10);
    store_commit_part(f.s, 3, d, 1, losses, 2);
    store_stats(f.s, &st);
    assert_int_equal(st.n_payloads, 3);
    assert_int_equal(st.accepted.n_samples, 42);
    assert_balanced(f.s);
    close_store(&f);
}

static void blocks_of_uncommitted_drafts_are_free_after_a_kill(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    open_store(&f, 64 * KIB, false);
    put(f.s, PAYLOAD_EVENTS, 30 * KIB, 'k', 3);
    (void)draft(f.s, PAYLOAD_SERIES, 30 * KIB, 'l', 9);
    reopen(&f);
    put(f.s, PAYLOAD_SERIES, 32 * KIB, 'm', 1);
    assert_int_equal(samples_held(f.s), 4);
    p = store_take_kinds(f.s, 1u << PAYLOAD_EVENTS);
    assert_int_equal(((const char *)p->body)[30 * KIB - 1], 'k');
    assert_balanced(f.s);
    close_store(&f);
}

static void states_attempts_and_order_survive_a_kill(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    open_store(&f, 256 * KIB, false);
    for (int i = 0; i < 5; i++)
        put(f.s, PAYLOAD_SKETCHES, 10, (char)('0' + i), (uint64_t)i);
    p = store_take(f.s);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_retried, 0);
    reopen(&f);
    p = store_take(f.s);
    assert_int_equal(p->load.n_samples, 4);
    assert_int_equal(p->state, PAYLOAD_MAYBE_SENT);
    assert_int_equal(p->n_attempts, 1);
    store_count_attempt(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_retried, 1);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 1);
    store_mark_refused(f.s, p);
    store_count_attempt(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_retried, 2);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 1);
    for (int i = 3; i >= 0; i--)
        assert_int_equal(store_take(f.s)->load.n_samples, i);
    close_store(&f);
}

static void series_that_are_sent_again_are_not_ambiguous(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    open_store(&f, 256 * KIB, true);
    put(f.s, PAYLOAD_SERIES, 10, 's', 1);
    p = store_take(f.s);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    store_count_attempt(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_retried, 1);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 0);
    store_settle_delivered(f.s, p);
    close_store(&f);
}

static void a_full_store_evicts_the_oldest_that_is_not_taken(void **state)
{
    struct fixture f;
    struct payload *oldest;
    uint32_t block;

    (void)state;
    open_store(&f, 64 * KIB, true);
    put(f.s, PAYLOAD_SERIES, 16 * KIB, 'a', 1);
    oldest = store_take(f.s);
    put(f.s, PAYLOAD_SERIES, 16 * KIB, 'b', 2);
    put(f.s, PAYLOAD_CHECKS, 16 * KIB, 'c', 4);
    put(f.s, PAYLOAD_SERIES, 16 * KIB, 'd', 8);
    assert_int_equal(store_block_alloc(f.s, 1, &block), STORE_FULL);
    assert_int_equal(store_evict(f.s, 20 * KIB), 0);
    assert_int_equal(store_counts(f.s)->dropped[DROP_EVICTED], 6);
    assert_int_equal(samples_held(f.s), 9);
    assert_int_equal(store_block_alloc(f.s, 20 * KIB, &block), 0);
    store_block_trim(f.s, block, 20 * KIB, 0);
    assert_int_equal(store_evict(f.s, 65 * KIB), STORE_FULL);
    assert_int_equal(samples_held(f.s), 9);
    assert_int_equal(store_evict(f.s, 64 * KIB), STORE_FULL);
    assert_int_equal(samples_held(f.s), 1);
    store_settle_delivered(f.s, oldest);
    assert_balanced(f.s);
    close_store(&f);
}

static void trimmed_pages_can_be_allocated_again(void **state)
{
    struct fixture f;
    uint32_t a, b;

    (void)state;
    open_store(&f, 64 * KIB, true);
    assert_int_equal(store_block_alloc(f.s, 64 * KIB, &a), 0);
    store_block_trim(f.s, a, 64 * KIB, 1);
    assert_int_equal(store_block_alloc(f.s, 60 * KIB, &b), 0);
    assert_int_equal(b, a + 1);
    memset(store_block_bytes(f.s, b), 1, 60 * KIB);
    close_store(&f);
}

static size_t resident_bytes(const struct region *r)
{
    size_t n_pages = region_committed(r, 2) / 4096;
    unsigned char *vec = malloc(n_pages + 1);
    size_t n = 0;

    assert_int_equal(mincore(region_base(r, 2), n_pages * 4096, vec), 0);
    for (size_t i = 0; i < n_pages; i++)
        n += (vec[i] & 1) * 4096u;
    free(vec);
    return n;
}

static void pages_of_an_outage_go_back_to_the_kernel(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    open_store(&f, 4096 * KIB, false);
    for (int i = 0; i < 1000; i++)
        put(f.s, PAYLOAD_SERIES, 4096, 'o', 1);
    assert_true(resident_bytes(&f.r) >= 1000u * 4096);
    while ((p = store_take(f.s)) != NULL)
        store_settle_delivered(f.s, p);
    assert_true(resident_bytes(&f.r) < 16u * 4096);
    /* And are there again when they are needed. */
    put(f.s, PAYLOAD_SERIES, 1000 * KIB, 'p', 1);
    assert_true(resident_bytes(&f.r) >= 1000u * KIB);
    close_store(&f);
}

static void a_full_table_evicts_and_never_fails(void **state)
{
    enum { N = 65536 };
    struct fixture f;
    struct payload_draft *d = calloc(N, sizeof(*d));
    struct store_stats st;

    (void)state;
    open_store(&f, 4096ull * (N + 1000), false);
    put(f.s, PAYLOAD_SERIES, 1, 'a', 1000000);
    put(f.s, PAYLOAD_SERIES, 1, 'b', 2000000);
    for (int i = 0; i < N; i++)
        d[i] = draft(f.s, PAYLOAD_SERIES, 1, 'c', 1);
    store_commit_part(f.s, 3, d, N, NULL, 0);
    store_stats(f.s, &st);
    assert_true(st.n_payloads > 65000);
    assert_true(samples_dropped(f.s) >= 3000000);
    assert_balanced(f.s);
    reopen(&f);
    assert_balanced(f.s);
    store_drop_rest(f.s, DROP_DEADLINE);
    assert_int_equal(samples_held(f.s), 0);
    assert_balanced(f.s);
    free(d);
    close_store(&f);
}

static void what_a_stop_leaves_is_dropped_taken_ones_too(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    open_store(&f, 64 * KIB, true);
    put(f.s, PAYLOAD_SERIES, 10, 'a', 1);
    put(f.s, PAYLOAD_EVENTS, 10, 'b', 2);
    p = store_take(f.s);
    store_drop_rest(f.s, DROP_DEADLINE);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DEADLINE], 3);
    /* An answer that comes after the end changes nothing. */
    store_mark_maybe_sent(f.s, p);
    store_count_attempt(f.s, p);
    store_settle_delivered(f.s, p);
    assert_int_equal(store_counts(f.s)->delivered, 0);
    assert_null(store_take(f.s));
    assert_balanced(f.s);
    close_store(&f);
}

static void a_damaged_entry_is_counted_and_the_rest_goes_on(void **state)
{
    struct fixture f;
    unsigned char *entries;
    size_t at;

    (void)state;
    open_store(&f, 256 * KIB, false);
    put(f.s, PAYLOAD_SERIES, 99, 'a', 1);
    put(f.s, PAYLOAD_SERIES, 99, 'b', 10);
    put(f.s, PAYLOAD_SERIES, 99, 'c', 100);
    store_close(f.s);
    /* The load of 10 samples becomes another one. */
    entries = region_base(&f.r, 1);
    for (at = 0; at < 4096; at += 8) {
        uint64_t word;

        memcpy(&word, entries + at, 8);
        if (word == 10)
            break;
    }
    assert_true(at < 4096);
    entries[at + 3] = 0xff;
    take_over(&f);
    assert_int_equal(samples_held(f.s), 101);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DAMAGED], 10);
    assert_balanced(f.s);
    close_store(&f);
}

/* ---- Split ------------------------------------------------------------- */

/* @n items "<i>;" with i samples each, as an encoder would leave them. */
static struct payload_draft items_draft(struct store *s, int n,
                                        enum payload_encoding encoding)
{
    static unsigned char body[64 * KIB];
    unsigned char index_bytes[SPLIT_MAX_INDEX_BYTES];
    struct payload_draft d = {.kind = PAYLOAD_EVENTS, .encoding = encoding};
    struct split_index *x = malloc(sizeof(*x));
    struct compressor *c;
    char raw[16 * KIB];
    size_t at = 0;

    raw[at++] = '[';
    split_index_init(x, 1, 1, 1);
    for (int i = 0; i < n; i++) {
        int len =
            snprintf(raw + at, sizeof(raw) - at, "%s<%d>", i > 0 ? "," : "", i);

        at += (size_t)len;
        split_index_add(x, (size_t)len, (uint64_t)i, 1);
        d.load.n_samples += (uint64_t)i;
        d.load.n_points++;
        d.load.n_events++;
    }
    raw[at++] = ']';
    assert_int_equal(compressor_create(&c, encoding), 0);
    assert_int_equal(compressor_begin(c, 1, body, sizeof(body)), 0);
    assert_int_equal(compressor_put(c, raw, at, COMPRESS_END), 0);
    d.n_raw_bytes = (uint32_t)at;
    d.n_bytes = (uint32_t)compressor_written(c);
    d.n_index_bytes = (uint32_t)split_index_write(x, index_bytes);
    compressor_close(c);
    assert_int_equal(store_block_alloc(s, d.n_bytes + d.n_index_bytes,
                                       &d.block),
                     0);
    memcpy(store_block_bytes(s, d.block), body, d.n_bytes);
    memcpy((char *)store_block_bytes(s, d.block) + d.n_bytes, index_bytes,
           d.n_index_bytes);
    free(x);
    return d;
}

static void a_split_gives_two_payloads_of_the_same_age(void **state)
{
    struct fixture f;
    struct payload_draft d;
    struct payload *p;
    char raw[4096];

    (void)state;
    open_store(&f, 256 * KIB, true);
    d = items_draft(f.s, 5, ENCODING_ZSTD);
    store_commit_part(f.s, 1, &d, 1, NULL, 0);
    put(f.s, PAYLOAD_SERIES, 10, 'z', 50);
    p = store_take_kinds(f.s, 1u << PAYLOAD_EVENTS);
    assert_int_equal(store_split(f.s, p), 0);
    assert_int_equal(samples_held(f.s), 60);
    assert_balanced(f.s);
    p = store_take(f.s);
    assert_int_equal(p->load.n_samples, 50);
    p = store_take(f.s);
    assert_int_equal(p->load.n_events, 2);
    assert_int_equal(decompress(p->encoding, p->body, p->n_bytes, raw,
                                p->n_raw_bytes),
                     0);
    assert_memory_equal(raw, "[<3>,<4>]", p->n_raw_bytes);
    p = store_take(f.s);
    assert_int_equal(p->load.n_samples, 3);
    assert_int_equal(decompress(p->encoding, p->body, p->n_bytes, raw,
                                p->n_raw_bytes),
                     0);
    assert_memory_equal(raw, "[<0>,<1>,<2>]", p->n_raw_bytes);
    close_store(&f);
}

static void one_item_cannot_be_split(void **state)
{
    struct fixture f;
    struct payload_draft d;
    struct payload *p;

    (void)state;
    open_store(&f, 256 * KIB, true);
    d = items_draft(f.s, 1, ENCODING_DEFLATE);
    store_commit_part(f.s, 1, &d, 1, NULL, 0);
    p = store_take(f.s);
    assert_int_equal(store_split(f.s, p), STORE_CANNOT_SPLIT);
    store_settle_dropped(f.s, p, DROP_HTTP, 413);
    assert_balanced(f.s);
    close_store(&f);
}

/* ---- Kills ------------------------------------------------------------- */

static void work_for_ever(struct fixture *f, unsigned seed)
{
    unsigned x = seed;

    for (;;) {
        struct payload *p = NULL;

        x = x * 1103515245u + 12345u;
        switch ((x >> 16) % 8) {
        case 0:
        case 1:
        case 2: {
            struct payload_draft d[3];
            struct store_loss loss = {{(x >> 8) % 5, 0, 0, 0}, DROP_DAMAGED};
            size_t n = (x >> 20) % 3 + 1;

            (void)store_evict(f->s, 48 * KIB);
            for (size_t i = 0; i < n; i++)
                d[i] = draft(f->s, (x >> 24) % 4, (x >> 9) % (12 * KIB) + 1,
                             'r', (x >> 12) % 100);
            store_commit_part(f->s, store_encoded_seq(f->s) + 1, d, n, &loss,
                              1);
            break;
        }
        case 3: {
            struct payload_draft d;

            (void)store_evict(f->s, 48 * KIB);
            d = items_draft(f->s, (int)((x >> 20) % 300) + 2, ENCODING_ZSTD);
            store_commit_part(f->s, store_encoded_seq(f->s) + 1, &d, 1, NULL,
                              0);
            p = store_take_kinds(f->s, 1u << PAYLOAD_EVENTS);
            if (store_split(f->s, p) != 0)
                store_put_back(f->s, p);
            break;
        }
        case 4:
            if ((p = store_take(f->s)) != NULL) {
                store_count_attempt(f->s, p);
                store_mark_maybe_sent(f->s, p);
                store_put_back(f->s, p);
            }
            break;
        case 5:
        case 6:
            if ((p = store_take(f->s)) != NULL)
                store_settle_delivered(f->s, p);
            break;
        case 7:
            if ((p = store_take(f->s)) != NULL)
                store_settle_dropped(f->s, p, DROP_HTTP, 400);
            break;
        }
    }
}

static void the_counters_balance_after_kills_at_any_instant(void **state)
{
    struct fixture f;
    uint64_t total = 0;
    struct store_stats st;

    (void)state;
    open_store(&f, 256 * KIB, false);
    store_close(f.s);
    for (unsigned round = 0; round < 150; round++) {
        struct timespec pause = {0, 1000 * (200 + (round * 7919) % 3000)};
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
            take_over(&f);
            work_for_ever(&f, round + 1);
        }
        nanosleep(&pause, NULL); /* the instant of the kill, not a wait */
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        take_over(&f);
        /* Nothing was damaged: the entries give exactly what the counters do
         * not have. A loss of that cause comes from the parts alone. */
        assert_balanced(f.s);
        store_stats(f.s, &st);
        assert_true(st.accepted.n_samples >= total);
        total = st.accepted.n_samples;
        store_close(f.s);
    }
    assert_true(total > 0);
    region_close(&f.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_freshest_payload_is_taken_first),
        cmocka_unit_test(a_part_is_committed_once_with_its_losses),
        cmocka_unit_test(blocks_of_uncommitted_drafts_are_free_after_a_kill),
        cmocka_unit_test(states_attempts_and_order_survive_a_kill),
        cmocka_unit_test(series_that_are_sent_again_are_not_ambiguous),
        cmocka_unit_test(a_full_store_evicts_the_oldest_that_is_not_taken),
        cmocka_unit_test(trimmed_pages_can_be_allocated_again),
        cmocka_unit_test(pages_of_an_outage_go_back_to_the_kernel),
        cmocka_unit_test(a_full_table_evicts_and_never_fails),
        cmocka_unit_test(what_a_stop_leaves_is_dropped_taken_ones_too),
        cmocka_unit_test(a_damaged_entry_is_counted_and_the_rest_goes_on),
        cmocka_unit_test(a_split_gives_two_payloads_of_the_same_age),
        cmocka_unit_test(one_item_cannot_be_split),
        cmocka_unit_test(the_counters_balance_after_kills_at_any_instant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
