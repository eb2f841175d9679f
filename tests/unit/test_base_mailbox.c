/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/base/mailbox.h"

#define N_PRODUCERS 4
#define N_EACH 5000

struct message {
    struct list link;
    int from, n;
};

static void count_wake(void *arg)
{
    atomic_fetch_add((_Atomic int *)arg, 1);
}

static void bell_rings_when_the_box_was_empty(void **state)
{
    struct mailbox m;
    struct message a, b, c;
    _Atomic int n_rung = 0;

    (void)state;
    mailbox_init(&m, 2, count_wake, &n_rung);
    assert_null(mailbox_take(&m));
    assert_int_equal(mailbox_post(&m, &a.link), 0);
    assert_int_equal(mailbox_post(&m, &b.link), 0);
    assert_int_equal(mailbox_post(&m, &c.link), MAILBOX_FULL);
    assert_int_equal(n_rung, 1);
    assert_ptr_equal(mailbox_take(&m), &a.link);
    assert_ptr_equal(mailbox_take(&m), &b.link);
    assert_null(mailbox_take(&m));
    assert_int_equal(mailbox_post(&m, &c.link), 0);
    assert_int_equal(n_rung, 2);
    assert_ptr_equal(mailbox_take(&m), &c.link);
    mailbox_fini(&m);
}

static void what_was_accepted_is_handed_out_after_the_close(void **state)
{
    struct mailbox m;
    struct message a, b;
    _Atomic int n_rung = 0;

    (void)state;
    mailbox_init(&m, 2, count_wake, &n_rung);
    assert_int_equal(mailbox_post(&m, &a.link), 0);
    mailbox_close(&m);
    mailbox_close(&m);
    assert_int_equal(n_rung, 2); /* the post and one close */
    assert_int_equal(mailbox_post(&m, &b.link), MAILBOX_CLOSED);
    assert_ptr_equal(mailbox_wait(&m), &a.link);
    assert_null(mailbox_wait(&m));
    assert_null(mailbox_wait(&m));
    mailbox_fini(&m);
}

struct producer {
    struct mailbox *m;
    int id;
    pthread_t thread;
};

static void *produce(void *arg)
{
    struct producer *p = arg;

    for (int i = 0; i < N_EACH; i++) {
        struct message *msg = malloc(sizeof(*msg));

        if (msg == NULL)
            abort();
        msg->from = p->id;
        msg->n = i;
        while (mailbox_post(p->m, &msg->link) == MAILBOX_FULL)
            sched_yield();
    }
    return NULL;
}

struct consumer {
    struct mailbox *m;
    int next[N_PRODUCERS];
    int n_wrong;
};

static void *consume(void *arg)
{
    struct consumer *c = arg;
    struct list *l;

    while ((l = mailbox_wait(c->m)) != NULL) {
        struct message *msg = LIST_ENTRY(l, struct message, link);

        if (msg->n != c->next[msg->from]++)
            c->n_wrong++;
        free(msg);
    }
    return NULL;
}

static void many_producers_keep_their_order_and_lose_nothing(void **state)
{
    struct mailbox m;
    struct producer p[N_PRODUCERS];
    struct consumer c = {.m = &m};
    pthread_t thread;

    (void)state;
    mailbox_init(&m, 16, NULL, NULL);
    assert_int_equal(pthread_create(&thread, NULL, consume, &c), 0);
    for (int i = 0; i < N_PRODUCERS; i++) {
        p[i] = (struct producer){.m = &m, .id = i};
        assert_int_equal(pthread_create(&p[i].thread, NULL, produce, &p[i]), 0);
    }
    for (int i = 0; i < N_PRODUCERS; i++)
        assert_int_equal(pthread_join(p[i].thread, NULL), 0);
    mailbox_close(&m);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(c.n_wrong, 0);
    for (int i = 0; i < N_PRODUCERS; i++)
        assert_int_equal(c.next[i], N_EACH);
    mailbox_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bell_rings_when_the_box_was_empty),
        cmocka_unit_test(what_was_accepted_is_handed_out_after_the_close),
        cmocka_unit_test(many_producers_keep_their_order_and_lose_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
