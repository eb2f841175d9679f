/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as JSON and as a control message. What is accepted has a tree whose
 * values lie inside the text, in order.
 */
#include <stdint.h>
#include <stdlib.h>

#include "agent/intake_control.h"
#include "agent/jsonread.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct jsonread *d, const struct jsonread_node *v)
{
    const struct jsonread_node *c = jsonread_child(d, v);
    uint32_t n = 0;

    if ((size_t)v->raw + v->n_raw > d->n_text || v->n_raw == 0)
        abort();
    for (; c != NULL; c = jsonread_next(d, c), n++) {
        if (c->raw < v->raw || c->raw + c->n_raw > v->raw + v->n_raw)
            abort();
        walk(d, c);
    }
    if ((v->type == JSONREAD_ARRAY || v->type == JSONREAD_OBJECT) && n != v->n)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jsonread d;
    struct intake_settings s = {.latency_ms = 1};
    struct intake_order order = {0};
    char why[64];

    if (jsonread_parse(&d, (const char *)data, size, 10000) == 0)
        walk(&d, jsonread_root(&d));
    else if (d.error == NULL || d.at > size)
        abort();
    jsonread_fini(&d);
    if (intake_control(&s, (const char *)data, size, &order, why,
                       sizeof(why)) != 0 &&
        (s.latency_ms != 1 || s.down || order.reset))
        abort();
    return 0;
}
