/* SPDX-License-Identifier: Apache-2.0 */
/* flush --wait: who is answered when. Reader, parts, forwarder and clients are
 * stood for by counters, so every order of events can be played. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "agent/barrier.h"

/* ---- What the barrier talks to ------------------------------------------ */

static struct {
    int n_orders;
    uint64_t token;
    uint64_t announced, encoded;
    bool hurried;
    int n_waits, wait_rc;
    forwarder_idle_fn *settled;
    void *settled_arg;
    struct delivery_counts counts;
} world;

struct control_request {
    int n_answers;
    char text[256];
};

void reader_order(struct reader *r, enum reader_order order, uint64_t token)
{
    (void)r;
    assert_int_equal(order, READER_FLUSH);
    world.n_orders++;
    world.token = token;
}

void parts_hurry(struct parts *p, bool hurried)
{
    (void)p;
    world.hurried = hurried;
}

uint64_t parts_announced(const struct parts *p)
{
    (void)p;
    return world.announced;
}

uint64_t parts_encoded(const struct parts *p)
{
    (void)p;
    return world.encoded;
}

int forwarder_when_settled(struct forwarder *f, forwarder_idle_fn *fn,
                           void *arg)
{
    (void)f;
    world.n_waits++;
    world.settled = fn;
    world.settled_arg = arg;
    return world.wait_rc;
}

const struct delivery_counts *store_counts(const struct store *s)
{
    (void)s;
    return &world.counts;
}

void control_answer(struct control_request *rq, const char *text, size_t n)
{
    assert_in_range(n, 1, sizeof(rq->text) - 1);
    memcpy(rq->text, text, n);
    rq->text[n] = '\0';
    rq->n_answers++;
}

/* ---- Play --------------------------------------------------------------- */

static void begin(struct barrier *b)
{
    memset(&world, 0, sizeof(world));
    barrier_init(b, NULL, NULL, NULL, NULL);
}

/* The one that is under way goes to its end. */
static void deliver(struct barrier *b, uint64_t n_samples)
{
    barrier_closed(b, world.token, true);
    world.counts.delivered += n_samples;
    world.settled(world.settled_arg);
}

static void assert_flushed(const struct control_request *rq, bool flushed)
{
    assert_int_equal(rq->n_answers, 1);
    assert_non_null(strstr(rq->text, flushed ? "{\"flushed\":true,"
                                             : "{\"flushed\":false,"));
}

static void a_flush_that_was_declined_says_why(void **state)
{
    struct control_request rq[2] = {{0}};
    struct barrier b;

    (void)state;
    begin(&b);
    barrier_ask(&b, &rq[0]);
    barrier_ask(&b, &rq[1]); /* shares the next one */
    barrier_closed(&b, world.token, false);
    assert_flushed(&rq[0], false);
    assert_non_null(strstr(rq[0].text, "\"error\":\"more than one flush"));
    assert_int_equal(rq[1].n_answers, 0);
    deliver(&b, 1);
    assert_flushed(&rq[1], true);
    assert_null(strstr(rq[1].text, "error"));
}

static void a_flush_is_answered_behind_the_whole_pipeline(void **state)
{
    struct control_request rq = {0};
    struct barrier b;

    (void)state;
    begin(&b);
    world.counts.delivered = 1000;
    barrier_ask(&b, &rq);
    assert_int_equal(world.n_orders, 1);
    assert_true(world.hurried);
    world.announced = 3;
    world.encoded = 1;
    barrier_closed(&b, world.token, true);
    assert_int_equal(world.n_waits, 0); /* two parts are not encoded */
    world.encoded = 2;
    barrier_encoded(&b);
    assert_int_equal(world.n_waits, 0);
    world.encoded = 3;
    barrier_encoded(&b);
    barrier_encoded(&b);
    assert_int_equal(world.n_waits, 1);
    assert_int_equal(rq.n_answers, 0);
    world.counts.delivered = 1120;
    world.counts.points_delivered = 14;
    world.counts.payloads_sent = 2;
    world.settled(world.settled_arg);
    assert_flushed(&rq, true);
    assert_non_null(strstr(rq.text, "\"samples\":120,\"points\":14,"
                                    "\"payloads\":2,\"ambiguous\":0,"
                                    "\"duration_ms\":"));
    assert_string_equal(rq.text + strlen(rq.text) - 2, "}\n");
    assert_false(world.hurried);
}

static void requests_that_come_meanwhile_share_the_next(void **state)
{
    struct control_request rq[5] = {{0}};
    struct barrier b;

    (void)state;
    begin(&b);
    barrier_ask(&b, &rq[0]);
    barrier_ask(&b, &rq[1]);
    barrier_closed(&b, world.token, true);
    barrier_ask(&b, &rq[2]);
    world.settled(world.settled_arg);
    assert_flushed(&rq[0], true);
    assert_int_equal(rq[1].n_answers + rq[2].n_answers, 0);
    assert_int_equal(world.n_orders, 2);
    assert_true(world.hurried);
    barrier_ask(&b, &rq[3]);
    deliver(&b, 7);
    assert_flushed(&rq[1], true);
    assert_flushed(&rq[2], true);
    assert_int_equal(rq[3].n_answers, 0);
    deliver(&b, 7);
    assert_flushed(&rq[3], true);
    assert_int_equal(world.n_orders, 3);
    barrier_ask(&b, &rq[4]);
    assert_int_equal(world.n_orders, 4);
    deliver(&b, 7);
    assert_flushed(&rq[4], true);
}

static void all_clients_at_once_are_answered(void **state)
{
    struct control_request rq[CONTROL_MAX_CLIENTS] = {{0}};
    struct barrier b;

    (void)state;
    begin(&b);
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
        barrier_ask(&b, &rq[i]);
    deliver(&b, 1);
    deliver(&b, 1);
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
        assert_flushed(&rq[i], true);
    assert_int_equal(world.n_orders, 2);
}

static void who_left_is_not_answered_and_the_flush_goes_on(void **state)
{
    struct control_request rq[4] = {{0}};
    struct barrier b;

    (void)state;
    begin(&b);
    for (int i = 0; i < 4; i++)
        barrier_ask(&b, &rq[i]);
    barrier_forget(&b, &rq[0]); /* alone in the present one */
    barrier_forget(&b, &rq[2]);
    deliver(&b, 1);
    assert_int_equal(world.n_orders, 2);
    deliver(&b, 1);
    assert_int_equal(rq[0].n_answers + rq[2].n_answers, 0);
    assert_flushed(&rq[1], true);
    assert_flushed(&rq[3], true);
    /* Asked for in between and left at once: a flush follows all the same. */
    barrier_ask(&b, &rq[0]);
    barrier_ask(&b, &rq[2]);
    barrier_forget(&b, &rq[0]);
    barrier_forget(&b, &rq[2]);
    deliver(&b, 1);
    assert_int_equal(world.n_orders, 4);
    deliver(&b, 1);
    assert_false(world.hurried);
    assert_int_equal(rq[0].n_answers + rq[2].n_answers, 0);
}

static void other_answers_of_the_reader_mean_nothing(void **state)
{
    struct control_request rq = {0};
    struct barrier b;

    (void)state;
    begin(&b);
    barrier_closed(&b, 0, true);
    barrier_closed(&b, b.token, true);
    barrier_encoded(&b);
    assert_int_equal(world.n_waits, 0);
    barrier_ask(&b, &rq);
    barrier_closed(&b, world.token - 1, true); /* of an earlier one */
    barrier_closed(&b, 1, true);               /* of a stop */
    barrier_encoded(&b);
    assert_int_equal(world.n_waits, 0);
    deliver(&b, 1);
    assert_flushed(&rq, true);
}

static void short_memory_is_said_and_does_not_hold_up_the_next(void **state)
{
    struct control_request rq[2] = {{0}};
    struct barrier b;

    (void)state;
    begin(&b);
    barrier_ask(&b, &rq[0]);
    barrier_ask(&b, &rq[1]);
    world.wait_rc = -ENOMEM;
    barrier_closed(&b, world.token, true);
    assert_flushed(&rq[0], false);
    world.wait_rc = 0;
    deliver(&b, 1);
    assert_flushed(&rq[1], true);
}

static void an_end_answers_everybody_at_each_step(void **state)
{
    (void)state;
    for (int step = 0; step < 3; step++) {
        struct control_request rq[CONTROL_MAX_CLIENTS] = {{0}};
        struct barrier b;

        begin(&b);
        for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
            barrier_ask(&b, &rq[i]);
        world.announced = 1;
        if (step > 0)
            barrier_closed(&b, world.token, true);
        world.encoded = 1;
        if (step > 1)
            barrier_encoded(&b);
        barrier_abort(&b);
        for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
            assert_flushed(&rq[i], false);
        barrier_closed(&b, world.token, true); /* late news */
        barrier_encoded(&b);
        if (world.settled != NULL)
            world.settled(world.settled_arg);
        for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
            assert_int_equal(rq[i].n_answers, 1);
        assert_int_equal(world.n_orders, 1);
        barrier_abort(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flush_is_answered_behind_the_whole_pipeline),
        cmocka_unit_test(a_flush_that_was_declined_says_why),
        cmocka_unit_test(requests_that_come_meanwhile_share_the_next),
        cmocka_unit_test(all_clients_at_once_are_answered),
        cmocka_unit_test(who_left_is_not_answered_and_the_flush_goes_on),
        cmocka_unit_test(other_answers_of_the_reader_mean_nothing),
        cmocka_unit_test(short_memory_is_said_and_does_not_hold_up_the_next),
        cmocka_unit_test(an_end_answers_everybody_at_each_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
