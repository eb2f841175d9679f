/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_control.h"

#include <stdio.h>
#include <string.h>

#include "agent/jsonread.h"

#define VALUES_MAX 1000
#define TEXT_MAX 4096

struct message {
    const struct jsonread *j;
    struct intake_settings s; /* as they will be */
    struct intake_order order;
    char *why;
    size_t n_why;
};

static int bad(struct message *m, const char *why)
{
    (void)snprintf(m->why, m->n_why, "%s", why);
    return INTAKE_CONTROL_BAD;
}

static int read_ms(struct message *m, const struct jsonread_node *v,
                   unsigned *out)
{
    int64_t ms;

    if (jsonread_int(v, &ms) != 0 || ms < 0 || ms > INTAKE_LATENCY_MAX_MS)
        return bad(m, "milliseconds are 0 to 3600000");
    *out = (unsigned)ms;
    return 0;
}

static int read_flag(struct message *m, const struct jsonread_node *v, int *out)
{
    if (v->type != JSONREAD_TRUE && v->type != JSONREAD_FALSE)
        return bad(m, "down and reset are true or false");
    *out = v->type == JSONREAD_TRUE;
    return 0;
}

/* The string @v as C text. */
static int read_text(struct message *m, const struct jsonread_node *v,
                     char *out, size_t n)
{
    if (v->type != JSONREAD_STRING || v->n >= n ||
        memchr(v->text, '\0', v->n) != NULL)
        return bad(m, "a string is missing or too long");
    memcpy(out, v->text, v->n);
    out[v->n] = '\0';
    return 0;
}

static int read_fail(struct message *m, const struct jsonread_node *v)
{
    char text[64];

    if (v->type != JSONREAD_ARRAY)
        return bad(m, "fail is a list of STATUS:PROBABILITY");
    fault_clear_rules(&m->s.plan);
    v = jsonread_child(m->j, v);
    for (; v != NULL; v = jsonread_next(m->j, v)) {
        int rc = read_text(m, v, text, sizeof(text));

        if (rc != 0)
            return rc;
        if (fault_add_rule(&m->s.plan, text) != 0)
            return bad(m, "fail is a list of STATUS:PROBABILITY");
    }
    return 0;
}

static int read_script(struct message *m, const struct jsonread_node *v)
{
    char text[TEXT_MAX];
    int rc = read_text(m, v, text, sizeof(text));

    if (rc == 0 && fault_set_script(&m->s.plan, text) != 0)
        rc = bad(m, "script is a comma list of outcomes");
    return rc;
}

static int read_seed(struct message *m, const struct jsonread_node *v)
{
    int64_t seed;

    if (jsonread_int(v, &seed) != 0)
        return bad(m, "seed is a whole number");
    m->s.plan.random = (uint64_t)seed;
    return 0;
}

static int named(const struct jsonread_node *v, const char *key)
{
    return v->n_key == strlen(key) && memcmp(v->key, key, v->n_key) == 0;
}

static int read_member(struct message *m, const struct jsonread_node *v)
{
    if (named(v, "latency_ms"))
        return read_ms(m, v, &m->s.latency_ms);
    if (named(v, "down_ms"))
        return read_ms(m, v, &m->order.down_ms);
    if (named(v, "down"))
        return read_flag(m, v, &m->s.down);
    if (named(v, "reset"))
        return read_flag(m, v, &m->order.reset);
    if (named(v, "api_key"))
        return read_text(m, v, m->s.api_key, sizeof(m->s.api_key));
    if (named(v, "fail"))
        return read_fail(m, v);
    if (named(v, "script"))
        return read_script(m, v);
    if (named(v, "seed"))
        return read_seed(m, v);
    return bad(m, "unknown member");
}

int intake_control(struct intake_settings *s, const char *body, size_t n,
                   struct intake_order *order, char *why, size_t n_why)
{
    struct jsonread j;
    struct message m = {.j = &j, .s = *s, .why = why, .n_why = n_why};
    const struct jsonread_node *v;
    int rc = jsonread_parse(&j, body, n, VALUES_MAX);

    if (rc == JSONREAD_BAD) {
        rc = bad(&m, j.error);
        goto out;
    }
    if (rc != 0)
        goto out;
    if (jsonread_root(&j)->type != JSONREAD_OBJECT) {
        rc = bad(&m, "not an object");
        goto out;
    }
    v = jsonread_child(&j, jsonread_root(&j));
    for (; v != NULL && rc == 0; v = jsonread_next(&j, v))
        rc = read_member(&m, v);
    if (rc == 0) {
        *s = m.s;
        *order = m.order;
    }
out:
    jsonread_fini(&j);
    return rc;
}
