/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages from many threads to one: bounded, in order, closed once.
 *
 * A message is any struct with a struct list in it. The consumer either blocks
 * in mailbox_wait() (a thread of its own), or is rung by the wake callback and
 * empties the box with mailbox_take() (a loop; bells may coalesce, so it takes
 * until NULL).
 *
 * Thread:  post and close by any thread; take and wait by one consumer.
 * Memory:  messages are the poster's until the post returned 0, then the
 *          consumer's; at most max_messages wait.
 * Promise: messages of one poster arrive in its order; everything accepted
 *          before the close is still handed out after it.
 */
#ifndef RETRIEVER_AGENT_BASE_MAILBOX_H
#define RETRIEVER_AGENT_BASE_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "agent/base/list.h"

enum mailbox_rc { MAILBOX_FULL = 1, MAILBOX_CLOSED };

/** Called without the lock, on the poster's thread, when the box was empty
 *  before its post, and by mailbox_close(). Must not block. */
typedef void mailbox_wake_fn(void *arg);

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct list messages;
    size_t n_messages;
    size_t max_messages;
    bool closed;
    mailbox_wake_fn *wake;
    void *arg;
};

/** @wake may be NULL (the consumer waits). */
void mailbox_init(struct mailbox *m, size_t max_messages, mailbox_wake_fn *wake,
                  void *arg);

/** No thread uses it any more and it is empty. */
void mailbox_fini(struct mailbox *m);

/** Hand @message over. Returns 0, MAILBOX_FULL or MAILBOX_CLOSED (then it stays
 *  the caller's, who counts what is lost by that). */
int mailbox_post(struct mailbox *m, struct list *message);

/** The oldest message, or NULL when there is none now. */
struct list *mailbox_take(struct mailbox *m);

/** Block for the oldest message; NULL: closed and empty, for ever. */
struct list *mailbox_wait(struct mailbox *m);

/** No more posts. Further calls do nothing. */
void mailbox_close(struct mailbox *m);

#endif
