/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers in DogStatsD lines: the syntax of Go's strconv.ParseFloat and
 * ParseInt, which is what the Agent accepts, correctly rounded, whatever their
 * length.
 *
 * Thread:  pure functions.
 * Memory:  none; about 1 KiB of stack for rare forms.
 * Promise: total, never reads outside the bytes given, no locale, bit-equal to
 *          strconv.ParseFloat(s, 64). Time is linear in the length.
 *
 * Beyond plain decimals the syntax has: underscores between digits (1_000),
 * hexadecimal with a binary exponent (0x1.8p1), and inf, infinity and nan in
 * any case. No white space. A decimal beyond the range of double is no number;
 * one too small is 0.
 */
#ifndef RETRIEVER_AGGREGATOR_NUMBER_H
#define RETRIEVER_AGGREGATOR_NUMBER_H

#include <stddef.h>
#include <stdint.h>

enum number_rc {
    NUMBER_OK,
    NUMBER_BAD,        /* no number, or beyond the range of the type */
    NUMBER_NOT_FINITE, /* spelled inf or nan */
};

/** All @n bytes at @p as one number. *out is untouched unless NUMBER_OK. */
enum number_rc number_parse(double *out, const char *p, size_t n);

/** The number that begins at *p and ends before the first ':' or at @end. On
 *  NUMBER_OK *p is moved to that place; else *p and *out are untouched. */
enum number_rc number_parse_next(double *out, const char **p, const char *end);

/** All @n bytes as decimal digits with an optional sign. Returns NUMBER_OK or
 *  NUMBER_BAD, which leaves *out untouched. */
enum number_rc number_parse_int(int64_t *out, const char *p, size_t n);

#endif
