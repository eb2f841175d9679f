/* SPDX-License-Identifier: Apache-2.0 */
/* --expect: two JSON trees side by side, with the path of each difference. */
#include <math.h>
#include <string.h>

#include "agent/intake_report.h"

#define PATH_MAX_BYTES 400
#define LINES_MAX 50 /* of differences; the rest is only counted */

struct compare {
    const struct jsonread *e, *a;
    FILE *f;
    unsigned n;
    char path[PATH_MAX_BYTES];
};

static void say(struct compare *c, const char *what,
                const struct jsonread_node *e, const struct jsonread_node *a)
{
    if (++c->n > LINES_MAX)
        return;
    (void)fprintf(c->f, "%s: %s", c->path[0] != '\0' ? c->path : ".", what);
    if (e != NULL)
        (void)fprintf(c->f, ": expected %.*s",
                      (int)(e->n_raw < 80 ? e->n_raw : 80),
                      c->e->text + e->raw);
    if (a != NULL)
        (void)fprintf(c->f, ", got %.*s", (int)(a->n_raw < 80 ? a->n_raw : 80),
                      c->a->text + a->raw);
    (void)fputc('\n', c->f);
}

static int same_number(double e, double a)
{
    return e == a || fabs(e - a) <= 1e-12 * fmax(fabs(e), fabs(a));
}

static const struct jsonread_node *member(const struct jsonread *d,
                                          const struct jsonread_node *object,
                                          const struct jsonread_node *like)
{
    const struct jsonread_node *v = jsonread_child(d, object);

    for (; v != NULL; v = jsonread_next(d, v)) {
        if (v->n_key == like->n_key && memcmp(v->key, like->key, v->n_key) == 0)
            return v;
    }
    return NULL;
}

static void compare(struct compare *c, const struct jsonread_node *e,
                    const struct jsonread_node *a);

static void compare_children(struct compare *c, const struct jsonread_node *e,
                             const struct jsonread_node *a)
{
    int is_object = e->type == JSONREAD_OBJECT;
    size_t n_path = strlen(c->path);
    const struct jsonread_node *ve = jsonread_child(c->e, e);
    const struct jsonread_node *va = jsonread_child(c->a, a);

    for (size_t i = 0; ve != NULL; i++, ve = jsonread_next(c->e, ve)) {
        const struct jsonread_node *v = is_object ? member(c->a, a, ve) : va;

        if (is_object)
            (void)snprintf(c->path + n_path, sizeof(c->path) - n_path, "/%.*s",
                           (int)ve->n_key, ve->key);
        else
            (void)snprintf(c->path + n_path, sizeof(c->path) - n_path, "/%zu",
                           i);
        if (v == NULL)
            say(c, "missing", ve, NULL);
        else
            compare(c, ve, v);
        c->path[n_path] = '\0';
        if (!is_object)
            va = jsonread_next(c->a, va);
    }
}

/* The depth is bounded by JSONREAD_DEPTH_MAX. */
static void compare(struct compare *c, const struct jsonread_node *e,
                    const struct jsonread_node *a)
{
    if (e->type != a->type) {
        say(c, "another type", e, a);
        return;
    }
    switch (e->type) {
    case JSONREAD_NULL:
    case JSONREAD_FALSE:
    case JSONREAD_TRUE:
        return;
    case JSONREAD_NUMBER:
        if (!same_number(e->number, a->number))
            say(c, "differs", e, a);
        return;
    case JSONREAD_STRING:
        if (e->n != a->n || memcmp(e->text, a->text, e->n) != 0)
            say(c, "differs", e, a);
        return;
    case JSONREAD_ARRAY:
        if (e->n != a->n) {
            say(c, "another length", e, a);
            return;
        }
        break;
    case JSONREAD_OBJECT:
        break;
    }
    compare_children(c, e, a);
}

unsigned intake_report_differ(const struct jsonread *d_expected,
                              const struct jsonread_node *expected,
                              const struct jsonread *d_actual,
                              const struct jsonread_node *actual, FILE *f)
{
    struct compare c = {.e = d_expected, .a = d_actual, .f = f};

    compare(&c, expected, actual);
    return c.n;
}
