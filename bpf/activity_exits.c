/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table that is searched from its end: processes that end alike end in a row, and
 * there are few kinds.
 */
#include "bpf/activity_exits.h"

#include <stdio.h>
#include <string.h>

void activity_exits_add(struct activity_exits *e, uint32_t family,
                        enum family_role role, uint16_t code, uint16_t flags)
{
    struct activity_exit *x;

    for (size_t i = e->n_kinds; i-- > 0;) {
        x = &e->kind[i];
        if (x->family == family && x->role == role && x->code == code &&
            x->flags == flags) {
            x->n++;
            return;
        }
    }
    if (e->n_kinds == ACTIVITY_MAX_EXITS) {
        e->n_beyond[family % ACTIVITY_MAX_FAMILIES]++;
        return;
    }
    e->kind[e->n_kinds++] =
        (struct activity_exit){family, role, code, flags, 1};
}

void activity_exits_report(const struct activity_exits *e, uint32_t family,
                           struct lines *out, const char *tags)
{
    char text[2048];

    for (size_t i = 0; i < e->n_kinds; i++) {
        const struct activity_exit *x = &e->kind[i];
        unsigned int signal = x->code & 0x7f;

        if (x->family != family)
            continue;
        (void)snprintf(text, sizeof(text), "%s,process_type:%s,%s:%u%s", tags,
                       family_role_name(x->role),
                       signal != 0 ? "signal" : "exit_code",
                       signal != 0 ? signal : (unsigned int)x->code >> 8,
                       (x->flags & EXIT_OOM_KILLED) != 0 ? ",oom_killed:true"
                                                         : "");
        lines_add(out, "process.exit", (double)x->n, "c", text);
    }
    if (e->n_beyond[family] > 0) {
        (void)snprintf(text, sizeof(text),
                       "%s,process_type:unknown,exit_code:other", tags);
        lines_add(out, "process.exit", (double)e->n_beyond[family], "c", text);
    }
}

void activity_exits_clear(struct activity_exits *e)
{
    e->n_kinds = 0;
    memset(e->n_beyond, 0, sizeof(e->n_beyond));
}
