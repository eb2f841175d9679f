/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A streaming JSON writer into a buffer.
 *
 *   json_init(&j, &b);
 *   json_object(&j);
 *   json_key(&j, "n");
 *   json_u64(&j, 3);
 *   json_end(&j);
 *   rc = json_finish(&j);         {"n":3}
 *
 * Commas are its business, nesting is the caller's duty (checked).
 *
 * Thread:  one owner.
 * Memory:  the buffer's alone; at most JSON_MAX_DEPTH levels.
 * Promise: what json_finish() accepts is one valid JSON value in valid UTF-8,
 *          whatever bytes the strings had: each malformed sequence becomes
 *          U+FFFD.
 */
#ifndef RETRIEVER_AGENT_BASE_JSON_H
#define RETRIEVER_AGENT_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"

#define JSON_MAX_DEPTH 63

struct json {
    struct buf *out;
    uint64_t is_object;  /* bit d: level d is an object, else an array */
    uint64_t has_member; /* bit d: a comma is due before the next one */
    unsigned depth;
    bool after_key;
};

/** Start behind what @out holds; @out is borrowed until json_finish(). */
void json_init(struct json *j, struct buf *out);

/** Returns 0, or -ENOMEM when anything did not fit into the buffer (its content
 *  is then of no use). All levels must be closed. */
int json_finish(struct json *j);

void json_object(struct json *j);
void json_array(struct json *j);

/** Close the innermost object or array. */
void json_end(struct json *j);

/** Name the next value; only and always inside an object. */
void json_key(struct json *j, const char *key);

void json_str(struct json *j, const char *s);
void json_strn(struct json *j, const char *p, size_t n);
void json_i64(struct json *j, int64_t v);
void json_u64(struct json *j, uint64_t v);
/** Shortest form that reads back as the same double; not finite: null. */
void json_double(struct json *j, double v);
void json_bool(struct json *j, bool v);
void json_null(struct json *j);
/** @p is one JSON value already. */
void json_raw(struct json *j, const char *p, size_t n);

/** Key and value in one. */
void json_member_str(struct json *j, const char *key, const char *s);
void json_member_u64(struct json *j, const char *key, uint64_t v);
void json_member_i64(struct json *j, const char *key, int64_t v);
void json_member_double(struct json *j, const char *key, double v);
void json_member_bool(struct json *j, const char *key, bool v);

/** Append @n bytes to @out as a quoted and escaped JSON string. */
void json_quote(struct buf *out, const char *p, size_t n);

#endif
