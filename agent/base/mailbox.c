/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/mailbox.h"

#include "agent/base/contract.h"

void mailbox_init(struct mailbox *m, size_t max_messages, mailbox_wake_fn *wake,
                  void *arg)
{
    REQUIRE(max_messages > 0);
    REQUIRE(pthread_mutex_init(&m->lock, NULL) == 0);
    REQUIRE(pthread_cond_init(&m->filled, NULL) == 0);
    list_init(&m->messages);
    m->n_messages = 0;
    m->max_messages = max_messages;
    m->closed = false;
    m->wake = wake;
    m->arg = arg;
}

void mailbox_fini(struct mailbox *m)
{
    REQUIRE(list_empty(&m->messages));
    pthread_cond_destroy(&m->filled);
    pthread_mutex_destroy(&m->lock);
}

static void lock(struct mailbox *m)
{
    REQUIRE(pthread_mutex_lock(&m->lock) == 0);
}

static void unlock(struct mailbox *m)
{
    REQUIRE(pthread_mutex_unlock(&m->lock) == 0);
}

int mailbox_post(struct mailbox *m, struct list *message)
{
    bool was_empty;
    int rc = 0;

    lock(m);
    was_empty = m->n_messages == 0;
    if (m->closed) {
        rc = MAILBOX_CLOSED;
    } else if (m->n_messages == m->max_messages) {
        rc = MAILBOX_FULL;
    } else {
        list_add_tail(&m->messages, message);
        m->n_messages++;
        pthread_cond_signal(&m->filled);
    }
    unlock(m);
    if (rc == 0 && was_empty && m->wake != NULL)
        m->wake(m->arg);
    return rc;
}

static struct list *pop(struct mailbox *m)
{
    struct list *message = list_pop(&m->messages);

    if (message != NULL)
        m->n_messages--;
    return message;
}

struct list *mailbox_take(struct mailbox *m)
{
    struct list *message;

    lock(m);
    message = pop(m);
    unlock(m);
    return message;
}

struct list *mailbox_wait(struct mailbox *m)
{
    struct list *message;

    lock(m);
    while (m->n_messages == 0 && !m->closed)
        pthread_cond_wait(&m->filled, &m->lock);
    message = pop(m);
    unlock(m);
    return message;
}

void mailbox_close(struct mailbox *m)
{
    bool was_closed;

    lock(m);
    was_closed = m->closed;
    m->closed = true;
    pthread_cond_broadcast(&m->filled);
    unlock(m);
    if (!was_closed && m->wake != NULL)
        m->wake(m->arg);
}
