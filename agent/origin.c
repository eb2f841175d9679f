/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A direct-mapped cache. An entry is good while the table has not changed; nothing
 * known is an entry too, looked up again now and then, since whoever was asked may
 * not have heard it.
 */
#include "agent/origin.h"

#include <errno.h>
#include <stdlib.h>

#define ASK_AGAIN 4096u /* datagrams */

struct origin_entry {
    uint64_t version;
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
    uint64_t generation;

    /* Before the look-up: a change meanwhile makes it look again. */
    e->version = proctags_version(o->table);
    e->number = number;
    e->space = space;
    e->n =
        (uint32_t)proctags_get(o->table, space, number, e->tags, &generation);
    e->n_left = 0;
    if (generation == PROCTAGS_UNKNOWN) {
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
        (e->n_left > 0 && --e->n_left == 0))
        look_up(o, e, space, number);
    return (struct view){e->tags, e->n};
}
