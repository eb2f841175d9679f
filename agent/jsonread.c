/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recursive descent with a depth bound; nodes in one growing array linked by
 * index, so that growth moves nothing that points to itself. Node 0 is the root
 * and therefore no node's sibling or child: 0 can mean "none".
 */
#include "agent/jsonread.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "aggregator/normalise.h"

static int parse_value(struct jsonread *d, uint32_t self, unsigned depth);

static int bad(struct jsonread *d, const char *why)
{
    d->error = why;
    return JSONREAD_BAD;
}

static int add_node(struct jsonread *d, uint32_t *index)
{
    if (d->n_nodes == d->max_nodes)
        return bad(d, "too many values");
    if (d->n_nodes == d->cap_nodes) {
        uint32_t cap = d->cap_nodes == 0 ? 64 : d->cap_nodes * 2;
        struct jsonread_node *p;

        if (cap > d->max_nodes)
            cap = d->max_nodes;
        p = realloc(d->nodes, cap * sizeof(*p));
        if (p == NULL)
            return -ENOMEM;
        d->nodes = p;
        d->cap_nodes = cap;
    }
    memset(&d->nodes[d->n_nodes], 0, sizeof(d->nodes[0]));
    *index = d->n_nodes++;
    return 0;
}

static int peek(const struct jsonread *d)
{
    return d->at < d->n_text ? (unsigned char)d->text[d->at] : -1;
}

static void skip_space(struct jsonread *d)
{
    while (d->at < d->n_text && strchr(" \t\r\n", d->text[d->at]) != NULL &&
           d->text[d->at] != '\0')
        d->at++;
}

static int hex4(struct jsonread *d, unsigned *out)
{
    unsigned v = 0;

    if (d->n_text - d->at < 4)
        return bad(d, "short \\u escape");
    for (int i = 0; i < 4; i++) {
        char c = d->text[d->at++];

        v <<= 4;
        if (c >= '0' && c <= '9')
            v |= (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v |= (unsigned)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            v |= (unsigned)(c - 'A' + 10);
        else
            return bad(d, "bad \\u escape");
    }
    *out = v;
    return 0;
}

static size_t put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* Behind "\u": a pair of surrogates is one character, a lone one is no UTF-8. */
static int unescape_u(struct jsonread *d, char *out, size_t *n_out)
{
    unsigned hi, lo;
    int rc = hex4(d, &hi);

    if (rc == 0 && hi >= 0xd800 && hi < 0xdc00) {
        if (d->n_text - d->at < 6 || d->text[d->at] != '\\' ||
            d->text[d->at + 1] != 'u')
            return bad(d, "lone surrogate");
        d->at += 2;
        rc = hex4(d, &lo);
        if (rc == 0 && (lo < 0xdc00 || lo > 0xdfff))
            return bad(d, "lone surrogate");
        hi = 0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00);
    } else if (rc == 0 && hi >= 0xdc00 && hi < 0xe000) {
        return bad(d, "lone surrogate");
    }
    if (rc == 0)
        *n_out = put_utf8(out, hi);
    return rc;
}

static int unescape(struct jsonread *d, char *out, size_t *n_out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    int c = peek(d);
    const char *hit;

    if (c <= 0)
        return bad(d, "string without end");
    d->at++;
    if (c == 'u')
        return unescape_u(d, out, n_out);
    hit = strchr(from, c);
    if (hit == NULL)
        return bad(d, "unknown escape");
    *out = to[hit - from];
    *n_out = 1;
    return 0;
}

/* An escape is never shorter than what it stands for, so strings[] needs no
 * more room than the text has. */
static int parse_string(struct jsonread *d, const char **out, uint32_t *n_out)
{
    char *start = d->strings + d->n_strings;
    char *p = start;

    if (peek(d) != '"')
        return bad(d, "string expected");
    d->at++;
    for (;;) {
        int c = peek(d);
        size_t n = 1;
        int rc = 0;

        if (c < 0)
            return bad(d, "string without end");
        if (c < 0x20)
            return bad(d, "control character in a string");
        d->at++;
        if (c == '"')
            break;
        if (c == '\\')
            rc = unescape(d, p, &n);
        else
            *p = (char)c;
        if (rc != 0)
            return rc;
        p += n;
    }
    if (!utf8_valid(start, (size_t)(p - start)))
        return bad(d, "invalid UTF-8");
    d->n_strings += (size_t)(p - start);
    *out = start;
    *n_out = (uint32_t)(p - start);
    return 0;
}

static size_t skip_digits(struct jsonread *d)
{
    size_t from = d->at;

    while (peek(d) >= '0' && peek(d) <= '9')
        d->at++;
    return d->at - from;
}

static int parse_number(struct jsonread *d, struct jsonread_node *v)
{
    char copy[128];
    size_t from = d->at;
    size_t n;

    if (peek(d) == '-')
        d->at++;
    if (peek(d) == '0')
        d->at++;
    else if (skip_digits(d) == 0)
        return bad(d, "value expected");
    if (peek(d) == '.') {
        d->at++;
        if (skip_digits(d) == 0)
            return bad(d, "digits expected");
    }
    if (peek(d) == 'e' || peek(d) == 'E') {
        d->at++;
        if (peek(d) == '+' || peek(d) == '-')
            d->at++;
        if (skip_digits(d) == 0)
            return bad(d, "digits expected");
    }
    n = d->at - from;
    if (n >= sizeof(copy))
        return bad(d, "number too long");
    memcpy(copy, d->text + from, n);
    copy[n] = '\0';
    v->type = JSONREAD_NUMBER;
    v->number = strtod(copy, NULL);
    return 0;
}

static int parse_word(struct jsonread *d, uint32_t self, const char *word,
                      enum jsonread_type type)
{
    size_t n = strlen(word);

    if (d->n_text - d->at < n || memcmp(d->text + d->at, word, n) != 0)
        return bad(d, "value expected");
    d->at += n;
    d->nodes[self].type = type;
    return 0;
}

/* One element: for an object its name and colon first. */
static int parse_element(struct jsonread *d, uint32_t self, uint32_t *last,
                         int is_object, unsigned depth)
{
    const char *key = NULL;
    uint32_t n_key = 0;
    uint32_t child;
    int rc = 0;

    skip_space(d);
    if (is_object) {
        rc = parse_string(d, &key, &n_key);
        if (rc != 0)
            return rc;
        skip_space(d);
        if (peek(d) != ':')
            return bad(d, "colon expected");
        d->at++;
        skip_space(d);
    }
    rc = add_node(d, &child);
    if (rc != 0)
        return rc;
    if (*last == 0)
        d->nodes[self].child = child;
    else
        d->nodes[*last].next = child;
    *last = child;
    d->nodes[self].n++;
    d->nodes[child].key = key;
    d->nodes[child].n_key = n_key;
    return parse_value(d, child, depth + 1);
}

static int parse_list(struct jsonread *d, uint32_t self, unsigned depth)
{
    int is_object = d->text[d->at++] == '{';
    int close = is_object ? '}' : ']';
    uint32_t last = 0;

    d->nodes[self].type = is_object ? JSONREAD_OBJECT : JSONREAD_ARRAY;
    if (depth >= JSONREAD_DEPTH_MAX)
        return bad(d, "too deep");
    skip_space(d);
    if (peek(d) == close) {
        d->at++;
        return 0;
    }
    for (;;) {
        int rc = parse_element(d, self, &last, is_object, depth);

        if (rc != 0)
            return rc;
        skip_space(d);
        if (peek(d) != ',' && peek(d) != close)
            return bad(d, "comma or end of list expected");
        if (d->text[d->at++] == close)
            return 0;
    }
}

static int parse_value(struct jsonread *d, uint32_t self, unsigned depth)
{
    size_t from = d->at;
    int rc;

    switch (peek(d)) {
    case '{':
    case '[':
        rc = parse_list(d, self, depth);
        break;
    case '"':
        rc = parse_string(d, &d->nodes[self].text, &d->nodes[self].n);
        d->nodes[self].type = JSONREAD_STRING;
        break;
    case 't':
        rc = parse_word(d, self, "true", JSONREAD_TRUE);
        break;
    case 'f':
        rc = parse_word(d, self, "false", JSONREAD_FALSE);
        break;
    case 'n':
        rc = parse_word(d, self, "null", JSONREAD_NULL);
        break;
    default:
        rc = parse_number(d, &d->nodes[self]);
        break;
    }
    d->nodes[self].raw = (uint32_t)from;
    d->nodes[self].n_raw = (uint32_t)(d->at - from);
    return rc;
}

int jsonread_parse(struct jsonread *d, const char *text, size_t n,
                   uint32_t max_nodes)
{
    uint32_t root;
    int rc;

    memset(d, 0, sizeof(*d));
    d->text = text;
    d->n_text = n;
    d->max_nodes = max_nodes;
    if (n >= UINT32_MAX)
        return bad(d, "text too long");
    d->strings = malloc(n + 4); /* put_utf8() writes up to 4 bytes */
    if (d->strings == NULL)
        return -ENOMEM;
    skip_space(d);
    rc = add_node(d, &root);
    if (rc == 0)
        rc = parse_value(d, root, 0);
    if (rc != 0)
        return rc;
    skip_space(d);
    return d->at == n ? 0 : bad(d, "bytes behind the value");
}

void jsonread_fini(struct jsonread *d)
{
    if (d == NULL)
        return;
    free(d->nodes);
    free(d->strings);
    d->nodes = NULL;
    d->strings = NULL;
    d->n_nodes = 0;
}

const struct jsonread_node *jsonread_root(const struct jsonread *d)
{
    return &d->nodes[0];
}

const struct jsonread_node *jsonread_child(const struct jsonread *d,
                                           const struct jsonread_node *v)
{
    return v != NULL && v->child != 0 ? &d->nodes[v->child] : NULL;
}

const struct jsonread_node *jsonread_next(const struct jsonread *d,
                                          const struct jsonread_node *v)
{
    return v->next != 0 ? &d->nodes[v->next] : NULL;
}

const struct jsonread_node *jsonread_get(const struct jsonread *d,
                                         const struct jsonread_node *v,
                                         const char *key)
{
    const struct jsonread_node *hit = NULL;
    size_t n = strlen(key);

    if (v == NULL || v->type != JSONREAD_OBJECT)
        return NULL;
    for (v = jsonread_child(d, v); v != NULL; v = jsonread_next(d, v)) {
        if (v->n_key == n && memcmp(v->key, key, n) == 0)
            hit = v;
    }
    return hit;
}

int jsonread_is(const struct jsonread_node *v, const char *s)
{
    return v != NULL && v->type == JSONREAD_STRING && v->n == strlen(s) &&
           memcmp(v->text, s, v->n) == 0;
}

int jsonread_int(const struct jsonread_node *v, int64_t *out)
{
    if (v == NULL || v->type != JSONREAD_NUMBER ||
        fabs(v->number) > 9007199254740992.0 || v->number != trunc(v->number))
        return JSONREAD_BAD;
    *out = (int64_t)v->number;
    return 0;
}
