/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "agent/encoders.h"
#include "agent/stamps.h"
#include "aggregator/agg.h"
#include "aggregator/used_walk.h"

/* ---- Parts of one item each, with seq samples and a body of 3 KiB -------- */

struct part_iter {
    uint64_t seq;
    bool given;
};

static _Atomic int n_short; /* times that memory is short */
static _Atomic uint64_t first_missing;
static _Atomic uint64_t n_opened;
static _Atomic uint64_t late_part; /* ten seconds pass before it */
static struct test_clock test_time;
static char text[3000];
static uint64_t disk_life; /* 0: the store has no disk */

int part_iter_open(struct part_iter **out, const struct agg *a, uint64_t seq)
{
    (void)a;
    if (atomic_fetch_sub(&n_short, 1) > 0)
        return -ENOMEM;
    if (seq == atomic_load(&first_missing))
        return -ENOENT;
    if (seq == atomic_load(&late_part))
        test_clock_advance(&test_time, UINT64_C(10) * CLOCK_NS_PER_S);
    *out = calloc(1, sizeof(**out));
    (*out)->seq = seq;
    atomic_fetch_add(&n_opened, 1);
    return 0;
}

void part_iter_info(const struct part_iter *it, struct part_info *out)
{
    *out =
        (struct part_info){.seq = it->seq, .stamp_s = 1000 + (int64_t)it->seq};
}

int part_iter_next(struct part_iter *it, struct flush_item *out)
{
    static const struct flush_point point = {1, 1.0, 0};

    if (it->given)
        return 0;
    it->given = true;
    *out = (struct flush_item){
        .kind = FLUSH_SERIES,
        .n_samples = it->seq,
        .name = {text, sizeof(text)},
        .interval_s = 10,
        .series = {{"", SERIES_GAUGE, "", &point, 1}},
        .n_series = 1,
    };
    return 1;
}

void part_iter_close(struct part_iter *it)
{
    free(it);
}

/* Each part has a point with second 5000 + seq. */
int used_walk_part(struct used_walk *w, const struct agg *a, uint64_t seq)
{
    (void)a;
    w->at = (uint32_t)seq;
    return 0;
}

bool used_walk_next(struct used_walk *w, struct used_point *out)
{
    if (w->at == 0)
        return false;
    *out = (struct used_point){.id = {1, 2}, .second_s = 5000 + w->at};
    w->at = 0;
    return true;
}

void used_walk_region(struct used_walk *w, const struct agg *a)
{
    (void)a;
    w->at = 99;
}

size_t used_region_spans(const struct agg *a, struct used_span *out)
{
    (void)a;
    out[0] = (struct used_span){.stamp_s = 777};
    return 1;
}

/* ---- Syncs -------------------------------------------------------------- */

static struct store *synced_store;
static _Atomic unsigned n_syncs;
static _Atomic uint64_t encoded_at_sync; /* the first one */

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    if (synced_store != NULL && atomic_fetch_add(&n_syncs, 1) == 0)
        atomic_store(&encoded_at_sync, store_encoded_seq(synced_store));
    return __real_fdatasync(fd);
}

/* ---- Fixture ------------------------------------------------------------ */

struct fixture {
    uv_loop_t loop;
    struct region r;
    struct store *s;
    struct encode_config cfg;
    struct encoders *e;
    uint64_t stop_at;
    uint64_t stop_restored;
    bool rest; /* as soon as something was found on disk */
    uint64_t last_done;
    int run_dir;
    int n_closed;
    int n_synced;
    bool disk_fails; /* payloads/ is a file */
};

static void on_closed(void *arg)
{
    struct fixture *f = arg;

    f->n_closed++;
}

static void on_done(void *arg, uint64_t seq)
{
    struct fixture *f = arg;

    assert_int_equal(seq, f->last_done + 1);
    assert_int_equal(store_encoded_seq(f->s), seq);
    f->last_done = seq;
    if (f->run_dir >= 0) {
        struct stamps st;

        stamps_load(&st, f->run_dir, 0);
        /* The thread may be at the next part already. */
        assert_true(st.last_s >= 1000 + (int64_t)seq);
        assert_true(st.n_points >= seq);
        assert_int_equal(st.points[seq - 1].second_s, 5000 + seq);
        stamps_fini(&st);
    }
    if (disk_life > 0)
        assert_int_equal(store_is_on_disk(f->s), !f->disk_fails);
    if (seq == f->stop_at)
        encoders_stop(f->e, on_closed, f);
}

/* Called for the end, too, when nothing more came. */
static void on_restored(void *arg)
{
    struct fixture *f = arg;

    if (f->rest) {
        f->rest = false;
        encoders_set_resting(f->e, true);
    }
    if (f->stop_restored == 0 ||
        store_restored(f->s)->accepted.n_samples != f->stop_restored)
        return;
    f->stop_restored = 0;
    encoders_stop(f->e, on_closed, f);
}

/* Behind all parts, and nothing of them is in memory alone. */
static void on_synced(void *arg, int rc)
{
    struct fixture *f = arg;

    assert_int_equal(rc, 0);
    assert_int_equal(f->last_done, 20);
    assert_true(store_is_on_disk(f->s));
    encoders_stop(f->e, on_closed, f);
}

/* The first try finds no folder, a later one does. */
static void on_synced_again(void *arg, int rc)
{
    struct fixture *f = arg;

    (void)rc;
    f->n_synced++;
    if (f->disk_fails) {
        assert_false(store_is_on_disk(f->s));
        assert_int_equal(unlinkat(f->run_dir, "payloads", 0), 0);
        f->disk_fails = false;
    } else if (store_is_on_disk(f->s)) {
        encoders_stop(f->e, on_closed, f);
    }
}

static void begin(struct fixture *f, size_t max_bytes, int run_dir)
{
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test-encoders",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};
    struct encoders_opts eo = {.loop = &f->loop,
                               .encode = &f->cfg,
                               .run_dir = run_dir,
                               .done = on_done,
                               .restored = on_restored,
                               .arg = f};
    const struct store_disk_opts disk = {.run_dir = run_dir, .max_ratio = 1};
    const struct store_opts so = {.max_bytes = max_bytes,
                                  .disk = disk_life > 0 ? &disk : NULL,
                                  .life = disk_life,
                                  .clock = &test_time.clock};

    memset(f, 0, sizeof(*f));
    test_clock_init(&test_time, 1, INT64_C(1800000000) * CLOCK_NS_PER_S);
    memset(text, 'n', sizeof(text));
    atomic_store(&n_short, 0);
    atomic_store(&first_missing, 0);
    atomic_store(&n_opened, 0);
    atomic_store(&late_part, 0);
    opts.budget_bytes = store_reserve(reserve, max_bytes);
    assert_int_equal(region_create(&f->r, &opts), 0);
    assert_int_equal(store_open(&f->s, &f->r, &so), 0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->run_dir = run_dir;
    f->cfg = (struct encode_config){.encoding = ENCODING_NONE,
                                    .internal_hostname = "",
                                    .have_endpoint = true};
    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        f->cfg.limits[k] = (struct encode_limits){512000, 512000, 0};
    eo.store = f->s;
    assert_int_equal(encoders_start(&f->e, &eo), 0);
}

/* Until the encoder has ended: it was told to, or on_done() will. */
static void run_loop(struct fixture *f)
{
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(f->n_closed, 1);
}

static void end(struct fixture *f)
{
    assert_int_equal(uv_loop_close(&f->loop), 0);
    store_close(f->s);
    region_close(&f->r);
}

static void parts_become_payloads_in_order(void **state)
{
    struct fixture f;
    struct store_stats st;

    (void)state;
    begin(&f, 4u << 20, -1);
    f.stop_at = 100;
    encoders_submit(f.e, 40);
    encoders_submit(f.e, 100);
    encoders_set_stopping(f.e, true);
    encoders_submit(f.e, 20); /* older news changes nothing */
    run_loop(&f);
    assert_int_equal(f.last_done, 100);
    store_stats(f.s, &st);
    assert_int_equal(st.load.n_samples, 5050);
    end(&f);
}

static void the_seconds_are_on_disk_before_a_part_is_done(void **state)
{
    char dir[] = "/tmp/retriever-stamps-XXXXXX";
    struct fixture f;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fd = open(dir, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    begin(&f, 4u << 20, fd);
    f.stop_at = 5;
    encoders_submit(f.e, 5);
    run_loop(&f); /* on_done() looks into the file */
    assert_int_equal(f.last_done, 5);
    end(&f);
    assert_int_equal(unlinkat(fd, STAMPS_FILE, 0), 0);
    close(fd);
    rmdir(dir);
}

static void parts_are_on_disk_before_they_are_done(void **state)
{
    char dir[] = "/tmp/retriever-stamps-XXXXXX";
    struct fixture f;
    struct payload *p;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fd = open(dir, O_RDONLY | O_DIRECTORY);
    disk_life = 1;
    begin(&f, 4u << 20, fd);
    encoders_submit(f.e, 20);
    encoders_sync(f.e, on_synced, &f);
    run_loop(&f);
    end(&f);
    /* The next life finds them by itself, with nothing else to do. */
    disk_life = 2;
    begin(&f, 4u << 20, fd);
    f.stop_restored = 210;
    run_loop(&f);
    while ((p = store_take(f.s)) != NULL)
        store_settle_delivered(f.s, p);
    assert_int_equal(store_restored(f.s)->counts.delivered, 210);
    end(&f);
    disk_life = 0;
    assert_int_equal(unlinkat(fd, STAMPS_FILE, 0), 0);
    assert_int_equal(unlinkat(fd, "payloads", AT_REMOVEDIR), 0);
    close(fd);
    rmdir(dir);
}

/* What was in memory alone, on its way to the intake too, is written beside
 * delivery, and tried again. */
static void a_stop_writes_what_the_disk_did_not_take(void **state)
{
    char dir[] = "/tmp/retriever-stamps-XXXXXX";
    struct fixture f;
    struct payload *p;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fd = open(dir, O_RDONLY | O_DIRECTORY);
    close(openat(fd, "payloads", O_CREAT | O_WRONLY, 0600));
    disk_life = 1;
    begin(&f, 4u << 20, fd);
    f.disk_fails = true;
    encoders_submit(f.e, 20);
    while (f.last_done < 20)
        assert_true(uv_run(&f.loop, UV_RUN_ONCE) != 0);
    p = store_take(f.s);
    encoders_set_stopping(f.e, true);
    encoders_sync(f.e, on_synced_again, &f);
    run_loop(&f);
    assert_int_equal(f.n_synced, 2);
    store_put_back(f.s, p);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 210);
    end(&f);
    disk_life = 2;
    begin(&f, 4u << 20, fd);
    f.stop_restored = 210;
    run_loop(&f);
    while ((p = store_take(f.s)) != NULL)
        store_settle_delivered(f.s, p);
    end(&f);
    disk_life = 0;
    assert_int_equal(unlinkat(fd, STAMPS_FILE, 0), 0);
    assert_int_equal(unlinkat(fd, "payloads", AT_REMOVEDIR), 0);
    close(fd);
    rmdir(dir);
}

static void on_tick(uv_timer_t *t)
{
    (void)t;
}

/* An upgrade's record must stay true: nothing more is found while it rests. */
static void nothing_comes_from_disk_while_it_rests(void **state)
{
    enum { N = 300 }; /* more than are found at a time */
    char dir[] = "/tmp/retriever-stamps-XXXXXX";
    const uint64_t all = N * (N + 1) / 2;
    struct fixture f;
    struct payload *p;
    uint64_t n_found;
    uv_timer_t tick;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fd = open(dir, O_RDONLY | O_DIRECTORY);
    disk_life = 1;
    begin(&f, 4u << 20, fd);
    f.stop_at = N;
    encoders_submit(f.e, N);
    run_loop(&f);
    end(&f);
    disk_life = 2;
    begin(&f, 4u << 20, fd);
    f.rest = true;
    while (f.rest)
        assert_true(uv_run(&f.loop, UV_RUN_ONCE) != 0);
    n_found = store_restored(f.s)->accepted.n_samples;
    assert_true(n_found < all);
    assert_int_equal(uv_timer_init(&f.loop, &tick), 0);
    assert_int_equal(uv_timer_start(&tick, on_tick, 10, 10), 0);
    for (int i = 0; i < 20; i++)
        (void)uv_run(&f.loop, UV_RUN_ONCE);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, n_found);
    uv_close((uv_handle_t *)&tick, NULL);
    f.stop_restored = all;
    encoders_set_resting(f.e, false);
    run_loop(&f);
    while ((p = store_take(f.s)) != NULL)
        store_settle_delivered(f.s, p);
    end(&f);
    disk_life = 0;
    assert_int_equal(unlinkat(fd, STAMPS_FILE, 0), 0);
    assert_int_equal(unlinkat(fd, "payloads", AT_REMOVEDIR), 0);
    close(fd);
    rmdir(dir);
}

static void run_until_done(struct fixture *f, uint64_t seq)
{
    while (f->last_done < seq)
        assert_true(uv_run(&f->loop, UV_RUN_ONCE) != 0);
}

/* A disk may take long to sync: no part waits for it. */
static void a_part_does_not_wait_for_a_sync(void **state)
{
    struct payload *p;

    (void)state;
    for (int stopping = 0; stopping < 2; stopping++) {
        char dir[] = "/tmp/retriever-stamps-XXXXXX";
        struct fixture f;
        int fd;

        assert_non_null(mkdtemp(dir));
        fd = open(dir, O_RDONLY | O_DIRECTORY);
        disk_life = 1;
        begin(&f, 4u << 20, fd);
        encoders_submit(f.e, 1);
        run_until_done(&f, 1);
        atomic_store(&late_part, 2);
        atomic_store(&n_syncs, 0);
        synced_store = f.s;
        encoders_set_stopping(f.e, stopping == 1);
        encoders_submit(f.e, 2);
        run_until_done(&f, 2);
        encoders_submit(f.e, 3); /* behind the sync */
        run_until_done(&f, 3);
        assert_int_equal(atomic_load(&n_syncs), stopping == 1 ? 0 : 1);
        if (stopping == 0)
            assert_int_equal(atomic_load(&encoded_at_sync), 2);
        synced_store = NULL;
        encoders_stop(f.e, on_closed, &f);
        run_loop(&f);
        while ((p = store_take(f.s)) != NULL)
            store_settle_delivered(f.s, p);
        end(&f);
        disk_life = 0;
        assert_int_equal(unlinkat(fd, STAMPS_FILE, 0), 0);
        assert_int_equal(unlinkat(fd, "payloads", AT_REMOVEDIR), 0);
        close(fd);
        rmdir(dir);
    }
}

static void a_full_store_is_evicted_by_the_loop(void **state)
{
    struct fixture f;
    struct store_stats st;

    (void)state;
    begin(&f, 16u << 10, -1); /* four pages: four parts */
    f.stop_at = 10;
    encoders_submit(f.e, 10);
    run_loop(&f);
    store_stats(f.s, &st);
    assert_int_equal(st.n_payloads, 4);
    assert_int_equal(st.load.n_samples, 7 + 8 + 9 + 10);
    assert_int_equal(store_counts(f.s)->dropped[DROP_EVICTED], 21);
    end(&f);
}

static void short_memory_delays_a_part_and_loses_nothing(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 4u << 20, -1);
    atomic_store(&n_short, 2);
    f.stop_at = 3;
    encoders_submit(f.e, 3);
    run_loop(&f);
    end(&f);
    assert_int_equal(f.last_done, 3);
}

static void a_part_that_is_gone_does_not_hold_up_the_next(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 4u << 20, -1);
    atomic_store(&first_missing, 2);
    f.stop_at = 4;
    encoders_submit(f.e, 4);
    run_loop(&f);
    end(&f);
    assert_int_equal(f.last_done, 4);
}

/* Work in flight, work waiting, no memory, nothing at all. */
static void it_stops_at_any_time(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        struct fixture f;

        begin(&f, 64u << 10, -1);
        if (i % 4 == 3)
            atomic_store(&n_short, 1000000);
        if (i % 4 != 0)
            encoders_submit(f.e, 1000);
        for (int turn = 0; turn < i % 7; turn++)
            (void)uv_run(&f.loop, UV_RUN_NOWAIT);
        encoders_stop(f.e, on_closed, &f);
        run_loop(&f);
        end(&f);
        assert_true(f.last_done < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_become_payloads_in_order),
        cmocka_unit_test(the_seconds_are_on_disk_before_a_part_is_done),
        cmocka_unit_test(parts_are_on_disk_before_they_are_done),
        cmocka_unit_test(a_stop_writes_what_the_disk_did_not_take),
        cmocka_unit_test(nothing_comes_from_disk_while_it_rests),
        cmocka_unit_test(a_part_does_not_wait_for_a_sync),
        cmocka_unit_test(a_full_store_is_evicted_by_the_loop),
        cmocka_unit_test(short_memory_delays_a_part_and_loses_nothing),
        cmocka_unit_test(a_part_that_is_gone_does_not_hold_up_the_next),
        cmocka_unit_test(it_stops_at_any_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
