/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A direct-mapped cache. An entry is good while the tables have not changed; nothing
 * known is an entry too, looked up again now and then, since whoever was asked may
 * not have heard it.
 *
 * Of two answers the newer one counts: that of the helper thread is as of a moment, and
 * if the process has begun a program since, that of the kernel. Then the helper thread
 * is asked all the same, for it remembers.
 */
#include "agent/origin.h"

#include <errno.h>
#include <stdlib.h>

#include "bpf/env_table.h"

#define ASK_AGAIN 4096u /* datagrams */

struct origin_entry {
    uint64_t version, stamp;
    uint32_t number; /* 0 = free */
    enum proctags_space space;
    uint32_t n_left; /* unknown: so many until it is looked up again */
    uint32_t n;
    char tags[PROCTAGS_MAX_BYTES];
};

int origin_init(struct origin *o, struct proctags *table)
{
    *o = (struct origin){.table = table};
    if (table == NULL)
        return 0;
    o->entries = calloc(ORIGIN_ENTRIES, sizeof(*o->entries));
    return o->entries != NULL ? 0 : -ENOMEM;
}

void origin_fini(struct origin *o)
{
    free(o->entries);
    *o = (struct origin){0};
}

static void look_up(struct origin *o, struct origin_entry *e,
                    enum proctags_space space, uint32_t number)
{
    const struct env_table *env = proctags_env(o->table);
    uint64_t generation, as_of_ns;
    size_t n = 0;
    int rc;

    /* Before the look-up: a change meanwhile makes it look again. */
    e->version = proctags_version(o->table);
    e->stamp = env_table_stamp(env, space, number);
    e->number = number;
    e->space = space;
    e->n = (uint32_t)proctags_get(o->table, space, number, e->tags, &generation,
                                  &as_of_ns);
    e->n_left = 0;
    rc = env_table_get(env, space, number, as_of_ns, e->tags, &n);
    if (rc != ENV_TABLE_NOTHING) {
        e->n = (uint32_t)n;
        proctags_ask(o->table, space, number);
    }
    if (rc != ENV_TABLE_NOTHING || generation == PROCTAGS_UNKNOWN) {
        e->n_left = ASK_AGAIN;
        o->asked = true;
    }
}

struct view origin_tags(struct origin *o, enum proctags_space space,
                        uint32_t number)
{
    struct origin_entry *e;

    if (o->table == NULL || number == 0)
        return (struct view){0};
    e = &o->entries[number % ORIGIN_ENTRIES];
    if (e->number != number || e->space != space ||
        e->version != proctags_version(o->table) ||
        e->stamp != env_table_stamp(proctags_env(o->table), space, number) ||
        (e->n_left > 0 && --e->n_left == 0))
        look_up(o, e, space, number);
    return (struct view){e->tags, e->n};
}
