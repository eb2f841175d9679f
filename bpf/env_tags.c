/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/env_tags.h"

#include <stdio.h>
#include <string.h>

#include "bpf/lines.h"

static bool is_by_bus(const struct env_text *v)
{
    static const char order[] = "PCI_BUS_ID";

    return v->text != NULL && v->n == sizeof(order) - 1 &&
           memcmp(v->text, order, v->n) == 0;
}

static size_t add_watched(const struct watch_name *name,
                          const struct env_text *v, char *out, size_t size)
{
    char text[ENV_MAX_VALUE + 1], value[200];
    size_t n = v->n < sizeof(text) - 1 ? v->n : sizeof(text) - 1;
    int got;

    if (v->text == NULL || n == 0)
        return 0;
    memcpy(text, v->text, n);
    text[n] = '\0';
    got = snprintf(out, size, ",%s:%s", name->tag,
                   lines_tag(value, sizeof(value) - name->n_name, text));
    return got > 0 && (size_t)got < size ? (size_t)got : 0;
}

/* Own tags first: if there are too many, it is devices that are left out. */
size_t env_tags(const struct env_rules *r,
                const struct env_text values[ENV_MAX_NAMES], char *out)
{
    const struct env_text *cuda = &values[WATCH_CUDA];
    char tags[ENV_TAGS_BYTES];
    struct cuda_list list;
    size_t n = 0;

    for (uint32_t i = WATCH_FIRST_OWN; i < r->watch.n; i++)
        n +=
            add_watched(&r->watch.v[i], &values[i], tags + n, sizeof(tags) - n);
    if (r->cuda_tags && cuda->text != NULL) {
        cuda_parse(cuda->text, cuda->n, &r->devices, r->semantics, &list);
        tags[n] = ',';
        n += 1 + cuda_tags(&list, &r->devices,
                           is_by_bus(&values[WATCH_CUDA_ORDER]), tags + n + 1,
                           sizeof(tags) - n - 1);
    }
    if (n == 0)
        return 0;
    memcpy(out, tags + 1, n - 1);
    return n - 1;
}
