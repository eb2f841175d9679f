/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a reply that Retriever reads itself: bytes of whoever answers.
 *
 * Thread:  any; pure functions.
 * Memory:  buffers of the caller.
 * Promise: total: any bytes give a result within its bounds.
 */
#ifndef RETRIEVER_FORWARDER_HTTP_REPLY_H
#define RETRIEVER_FORWARDER_HTTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** If @line (@n bytes of one header, not terminated) is the header @name (any
 *  case, without the colon), its value without blanks around it. */
bool http_reply_header(const char *line, size_t n, const char *name,
                       const char **value, size_t *n_value);

/** Retry-After: seconds, or a date (RFC 9110, IMF-fixdate). Returns ms from
 *  @now_s (wall clock) on, UINT32_MAX at most; 0 when the date is over or the
 *  bytes are neither. */
uint32_t http_reply_retry_after_ms(const char *value, size_t n, int64_t now_s);

/** A reply's body as one printable ASCII line: blanks for control characters,
 *  '?' for what is beyond ASCII, cut to @size - 1 bytes. Returns its length. */
size_t http_reply_excerpt(const char *body, char *out, size_t size);

#endif
