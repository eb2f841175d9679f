/* SPDX-License-Identifier: Apache-2.0 */
/* When parts go to the encoder: a real loop and a real clock, an encoder and a
 * reader that only write down what they are told. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/parts.h"

#define MS UINT64_C(1000000)
#define PATIENCE_NS (10000 * MS) /* then the test fails */

/* ---- Encoder and reader ------------------------------------------------- */

struct encoders {
    struct encoders_opts opts;
    uv_timer_t handle;
    uint64_t wanted, done;
    bool stopping, have_endpoint;
    void (*closed)(void *arg);
    void *closed_arg;
};

static struct {
    struct encoders *e;
    int start_rc;
    uint64_t released;
    uint64_t encoded; /* by on_encoded */
    int n_closed;
} world;

int encoders_start(struct encoders **out, const struct encoders_opts *opts)
{
    if (world.start_rc != 0)
        return world.start_rc;
    world.e = calloc(1, sizeof(*world.e));
    assert_non_null(world.e);
    world.e->opts = *opts;
    world.e->done = 7; /* of an earlier worker */
    assert_int_equal(uv_timer_init(opts->loop, &world.e->handle), 0);
    world.e->handle.data = world.e;
    *out = world.e;
    return 0;
}

void encoders_submit(struct encoders *e, uint64_t seq)
{
    assert_true(seq >= e->wanted);
    e->wanted = seq;
}

void encoders_set_endpoint(struct encoders *e, bool have_endpoint)
{
    e->have_endpoint = have_endpoint;
}

void encoders_set_stopping(struct encoders *e, bool stopping)
{
    e->stopping = stopping;
}

void encoders_set_resting(struct encoders *e, bool resting)
{
    (void)e;
    (void)resting;
}

bool encoders_await(struct encoders *e)
{
    (void)e;
    return false;
}

void encoders_sync(struct encoders *e, encoders_synced_fn *fn, void *arg)
{
    (void)e;
    fn(arg, 0);
}

uint64_t encoders_done(const struct encoders *e)
{
    return e->done;
}

static void on_handle_closed(uv_handle_t *h)
{
    struct encoders *e = h->data;

    e->closed(e->closed_arg);
    free(e);
}

void encoders_stop(struct encoders *e, void (*closed)(void *arg), void *arg)
{
    e->closed = closed;
    e->closed_arg = arg;
    uv_close((uv_handle_t *)&e->handle, on_handle_closed);
}

void reader_order(struct reader *r, enum reader_order order, uint64_t token)
{
    (void)r;
    assert_int_equal(order, READER_RELEASE);
    assert_true(token > world.released);
    world.released = token;
}

const struct agg *reader_agg(const struct reader *r)
{
    (void)r;
    return NULL;
}

/* ---- Fixture ------------------------------------------------------------ */

struct fixture {
    uv_loop_t loop;
    struct parts *p;
};

static void on_encoded(void *arg, uint64_t seq)
{
    (void)arg;
    assert_int_equal(world.released, seq); /* given back before */
    world.encoded = seq;
}

static void on_closed(void *arg)
{
    (void)arg;
    world.n_closed++;
}

static void begin(struct fixture *f, uint64_t delay_ns)
{
    const struct parts_opts opts = {.delay_ns = delay_ns,
                                    .encoders = {.loop = &f->loop},
                                    .on_encoded = on_encoded};

    memset(&world, 0, sizeof(world));
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(parts_start(&f->p, &opts), 0);
}

static void end(struct fixture *f)
{
    parts_stop(f->p, on_closed, NULL);
    assert_int_equal(world.n_closed, 0);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(world.n_closed, 1);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static void wait_for_wanted(struct fixture *f, uint64_t seq)
{
    uint64_t end_ns = uv_hrtime() + PATIENCE_NS;

    while (world.e->wanted < seq) {
        assert_true(uv_hrtime() < end_ns);
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    }
}

static void done(uint64_t seq)
{
    world.e->done = seq;
    world.e->opts.done(world.e->opts.arg, seq);
}

/* ---- The tests ---------------------------------------------------------- */

static void a_part_waits_for_the_delay(void **state)
{
    struct fixture f;
    uint64_t began;

    (void)state;
    begin(&f, 60 * MS);
    assert_int_equal(parts_announced(f.p), 7);
    began = uv_hrtime();
    parts_announce(f.p, 8);
    assert_int_equal(parts_announced(f.p), 8);
    assert_int_equal(world.e->wanted, 0);
    wait_for_wanted(&f, 8);
    assert_true(uv_hrtime() - began >= 60 * MS);
    done(8);
    assert_int_equal(world.encoded, 8);
    assert_int_equal(parts_encoded(f.p), 8);
    end(&f);
}

static void parts_of_one_instant_go_together_and_later_ones_later(void **state)
{
    struct fixture f;
    uint64_t began;
    uint64_t second_ns;

    (void)state;
    begin(&f, 80 * MS);
    for (uint64_t seq = 8; seq < 20; seq++)
        parts_announce(f.p, seq);
    began = uv_hrtime();
    while (uv_hrtime() - began < 40 * MS)
        (void)uv_run(&f.loop, UV_RUN_NOWAIT);
    second_ns = uv_hrtime();
    parts_announce(f.p, 20);
    wait_for_wanted(&f, 8);
    assert_true(world.e->wanted >= 19);
    wait_for_wanted(&f, 20);
    assert_true(uv_hrtime() - second_ns >= 80 * MS);
    end(&f);
}

static void a_hurry_ends_all_waiting(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 3600 * 1000 * MS);
    parts_announce(f.p, 8);
    parts_announce(f.p, 9);
    assert_int_equal(world.e->wanted, 0);
    parts_hurry(f.p, true);
    assert_int_equal(world.e->wanted, 9);
    parts_announce(f.p, 10);
    assert_int_equal(world.e->wanted, 10);
    parts_hurry(f.p, false);
    parts_announce(f.p, 11);
    assert_int_equal(world.e->wanted, 10);
    assert_false(world.e->stopping);
    parts_set_stopping(f.p);
    assert_int_equal(world.e->wanted, 11);
    assert_true(world.e->stopping);
    parts_hurry(f.p, false); /* a flush that ends does not end the stop */
    parts_announce(f.p, 12);
    assert_int_equal(world.e->wanted, 12);
    end(&f);
}

static void instants_that_are_too_many_give_up_the_delay(void **state)
{
    struct fixture f;
    uint64_t seq = 7;
    uint64_t end_ns = uv_hrtime() + PATIENCE_NS;

    (void)state;
    begin(&f, 3600 * 1000 * MS);
    while (world.e->wanted == 0) {
        uint64_t from_ns = uv_hrtime();

        parts_announce(f.p, ++seq);
        while (uv_hrtime() - from_ns < 6 * MS)
            ;
        assert_true(uv_hrtime() < end_ns);
    }
    assert_int_equal(world.e->wanted, seq);
    end(&f);
}

static void a_part_that_is_done_after_the_stop_is_nobodys(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 0);
    parts_announce(f.p, 8);
    wait_for_wanted(&f, 8);
    parts_stop(f.p, on_closed, NULL);
    done(8); /* it was under way */
    assert_int_equal(world.released, 0);
    assert_int_equal(world.encoded, 0);
    assert_int_equal(uv_run(&f.loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(world.n_closed, 1);
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

static void an_encoder_that_does_not_start_leaves_nothing(void **state)
{
    struct fixture f = {.p = NULL};
    struct parts_opts opts = {.encoders = {.loop = &f.loop}};

    (void)state;
    memset(&world, 0, sizeof(world));
    world.start_rc = -EAGAIN;
    assert_int_equal(uv_loop_init(&f.loop), 0);
    assert_int_equal(parts_start(&f.p, &opts), -EAGAIN);
    assert_null(f.p);
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

static void a_key_that_comes_late_reaches_the_encoder(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 0);
    parts_set_endpoint(f.p, true);
    assert_true(world.e->have_endpoint);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_waits_for_the_delay),
        cmocka_unit_test(parts_of_one_instant_go_together_and_later_ones_later),
        cmocka_unit_test(a_hurry_ends_all_waiting),
        cmocka_unit_test(instants_that_are_too_many_give_up_the_delay),
        cmocka_unit_test(a_part_that_is_done_after_the_stop_is_nobodys),
        cmocka_unit_test(an_encoder_that_does_not_start_leaves_nothing),
        cmocka_unit_test(a_key_that_comes_late_reaches_the_encoder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
