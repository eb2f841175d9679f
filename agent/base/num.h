/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict parsing of numbers in configuration text. The whole string must be the
 * number: no leading or trailing space, no hexadecimal, no silent overflow.
 * (Values of samples are parsed elsewhere: aggregator/number.h.)
 *
 * Thread:  any.
 * Memory:  none.
 * Promise: total over all strings; on failure *out is untouched.
 */
#ifndef RETRIEVER_AGENT_BASE_NUM_H
#define RETRIEVER_AGENT_BASE_NUM_H

#include <stdbool.h>
#include <stdint.h>

enum num_rc {
    NUM_SYNTAX = 1, /* not a number of that kind */
    NUM_RANGE       /* one that does not fit */
};

/** Decimal digits with an optional sign. Returns 0 or enum num_rc; so do all. */
int num_parse_i64(const char *s, int64_t *out);

/** Decimal digits, no sign. */
int num_parse_u64(const char *s, uint64_t *out);

/** Decimal number with optional fraction and exponent; always finite. */
int num_parse_double(const char *s, double *out);

/** 1 t T TRUE true True, 0 f F FALSE false False, as Go's strconv.ParseBool. */
int num_parse_bool(const char *s, bool *out);

/** Go's time.ParseDuration (`1m30s`, `100ms`, `1.5h`, `-2s`; units ns us ms s m
 *  h), or a plain decimal number of seconds. May be negative. */
int num_parse_duration_ns(const char *s, int64_t *out);

/** Bytes: digits with an optional unit b, k, kb, kib, and so on to t, tb, tib, in
 *  either case, a space between allowed. A step is 1024 in all spellings. */
int num_parse_size_bytes(const char *s, uint64_t *out);

#endif
