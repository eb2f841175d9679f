/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/own_waits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bpf/cgroup.h"

#define MS UINT64_C(1000000)

void own_waits_total(struct own_waits *w, const struct sched_own *now)
{
    w->total = *now;
}

static struct own_culprit *room_for(struct own_waits *w,
                                    const struct sched_culprit *who)
{
    struct own_culprit *least = w->culprits;

    for (uint32_t i = 0; i < w->n; i++) {
        struct own_culprit *c = &w->culprits[i];

        if (memcmp(&c->who, who, sizeof(*who)) == 0)
            return c;
        if (c->ns < least->ns)
            least = c;
    }
    if (w->n < SCHED_MAX_CULPRITS)
        least = &w->culprits[w->n++];
    *least = (struct own_culprit){.who = *who};
    return least;
}

bool own_waits_culprit(struct own_waits *w, const struct sched_culprit *who,
                       const struct sched_wait *now)
{
    struct own_culprit *c = room_for(w, who);
    struct sched_wait more = *now;

    /* Less than before: it was removed, and came again. */
    if (now->n >= c->read.n && now->ns >= c->read.ns) {
        more.n -= c->read.n;
        more.ns -= c->read.ns;
    }
    c->read = *now;
    c->ns += more.ns;
    return more.n > 0;
}

static uint64_t since_start_ns(const struct own_culprit *c)
{
    return c->ns;
}

static uint64_t news_ns(const struct own_culprit *c)
{
    return c->ns - c->told_ns;
}

static void name(const struct sched_culprit *who, struct cgroups *cgroups,
                 char out[OWN_WAITS_NAME_MAX])
{
    const struct cgroup_info *info =
        cgroups != NULL ? cgroups_find(cgroups, who->cgid) : NULL;

    if (who->cgid == 0)
        (void)snprintf(out, OWN_WAITS_NAME_MAX, "our own CPU quota");
    else
        (void)snprintf(out, OWN_WAITS_NAME_MAX, "%.15s%s%s", who->comm,
                       info != NULL && info->name[0] != '\0' ? " in " : "",
                       info != NULL ? info->name : "");
    for (char *c = out; *c != '\0'; c++) { /* anybody may choose a comm */
        if (*c < ' ' || *c > '~')
            *c = '_';
    }
}

static void name_worst(const struct own_waits *w, struct cgroups *cgroups,
                       uint64_t (*by)(const struct own_culprit *c),
                       char out[OWN_WAITS_NAME_MAX])
{
    const struct own_culprit *top = NULL;

    for (uint32_t i = 0; i < w->n; i++) {
        const struct own_culprit *c = &w->culprits[i];

        if (by(c) >= MS && (top == NULL || by(c) > by(top)))
            top = c;
    }
    out[0] = '\0';
    if (top != NULL)
        name(&top->who, cgroups, out);
}

void own_waits_report(const struct own_waits *w, struct cgroups *cgroups,
                      struct own_waits_report *out)
{
    *out = (struct own_waits_report){.waited_ns = w->total.ns,
                                     .longest_ns = w->total.longest_ns};
    name_worst(w, cgroups, since_start_ns, out->because);
}

char *own_waits_tell(struct own_waits *w, struct cgroups *cgroups, char *line,
                     size_t size)
{
    uint64_t waited_ns = w->total.ns - w->told_ns;
    char who[OWN_WAITS_NAME_MAX];

    name_worst(w, cgroups, news_ns, who);
    line[0] = '\0';
    if (waited_ns >= MS && who[0] != '\0')
        (void)snprintf(line, size,
                       "the reader waited %" PRIu64 " ms for a CPU, most "
                       "behind %s",
                       waited_ns / MS, who);
    w->told_ns = w->total.ns;
    for (uint32_t i = 0; i < w->n; i++)
        w->culprits[i].told_ns = w->culprits[i].ns;
    return line;
}
