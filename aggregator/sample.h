/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one DogStatsD line says: views into the packet, nothing copied.
 *
 * Thread:  plain data, no thread of its own.
 * Memory:  every view borrows from the packet (and values[] from the parser)
 *          and is valid until the next line is parsed.
 * Promise: numbers are finite, @rate is in (0, 1], a timestamp is >= 1 or 0
 *          for none. Text is as the client wrote it, not yet valid UTF-8.
 */
#ifndef RETRIEVER_AGGREGATOR_SAMPLE_H
#define RETRIEVER_AGGREGATOR_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

/** Borrowed bytes, not NUL terminated; p may be NULL only when n is 0. */
struct view {
    const char *p;
    uint32_t n;
};

/** What the client asked for by its type symbol. */
enum metric_type {
    METRIC_COUNTER,      /* c */
    METRIC_GAUGE,        /* g */
    METRIC_HISTOGRAM,    /* h */
    METRIC_TIMING,       /* ms: a histogram in milliseconds */
    METRIC_SET,          /* s */
    METRIC_DISTRIBUTION, /* d */
    METRIC_N_TYPES
};

/** One metric line. A packed line has several values of one context. */
struct sample {
    struct view name;
    struct view tags; /* after '#', commas inside; n = 0: none */
    enum metric_type type;
    bool bad_rate; /* @ was <= 0 or > 1 and is taken as 1 */
    double rate;
    int64_t ts_s;              /* T, unix seconds; 0 = none */
    const double *values;      /* n_values of them; unused for sets */
    uint32_t n_values;         /* >= 1; always 1 for sets */
    struct view member;        /* sets: the one member, colons included */
    struct view local_data;    /* c: */
    struct view external_data; /* e: */
    struct view cardinality;   /* card: */
};

enum event_priority { EVENT_NORMAL, EVENT_LOW };
enum event_alert { EVENT_INFO, EVENT_ERROR, EVENT_WARNING, EVENT_SUCCESS };

/** One _e{ line. Title and text hold the two characters '\' 'n' unchanged:
 *  who stores them turns each such pair into a line feed. */
struct event {
    struct view title, text;
    struct view tags, host, aggregation_key, source_type;
    struct view local_data, external_data, cardinality;
    int64_t ts_s; /* 0 = not given */
    enum event_priority priority;
    enum event_alert alert;
};

/** One _sc line. */
struct check {
    struct view name, message, tags, host;
    struct view local_data, external_data, cardinality;
    int64_t ts_s;   /* 0 = not given */
    uint8_t status; /* 0 ok, 1 warning, 2 critical, 3 unknown */
};

#endif
