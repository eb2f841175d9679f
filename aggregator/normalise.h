/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the intake spells names and tags: the one table behind the wire identity
 * (two contexts that the intake would see as one series) and behind the
 * stand-in intake. It decides identity only: what is sent stays as the client
 * wrote it, except for utf8_clean() and the limits in context.h.
 *
 * Thread:  pure functions.
 * Memory:  the caller's buffers; output never longer than the bound given.
 *
 * name: bytes outside [A-Za-z0-9_.] become '_', leading non-letters dropped,
 *       runs of '_' and '_' beside '.' collapsed, cut at 350.
 * tag:  ASCII lower case, characters (not bytes) outside letters, digits and
 *       "_-:./" become '_', cut at 200 bytes between characters, then trailing
 *       '_' dropped. Beyond ASCII every character counts as a letter and is
 *       kept as it is, but for those of the blocks of spaces, punctuation,
 *       symbols, emoji and private use; what is no valid UTF-8 counts as U+FFFD
 *       does.
 *
 * Promise: total for any bytes; input and output must not overlap. A tag and
 *          its utf8_clean() form have the same normal form.
 */
#ifndef RETRIEVER_AGGREGATOR_NORMALISE_H
#define RETRIEVER_AGGREGATOR_NORMALISE_H

#include <stddef.h>

#define NORMALISE_NAME_MAX 350
#define NORMALISE_TAG_MAX 200

/** Write the normal form of @in to @out (NORMALISE_NAME_MAX bytes). Returns its
 *  length; 0 when nothing is left (the intake would refuse the name). */
size_t normalise_name(char *out, const char *in, size_t n);

/** Write the normal form of @in to @out (NORMALISE_TAG_MAX bytes). Returns its
 *  length; 0 = an empty tag, which the intake drops. */
size_t normalise_tag(char *out, const char *in, size_t n);

/** Copy @in to @out with each invalid UTF-8 sequence replaced by U+FFFD (one
 *  for the longest start of a character, as the Unicode Standard recommends),
 *  cut at a character boundary to at most @max bytes. Returns the length;
 *  *n_bad is increased by the number of replacements and *cut set to 1 when
 *  bytes were cut, else untouched. NUL counts as valid. */
size_t utf8_clean(char *out, size_t max, const char *in, size_t n,
                  unsigned *n_bad, int *cut);

/** 1 when @in is valid UTF-8 (no surrogates, no overlong forms). */
int utf8_valid(const char *in, size_t n);

#endif
