/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DogStatsD lines (protocol 1.0 to 1.6) to samples, events and checks.
 *
 * Thread:  one parser object belongs to one thread; no shared state.
 * Memory:  nothing is allocated after dsd_parser_init(); results borrow from
 *          the line and from the parser until its next call.
 * Promise: total: every byte string gives a result or one reject reason, in
 *          time linear in its length; never logs; never reads outside
 *          [line, line + n). Independent of the locale.
 */
#ifndef RETRIEVER_AGGREGATOR_DSD_PARSE_H
#define RETRIEVER_AGGREGATOR_DSD_PARSE_H

#include <stddef.h>

#include "aggregator/sample.h"

/**
 * What a line turned out to be. From DSD_PARSE_* on: why it was rejected. The
 * closed list of reject reasons (the receipt prints them in lower case without
 * "dsd_"); the last five are found outside the parser but counted with it.
 */
enum dsd_result {
    DSD_METRIC,
    DSD_EVENT,
    DSD_CHECK,
    DSD_EMPTY,           /* empty line: nothing to count */
    DSD_PARSE_STRUCTURE, /* no '|', no ':' or too few fields */
    DSD_PARSE_NAME,      /* empty name */
    DSD_PARSE_VALUE,     /* value missing or not a number */
    DSD_PARSE_TYPE,      /* type symbol unknown */
    DSD_PARSE_RATE,      /* @ not a number */
    DSD_PARSE_TIMESTAMP, /* T not an integer >= 1 */
    DSD_PARSE_EVENT,     /* event header or lengths wrong */
    DSD_PARSE_CHECK,     /* service check malformed */
    DSD_UNTERMINATED,    /* last line without LF though eol is required */
    DSD_UNSUPPORTED,     /* T on a type other than c and g */
    DSD_NAN,             /* value not finite */
    DSD_NAME,            /* name too long or without a letter */
    DSD_FUTURE,          /* T more than 600 s ahead */
    DSD_POISON,          /* two workers died at this record */
    DSD_TRUNCATED,       /* the kernel cut the datagram inside this line */
    DSD_N_RESULTS
};

#define DSD_FIRST_REJECT DSD_PARSE_STRUCTURE

/** Name of a result as in receipt and logs, e.g. "parse_type"; static text. */
const char *dsd_reject_name(enum dsd_result reason);

struct dsd_parser_opts {
    bool origin_client;  /* read c:, e: and card: (else skipped) */
    bool no_aggregation; /* read T (else skipped unread) */
    /* Longest line ever given; sizes values[]. A longer line with more values
     * than that is rejected as DSD_PARSE_VALUE. */
    uint32_t max_line_bytes;
};

struct dsd_parser {
    struct dsd_parser_opts opts;
    double *values;
    uint32_t max_values;
    union { /* the result of the last dsd_parse() */
        struct sample sample;
        struct event event;
        struct check check;
    };
};

/** Allocate the scratch (4 bytes per byte of the longest line); @opts is
 *  copied. Returns 0, or -ENOMEM and *p is untouched. */
int dsd_parser_init(struct dsd_parser *p, const struct dsd_parser_opts *opts);

/** Free the scratch; results must not be used any more. */
void dsd_parser_fini(struct dsd_parser *p);

/** Parse one line without its LF (a trailing CR is removed here). The result
 *  lies in p->sample, p->event or p->check as the return value says; after any
 *  other return value none of them means anything. A line is rejected as a
 *  whole: one bad value of a packed line costs all of them. Of several faults
 *  the type's names the reason, else the first from the left; DSD_NAN gives way
 *  to DSD_PARSE_VALUE. */
enum dsd_result dsd_parse(struct dsd_parser *p, const char *line, size_t n);

/** The @ field. false: no number at all (both untouched). */
bool dsd_parse_rate(double *rate, bool *bad, struct view v);

#endif
