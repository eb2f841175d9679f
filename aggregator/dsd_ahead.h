/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The short way through lines, for what nearly all are: a metric of at most 127
 * bytes with one value. It reads several at once, with the hashes that their
 * contexts are found by, so that these can be looked up at once, too.
 *
 * Thread:  pure functions.
 * Memory:  views borrow from the lines.
 * Promise: either what dsd_parse() would give, or nothing: then dsd_parse() knows.
 *          All forms give the same, but for the hashes. Bytes behind the lines are
 *          looked at only where they share a page with them, or where all of the
 *          memory is said to be readable, and change nothing.
 */
#ifndef RETRIEVER_AGGREGATOR_DSD_AHEAD_H
#define RETRIEVER_AGGREGATOR_DSD_AHEAD_H

#include "aggregator/context.h"
#include "aggregator/dsd_parse.h"
#include "aggregator/spelling.h"

#define DSD_AHEAD_LINES 32u                      /* at once */
#define DSD_AHEAD_MAX_BYTES 127u                 /* of a line, without its LF */
#define DSD_AHEAD_BYTES (DSD_AHEAD_LINES * 128u) /* of all of them, at most */

/** A line read ahead of its turn. */
struct dsd_ahead {
    const char *name, *tags;
    struct hash128 hash; /* of the spelling: name, tags, type */
    union {
        struct view member; /* sets */
        double value;       /* all others */
    };
    double rate; /* if it is_rated; else 1 */
    union {
        struct {
            uint8_t n_tags, n_name;
            uint8_t type; /* enum metric_type */
            uint8_t zero;
        };
        char rest[4]; /* the four in one: what is hashed beside the text */
    };
    bool is_rated;
    bool bad_rate;   /* if it is_rated */
    uint8_t n_bytes; /* of the line, with its LF */
};
_Static_assert(sizeof(struct dsd_ahead) <= 64, "one cache line");

/** Bytes where they lie, @record of their landing zone; behind it comes @next. */
struct dsd_packet {
    const char *p;
    uint32_t n;
    uint32_t record, next;
};

/** Memory all of which can be read, packets or not; both NULL: none is known. */
struct dsd_readable {
    const char *begin, *end;
};

/** What it has to know. */
struct dsd_ahead_opts {
    const struct dsd_parser_opts *parser;
    const struct spelling_key *key;
    unsigned class;    /* goes into them beside the type */
    bool may_end_bare; /* a packet's last line needs no LF */
    struct dsd_readable readable;
    struct spellings spellings; /* of which lines are asked for */
};

/** Lines that were read: those of packet i end at ends[i], if all of its lines
 *  are there. */
struct dsd_ahead_lines {
    uint32_t n;
    uint32_t n_packets; /* of which all lines are there */
    uint64_t n_bytes;   /* of these packets */
    uint32_t ends[DSD_AHEAD_LINES];
    struct dsd_ahead lines[DSD_AHEAD_LINES];
};

/** Read the lines of the @n packets at @in, which lie one behind the other, up to
 *  the first unusual one. *working is always the record that is looked at; the last
 *  one, while bytes that were looked at are hashed. */
typedef void dsd_ahead_fn(const struct dsd_ahead_opts *o,
                          struct dsd_ahead_lines *out,
                          const struct dsd_packet *in, uint32_t n,
                          uint32_t *working);

/** One of the ways to do it: by what the processor has. */
struct dsd_ahead_form {
    dsd_ahead_fn *read;
    spelling_hash_fn *hash; /* as the lines that it reads are hashed */
};

/** Form @i that this processor can run, the best one first; NULL behind the
 *  last. */
const struct dsd_ahead_form *dsd_ahead_form(unsigned i);

static inline struct view dsd_ahead_name(const struct dsd_ahead *d)
{
    return (struct view){.p = d->name, .n = d->n_name};
}

/** Its pointer says nothing where there are none. */
static inline struct view dsd_ahead_tags(const struct dsd_ahead *d)
{
    return (struct view){.p = d->tags, .n = d->n_tags};
}

/** Into *@s, of which all else is zero, and stays so, but for the member of a set
 *  before; borrows from @d, too. Field by field: for a struct of this size compilers
 *  emit "rep stos". */
static inline void dsd_ahead_fill(struct sample *s, const struct dsd_ahead *d)
{
    s->name = dsd_ahead_name(d);
    s->tags = d->n_tags > 0 ? dsd_ahead_tags(d) : (struct view){NULL, 0};
    s->type = (enum metric_type)d->type;
    s->bad_rate = d->is_rated && d->bad_rate;
    s->rate = d->is_rated ? d->rate : 1;
    s->values = &d->value;
    s->n_values = 1;
    if (d->type == METRIC_SET)
        s->member = d->member;
}

#endif
