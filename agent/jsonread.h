/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a JSON text into a tree, for the stand-in intake: the JSON payloads it
 * is sent, its control messages and the totals it is told to expect.
 *
 * Thread:  any, one document per thread.
 * Memory:  nodes and unescaped strings lie in the document and are freed by
 *          jsonread_fini(). At most max_nodes nodes and the size of the text
 *          for strings. The text itself must outlive the document.
 * Promise: strict RFC 8259: no comments, no NaN, no trailing comma, at most
 *          JSONREAD_DEPTH_MAX levels. Strings are valid UTF-8. A key given
 *          twice keeps both members; jsonread_get() finds the last.
 */
#ifndef RETRIEVER_AGENT_JSONREAD_H
#define RETRIEVER_AGENT_JSONREAD_H

#include <stddef.h>
#include <stdint.h>

#define JSONREAD_DEPTH_MAX 32

enum jsonread_type {
    JSONREAD_NULL,
    JSONREAD_FALSE,
    JSONREAD_TRUE,
    JSONREAD_NUMBER,
    JSONREAD_STRING,
    JSONREAD_ARRAY,
    JSONREAD_OBJECT
};

struct jsonread_node {
    enum jsonread_type type;
    uint32_t n;          /* bytes of a string; children of the others */
    const char *text;    /* string: unescaped bytes, not terminated */
    double number;       /* JSONREAD_NUMBER; infinite when out of range */
    const char *key;     /* inside an object: the member's name */
    uint32_t n_key;      /* its bytes */
    uint32_t next;       /* index of the next sibling, 0 = none */
    uint32_t child;      /* index of the first child, 0 = none */
    uint32_t raw, n_raw; /* where the value stands in the text */
};

struct jsonread {
    const char *text;
    size_t n_text, at;
    struct jsonread_node *nodes;
    uint32_t n_nodes, cap_nodes, max_nodes;
    char *strings; /* unescaped strings, as long as the text at most */
    size_t n_strings;
    const char *error; /* a few static words; NULL = none */
};

enum jsonread_rc { JSONREAD_BAD = 1 };

/** Parse @n bytes at @text (borrowed until fini). Returns 0, JSONREAD_BAD
 *  (d->error and d->at say what and where) or -ENOMEM. jsonread_fini() is due
 *  in every case. */
int jsonread_parse(struct jsonread *d, const char *text, size_t n,
                   uint32_t max_nodes);

/** NULL-safe and repeatable. */
void jsonread_fini(struct jsonread *d);

/** The document's value; only after jsonread_parse() returned 0. */
const struct jsonread_node *jsonread_root(const struct jsonread *d);

/** First child, and the sibling behind @v; NULL at the end. */
const struct jsonread_node *jsonread_child(const struct jsonread *d,
                                           const struct jsonread_node *v);
const struct jsonread_node *jsonread_next(const struct jsonread *d,
                                          const struct jsonread_node *v);

/** Member @key of object @v; NULL when there is none or @v is no object. */
const struct jsonread_node *jsonread_get(const struct jsonread *d,
                                         const struct jsonread_node *v,
                                         const char *key);

/** 1 when @v is the string @s. NULL-safe. */
int jsonread_is(const struct jsonread_node *v, const char *s);

/** The integer that number @v is. Returns 0 or JSONREAD_BAD (NULL, no number,
 *  a fraction, or beyond 2^53). */
int jsonread_int(const struct jsonread_node *v, int64_t *out);

#endif
