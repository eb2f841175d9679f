/* SPDX-License-Identifier: Apache-2.0 */
/* The payload store with a disk: lives, limits, hand-over, kills. */
#include "tests/support/disk_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "forwarder/split.h"

/* ---- Lives -------------------------------------------------------------- */

static void frozen_payloads_outlive_keeper_and_worker(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    rig_put(&f, PAYLOAD_EVENTS, 5000, 'b', 2);
    rig_put(&f, PAYLOAD_SERIES, 300, 'c', 4);
    rig_deliver(&f, 300, 'c', 4);
    rig_next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 2);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, 3);
    assert_int_equal(rig_stats(&f).restored_load.n_samples, 3);
    assert_int_equal(rig_stats(&f).load.n_samples, 0);
    /* What is new goes before the backlog. */
    rig_put(&f, PAYLOAD_SERIES, 10, 'n', 8);
    rig_deliver(&f, 10, 'n', 8);
    rig_deliver(&f, 5000, 'b', 2);
    rig_deliver(&f, 100, 'a', 1);
    assert_null(store_take(f.s));
    assert_int_equal(store_counts(f.s)->delivered, 8);
    assert_int_equal(store_counts(f.s)->payloads_sent, 3);
    assert_int_equal(store_restored(f.s)->counts.delivered, 3);
    rig_assert_balanced(&f);
    rig_next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 0);
    assert_int_equal(rig_n_files(&f, NULL), 0);
    rig_end(&f);
}

static void a_body_that_may_have_left_is_remembered(void **state)
{
    struct disk_rig f;
    struct payload *p;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SKETCHES, 100, 'a', 1);
    rig_put(&f, PAYLOAD_SKETCHES, 100, 'b', 2);
    p = rig_take(&f, 100, 'b', 2);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    rig_next_life(&f);
    p = rig_take(&f, 100, 'b', 2);
    store_count_attempt(f.s, p);
    store_settle_delivered(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 1);
    p = rig_take(&f, 100, 'a', 1);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    store_mark_refused(f.s, p);
    rig_next_life(&f);
    p = rig_take(&f, 100, 'a', 1);
    store_count_attempt(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 0);
    rig_end(&f);
}

static void what_was_never_committed_is_settled_by_the_successor(void **state)
{
    struct disk_rig f;
    struct payload_draft d;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    d = rig_draft(&f, PAYLOAD_SERIES, 100, 'x', 100);
    rig_write_drafts(&f, &d, 1);
    rig_successor(&f);
    /* The reader serves before the disk is looked at: nothing is written. */
    d = rig_draft(&f, PAYLOAD_SERIES, 100, 'x', 100);
    rig_write_drafts(&f, &d, 1);
    assert_int_equal(d.place.segment, 0);
    rig_look(&f);
    rig_write_drafts(&f, &d, 1);
    assert_int_not_equal(d.place.segment, 0);
    store_commit_part(f.s, 2, &d, 1, NULL, 0);
    assert_int_equal(store_restored(f.s)->n_payloads, 0);
    rig_next_life(&f);
    rig_deliver(&f, 100, 'x', 100);
    rig_deliver(&f, 100, 'a', 1);
    assert_null(store_take(f.s));
    rig_end(&f);
}

/* A successor that finds the folder empty goes on with the numbers: by them it
 * tells what was never committed. */
static void numbers_do_not_begin_again_below_this_life(void **state)
{
    struct disk_rig f;
    struct payload_draft d;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    for (int i = 0; i < 3; i++)
        rig_put(&f, PAYLOAD_SERIES, 300 * KIB, 'a', 1);
    rig_next_life(&f);
    for (int i = 0; i < 3; i++)
        rig_deliver(&f, 300 * KIB, 'a', 1);
    assert_int_equal(rig_n_files(&f, NULL), 0);
    for (int i = 0; i < 2; i++) {
        rig_successor(&f);
        rig_look(&f);
        d = rig_draft(&f, PAYLOAD_SERIES, 100, 'x', 100);
        rig_write_drafts(&f, &d, 1); /* killed once before the commit */
    }
    store_commit_part(f.s, store_encoded_seq(f.s) + 1, &d, 1, NULL, 0);
    assert_int_equal(store_own(f.s)->accepted.n_samples, 100);
    rig_deliver(&f, 100, 'x', 100);
    assert_null(store_take(f.s));
    rig_end(&f);
}

/* Numbers grow by one with each file: none of ours comes near the end. */
static void the_highest_numbers_are_not_ours(void **state)
{
    static const char *const names[] = {"fffffffffffffffe", "8000000000000000"};
    const struct segment_head h = {.life = 99, .created_s = NOW_S};
    unsigned char head[SEGMENT_HEAD_BYTES];
    struct disk_rig f;
    char path[160];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    segment_head_write(head, &h);
    for (int i = 0; i < 2; i++) {
        int fd;

        snprintf(path, sizeof(path), "%s/payloads/segment-%s", f.path,
                 names[i]);
        fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(write(fd, head, sizeof(head)), sizeof(head));
        close(fd);
    }
    rig_next_life(&f);
    for (int i = 0; i < 4; i++)
        rig_put(&f, PAYLOAD_SERIES, 200 * KIB, 'a', 1);
    assert_true(store_is_on_disk(f.s));
    assert_int_equal(rig_n_files(&f, NULL), 6);
    rig_next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 4);
    rig_end(&f);
}

static void a_stop_saves_and_the_next_life_delivers(void **state)
{
    struct disk_rig f;
    struct payload *p;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    rig_put(&f, PAYLOAD_CHECKS, 100, 'b', 2);
    p = rig_take(&f, 100, 'b', 2);
    assert_int_equal(store_sync(f.s, 0), 0);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 3);
    assert_int_equal(rig_stats(&f).load.n_samples, 0);
    assert_null(store_take(f.s));
    store_settle_delivered(f.s, p); /* too late */
    assert_int_equal(store_counts(f.s)->delivered, 0);
    /* Killed behind it: what is saved is not what nobody committed. */
    rig_successor(&f);
    rig_look(&f);
    assert_int_equal(store_counts(f.s)->saved, 3);
    rig_assert_balanced(&f);
    rig_next_life(&f);
    rig_deliver(&f, 100, 'b', 2);
    rig_deliver(&f, 100, 'a', 1);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_restored(f.s)->counts.saved, 0);
    rig_assert_balanced(&f);
    rig_end(&f);
}

static void payloads_of_two_weeks_ago_are_dropped(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    test_clock_advance(&f.clock, UINT64_C(14) * 86400 * CLOCK_NS_PER_S);
    rig_next_life(&f);
    assert_null(store_take(f.s));
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_EVICTED], 1);
    rig_assert_balanced(&f);
    assert_int_equal(rig_n_files(&f, NULL), 0);
    rig_end(&f);
}

/* A file is older than what is written to it today: a healthy agent writes one
 * file over and over. */
static void a_payload_is_as_old_as_itself_and_not_as_its_file(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    for (int day = 0; day < 12; day++) {
        rig_put(&f, PAYLOAD_SERIES, 100, 'h', 1);
        rig_deliver(&f, 100, 'h', 1);
        rig_pass_seconds(&f, 86400);
    }
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 5);
    assert_int_equal(store_sync(f.s, 0), 0);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 5);
    rig_next_life(&f);
    assert_int_equal(rig_dropped(&store_restored(f.s)->counts), 0);
    rig_deliver(&f, 100, 'a', 5);
    rig_end(&f);
}

static void a_clock_that_was_not_set_makes_nothing_outdated(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    test_clock_step(&f.clock, (60 - NOW_S) * CLOCK_NS_PER_S);
    rig_next_life(&f); /* what was made lies ahead */
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 4);
    test_clock_advance(&f.clock, UINT64_C(14) * 86400 * CLOCK_NS_PER_S);
    rig_next_life(&f); /* nobody knows what now is */
    assert_int_equal(rig_stats(&f).restored_load.n_samples, 5);
    test_clock_step(&f.clock, NOW_S * CLOCK_NS_PER_S);
    rig_next_life(&f); /* nor when that second one was made */
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_EVICTED], 1);
    rig_deliver(&f, 100, 'b', 4);
    rig_assert_balanced(&f);
    rig_end(&f);
}

static void points_that_waited_over_an_hour_count_as_old(void **state)
{
    struct disk_rig f;
    struct payload_draft d;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    d = rig_draft(&f, PAYLOAD_SERIES, 100, 'o', 100);
    d.newest_s -= STORE_OLD_S + 1; /* counted when it was received */
    store_commit_part(f.s, 2, &d, 1, NULL, 0);
    test_clock_advance(&f.clock, (uint64_t)(STORE_OLD_S + 1) * CLOCK_NS_PER_S);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 10);
    rig_deliver(&f, 100, 'b', 10);
    assert_int_equal(store_counts(f.s)->delivered_old, 0);
    rig_deliver(&f, 100, 'o', 100);
    assert_int_equal(store_counts(f.s)->delivered_old, 0);
    rig_deliver(&f, 100, 'a', 1);
    assert_int_equal(store_counts(f.s)->delivered_old, 1);
    rig_end(&f);
}

/* ---- Memory and limits -------------------------------------------------- */

static void old_bodies_leave_memory_and_are_read_back(void **state)
{
    enum { N = 40 };
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 64u << 20);
    for (int i = 0; i < N; i++)
        rig_put(&f, PAYLOAD_SERIES, 1024 * KIB, (char)('A' + i), (uint64_t)i);
    assert_true(rig_stats(&f).bytes <= STORE_DISK_MEMORY_BYTES);
    assert_int_equal(rig_stats(&f).n_payloads, N);
    assert_int_equal(rig_dropped(store_counts(f.s)), 0);
    rig_successor(&f);
    rig_look(&f);
    assert_int_equal(rig_stats(&f).n_payloads, N);
    for (int i = N; i-- > 0;)
        rig_deliver(&f, 1024 * KIB, (char)('A' + i), (uint64_t)i);
    assert_int_equal(rig_stats(&f).bytes, 0);
    rig_assert_balanced(&f);
    rig_end(&f);
}

static void the_oldest_go_when_the_disk_may_hold_no_more(void **state)
{
    struct disk_rig f;
    uint64_t n_in = 0;

    (void)state;
    rig_begin(&f, 2048 * KIB);
    for (int i = 0; i < 100; i++) {
        rig_put(&f, PAYLOAD_SERIES, 100 * KIB, 'x', 1);
        n_in++;
        assert_true(rig_stats(&f).disk.n_bytes <= 2048 * KIB);
        rig_assert_balanced(&f);
    }
    assert_true(rig_stats(&f).n_payloads >= 15);
    assert_int_equal(store_counts(f.s)->dropped[DROP_EVICTED],
                     n_in - rig_stats(&f).n_payloads);
    /* With a smaller limit at the next start the oldest go, too. */
    f.max_bytes = 1024 * KIB;
    rig_next_life(&f);
    assert_true(rig_stats(&f).disk.n_bytes <= 1024 * KIB);
    assert_true(store_restored(f.s)->counts.dropped[DROP_EVICTED] > 0);
    rig_assert_balanced(&f);
    rig_end(&f);
}

/* What is read first is the freshest: it must not go for what is not read yet. */
static void a_full_disk_is_read_before_anything_is_evicted(void **state)
{
    struct disk_rig f;
    uint32_t n;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    for (int i = 0; i < 20; i++)
        rig_put(&f, PAYLOAD_SERIES, 100 * KIB, (char)('a' + i), 1);
    n = rig_stats(&f).n_payloads;
    rig_kill_both(&f);
    assert_int_equal(store_list(f.s), 0);
    store_restore(f.s);
    assert_true(store_read_some(f.s));
    store_restore(f.s);
    rig_put(&f, PAYLOAD_SERIES, 200 * KIB, 'n', 2);
    assert_false(store_is_on_disk(f.s));
    assert_int_equal(rig_dropped(&store_restored(f.s)->counts), 0);
    rig_look(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, n);
    /* Now there is an oldest, and it makes room. */
    rig_put(&f, PAYLOAD_SERIES, 1 * KIB, 'm', 4);
    assert_true(store_is_on_disk(f.s));
    assert_true(store_restored(f.s)->counts.dropped[DROP_EVICTED] > 0);
    rig_deliver(&f, 1 * KIB, 'm', 4);
    rig_deliver(&f, 200 * KIB, 'n', 2);
    rig_deliver(&f, 100 * KIB, 'a' + 19, 1);
    rig_assert_balanced(&f);
    rig_end(&f);
}

static void a_healthy_store_keeps_one_short_file(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 64u << 20);
    for (int i = 0; i < 50; i++) {
        rig_put(&f, PAYLOAD_SERIES, 100 * KIB, 'x', 1);
        rig_put(&f, PAYLOAD_SERIES, 100 * KIB, 'y', 1);
        rig_deliver(&f, 100 * KIB, 'y', 1);
        rig_deliver(&f, 100 * KIB, 'x', 1);
        assert_int_equal(rig_n_files(&f, NULL), 1);
        assert_int_equal(rig_stats(&f).disk.n_bytes, SEGMENT_HEAD_BYTES);
    }
    rig_end(&f);
}

/* "<i>," each with one sample, in brackets. */
static struct payload_draft items_draft(struct disk_rig *f, int n)
{
    static unsigned char bytes[64 * KIB];
    struct split_index *x = malloc(sizeof(*x));
    struct payload_draft d = {.kind = PAYLOAD_EVENTS};
    size_t at = 0;

    assert_non_null(x);
    bytes[at++] = '[';
    split_index_init(x, 1, 1, 1);
    for (int i = 0; i < n; i++) {
        int len = snprintf((char *)bytes + at, 20, "%s%d", i > 0 ? "," : "", i);

        split_index_add(x, (size_t)len, 1, 1);
        at += (size_t)len;
    }
    bytes[at++] = ']';
    d.n_bytes = d.n_raw_bytes = (uint32_t)at;
    d.n_index_bytes = (uint32_t)split_index_write(x, bytes + at);
    d.load = (struct payload_load){(uint64_t)n, (uint64_t)n, (uint64_t)n, 0};
    at += d.n_index_bytes;
    assert_int_equal(store_block_alloc(f->s, at, &d.block), 0);
    memcpy(store_block_bytes(f->s, d.block), bytes, at);
    free(x);
    return d;
}

static void halves_of_a_split_are_on_disk(void **state)
{
    struct disk_rig f;
    struct payload_draft d;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    d = items_draft(&f, 5);
    rig_write_drafts(&f, &d, 1);
    store_commit_part(f.s, 1, &d, 1, NULL, 0);
    rig_next_life(&f); /* it is split from its copy on disk */
    assert_int_equal(store_split(f.s, store_take(f.s)), 0);
    rig_next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 2);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, 5);
    assert_int_equal(store_split(f.s, store_take(f.s)), 0);
    rig_assert_balanced(&f);
    rig_end(&f);
}

/* ---- Another image of the program --------------------------------------- */

/* The same life in a fresh region. */
static void next_image(struct disk_rig *f, int fd)
{
    struct store_books own = *store_own(f->s);
    struct store_books restored = *store_restored(f->s);

    rig_fresh_region(f);
    store_adopt_counts(f->s, &own, &restored);
    rig_assert_balanced(f);
    assert_int_equal(store_import(f->s, fd), 0);
    rig_assert_balanced(f);
}

static void an_image_hands_over_what_it_has(void **state)
{
    struct disk_rig f;
    struct payload_draft d;
    struct payload *p;
    int fd = memfd_create("handover", MFD_CLOEXEC);

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'r', 1000);
    rig_next_life(&f);
    rig_put(&f, PAYLOAD_SKETCHES, 100, 'a', 1); /* on disk */
    d = rig_draft(&f, PAYLOAD_SKETCHES, 200, 'b', 2);
    store_commit_part(f.s, 2, &d, 1, NULL, 0); /* in memory alone */
    assert_true(store_is_on_disk(f.s));        /* it was written back */
    rig_successor(&f);
    d = rig_draft(&f, PAYLOAD_SKETCHES, 300, 'c', 4);
    store_commit_part(f.s, 3, &d, 1, NULL, 0);
    assert_false(store_is_on_disk(f.s));
    p = rig_take(&f, 300, 'c', 4);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    store_put_back(f.s, p);
    assert_int_equal(store_export(f.s, fd), 0);
    next_image(&f, fd);
    /* Those on disk are in flight before they are found. */
    assert_int_equal(rig_stats(&f).load.n_samples, 7);
    assert_int_equal(rig_stats(&f).restored_load.n_samples, 1000);
    rig_successor(&f); /* a kill before that changes nothing */
    assert_int_equal(rig_stats(&f).load.n_samples, 7);
    rig_look(&f);
    rig_assert_balanced(&f);
    assert_int_equal(rig_stats(&f).load.n_samples, 7);
    assert_int_equal(store_restored(f.s)->n_payloads, 1);
    rig_put(&f, PAYLOAD_SERIES, 400, 'n', 8);
    rig_deliver(&f, 400, 'n', 8);
    p = rig_take(&f, 300, 'c', 4);
    assert_int_equal(p->state, PAYLOAD_MAYBE_SENT);
    store_settle_delivered(f.s, p);
    rig_deliver(&f, 200, 'b', 2);
    rig_deliver(&f, 100, 'a', 1);
    rig_deliver(&f, 100, 'r', 1000);
    assert_null(store_take(f.s));
    assert_int_equal(store_counts(f.s)->delivered, 15);
    assert_int_equal(store_restored(f.s)->counts.delivered, 1000);
    rig_assert_balanced(&f);
    close(fd);
    rig_end(&f);
}

static void what_a_hand_over_lost_is_named(void **state)
{
    struct disk_rig f;
    char name[400];
    int fd = memfd_create("handover", MFD_CLOEXEC);

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    assert_int_equal(rig_n_files(&f, name), 1);
    assert_int_equal(store_export(f.s, fd), 0);
    assert_int_equal(unlink(name), 0);
    next_image(&f, fd);
    assert_int_equal(rig_stats(&f).load.n_samples, 3);
    rig_look(&f);
    assert_int_equal(rig_stats(&f).load.n_samples, 0);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DAMAGED], 3);
    rig_assert_balanced(&f);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_int_equal(store_import(f.s, fd), -EBADMSG);
    close(fd);
    rig_end(&f);
}

/* ---- Kills -------------------------------------------------------------- */

enum { MAX_PAYLOADS = 4096 };

/* What the killed process had done for certain. */
struct witness {
    _Atomic uint64_t n_frozen; /* payload i has 1 << 20 | i samples */
    _Atomic unsigned char over[MAX_PAYLOADS]; /* 1: settling, 2: settled */
};

static uint64_t number_of(const struct payload *p)
{
    return p->load.n_samples & 0xfffff;
}

static void work_for_ever(struct disk_rig *f, struct witness *w, unsigned x)
{
    for (;;) {
        struct payload *p = NULL;
        uint64_t n = atomic_load(&w->n_frozen);

        x = x * 1103515245u + 12345u;
        if (n < MAX_PAYLOADS && (x >> 16) % 3 != 0) {
            rig_put(f, (x >> 24) % 4, (x >> 8) % (40 * KIB) + 1, 'k',
                    1u << 20 | n);
            atomic_store(&w->n_frozen, n + 1);
        } else if ((p = store_take(f->s)) != NULL) {
            store_count_attempt(f->s, p);
            store_mark_maybe_sent(f->s, p);
            n = number_of(p);
            atomic_store(&w->over[n], 1);
            store_settle_delivered(f->s, p);
            atomic_store(&w->over[n], 2);
        }
    }
}

static void assert_all_there(struct disk_rig *f, struct witness *w)
{
    unsigned char *seen = calloc(MAX_PAYLOADS, 1);
    struct payload *p;

    while ((p = store_take(f->s)) != NULL) {
        uint64_t n = number_of(p);

        assert_true(n < MAX_PAYLOADS);
        assert_int_equal(seen[n]++, 0);
        assert_int_not_equal(atomic_load(&w->over[n]), 2);
        store_settle_delivered(f->s, p);
    }
    for (uint64_t n = 0; n < atomic_load(&w->n_frozen); n++)
        assert_true(seen[n] || atomic_load(&w->over[n]) > 0);
    free(seen);
}

static void nothing_frozen_is_lost_in_kills_of_all_processes(void **state)
{
    struct witness *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *text = getenv("RETRIEVER_TEST_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 0;
    struct disk_rig f;

    (void)state;
    if (seed == 0)
        assert_int_equal(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
    print_message("seed %u (RETRIEVER_TEST_SEED)\n", seed);
    assert_ptr_not_equal(w, MAP_FAILED);
    rig_begin(&f, 64u << 20);
    for (unsigned round = 0; round < 60; round++) {
        struct timespec pause = {0, 1000 * (200 + seed % 6000)};
        bool whole = round % 2 == 0;
        int status;
        pid_t pid;

        seed = seed * 1103515245u + 12345u;
        memset((void *)w, 0, sizeof(*w));
        rig_next_life(&f);
        assert_null(store_take(f.s));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            rig_successor(&f);
            rig_look(&f);
            work_for_ever(&f, w, seed);
        }
        nanosleep(&pause, NULL); /* the instant of the kill, not a wait */
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (whole)
            rig_next_life(&f);
        else {
            rig_successor(&f);
            rig_look(&f);
            assert_int_equal(store_restored(f.s)->n_payloads, 0);
        }
        rig_assert_balanced(&f);
        assert_int_equal(rig_dropped(store_counts(f.s)), 0);
        assert_all_there(&f, w);
    }
    munmap(w, sizeof(*w));
    rig_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frozen_payloads_outlive_keeper_and_worker),
        cmocka_unit_test(a_body_that_may_have_left_is_remembered),
        cmocka_unit_test(what_was_never_committed_is_settled_by_the_successor),
        cmocka_unit_test(numbers_do_not_begin_again_below_this_life),
        cmocka_unit_test(the_highest_numbers_are_not_ours),
        cmocka_unit_test(a_stop_saves_and_the_next_life_delivers),
        cmocka_unit_test(payloads_of_two_weeks_ago_are_dropped),
        cmocka_unit_test(a_payload_is_as_old_as_itself_and_not_as_its_file),
        cmocka_unit_test(a_clock_that_was_not_set_makes_nothing_outdated),
        cmocka_unit_test(points_that_waited_over_an_hour_count_as_old),
        cmocka_unit_test(old_bodies_leave_memory_and_are_read_back),
        cmocka_unit_test(the_oldest_go_when_the_disk_may_hold_no_more),
        cmocka_unit_test(a_full_disk_is_read_before_anything_is_evicted),
        cmocka_unit_test(a_healthy_store_keeps_one_short_file),
        cmocka_unit_test(halves_of_a_split_are_on_disk),
        cmocka_unit_test(an_image_hands_over_what_it_has),
        cmocka_unit_test(what_a_hand_over_lost_is_named),
        cmocka_unit_test(nothing_frozen_is_lost_in_kills_of_all_processes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
