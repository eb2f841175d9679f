/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each sender has lost so far, as last read from the kernel: the difference to
 * the next reading is what is new. Holds the senders against the totals, ranks
 * them, and lets go of those that have been quiet for long.
 *
 * A reading goes: drop_senders_total() per transport, drop_senders_update() per
 * sender, then drop_senders_unknown() per transport. In that order a loss that
 * happens meanwhile is found with its sender first, and never counts as unknown.
 *
 * Thread:  one.
 * Memory:  at most DROP_MAX_SENDERS entries, made at a sender's first loss. Without
 *          memory for one its losses are unknown.
 * Promise: all differences given out, senders and unknown, add up to the totals.
 *          Nothing goes backwards.
 */
#ifndef RETRIEVER_BPF_DROP_SENDERS_H
#define RETRIEVER_BPF_DROP_SENDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/events.h"

#define DROP_TOP 10
#define DROP_ADDRESS_BYTES 64 /* "[ff02::1]:65535" */
#define DROP_TAGS_BYTES 512

struct drop_sender {
    enum drop_transport transport;
    uint32_t pid;                     /* initial namespace; 0 = not known */
    char comm[16];                    /* of the process; "" = not known */
    char address[DROP_ADDRESS_BYTES]; /* when the process is not known, or "" */
    char tags[DROP_TAGS_BYTES]; /* of its container or unit; longer ones: "" */
    struct drop_total lost;
};

struct drop_report {
    struct drop_total lost[DROP_N_TRANSPORTS];
    struct drop_total
        unknown[DROP_N_TRANSPORTS]; /* part of it, by nobody known */
    uint32_t n_top;
    struct drop_sender top[DROP_TOP]; /* most datagrams first */
};

struct drop_entry {
    struct drop_entry *next;
    struct drop_key key;
    char comm[16];
    char *tags; /* NULL = not asked for yet */
    struct drop_total lost;
    uint64_t n_told;  /* of its datagrams, in lines of the log */
    uint32_t n_quiet; /* readings in a row without news */
};

struct drop_senders;

/** Returns 0 or -ENOMEM. */
int drop_senders_create(struct drop_senders **out);

/** NULL-safe. */
void drop_senders_close(struct drop_senders *s);

void drop_senders_total(struct drop_senders *s, enum drop_transport transport,
                        const struct drop_total *total);

/** The counters of @key read @v. Returns its entry, borrowed until
 *  drop_senders_forget(), with what is new in *more; NULL: no room. */
struct drop_entry *drop_senders_update(struct drop_senders *s,
                                       const struct drop_key *key,
                                       const struct drop_value *v,
                                       struct drop_total *more);

/** Copy @tags. */
void drop_senders_name(struct drop_entry *e, const char *tags);

/** What is new in the totals and was in no sender. */
void drop_senders_unknown(struct drop_senders *s, enum drop_transport transport,
                          struct drop_total *more);

/** When there is little room left: @gone is called with each sender that lost
 *  nothing in the last @n_quiet readings and is not among the worst; then it is
 *  forgotten. */
typedef void drop_gone_fn(void *arg, const struct drop_key *key);
void drop_senders_forget(struct drop_senders *s, uint32_t n_quiet,
                         drop_gone_fn *gone, void *arg);

void drop_senders_report(const struct drop_senders *s, struct drop_report *out);

/** See drop_top() in drop.h. */
bool drop_senders_top(struct drop_senders *s, char *line, size_t size);

#endif
