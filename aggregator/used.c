/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/used.h"

int used_compare(const void *x, const void *y)
{
    const struct used_point *a = x;
    const struct used_point *b = y;

    if (a->id.hi != b->id.hi)
        return a->id.hi < b->id.hi ? -1 : 1;
    if (a->id.lo != b->id.lo)
        return a->id.lo < b->id.lo ? -1 : 1;
    if (a->second_s != b->second_s)
        return a->second_s < b->second_s ? -1 : 1;
    return 0;
}

bool used_has_stamp(const struct used_seconds *u, int64_t t_s)
{
    size_t from = 0;
    size_t to = u->n_stamps;

    while (from < to) {
        size_t mid = from + (to - from) / 2;

        if (u->stamps_s[mid] == t_s)
            return true;
        if (u->stamps_s[mid] < t_s)
            from = mid + 1;
        else
            to = mid;
    }
    return false;
}

/* The first point that is not before @key; n_points: none. */
static size_t lower_bound(const struct used_seconds *u,
                          const struct used_point *key)
{
    size_t from = 0;
    size_t to = u->n_points;

    while (from < to) {
        size_t mid = from + (to - from) / 2;

        if (used_compare(&u->points[mid], key) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

static bool is_of(const struct used_point *p, struct used_id id)
{
    return p->id.lo == id.lo && p->id.hi == id.hi;
}

bool used_has_point(const struct used_seconds *u, struct used_id id,
                    uint32_t t_s)
{
    const struct used_point key = {.id = id, .second_s = t_s};
    size_t i = lower_bound(u, &key);

    return i < u->n_points && is_of(&u->points[i], id) &&
           u->points[i].second_s == t_s;
}

bool used_has_series(const struct used_seconds *u, struct used_id id)
{
    const struct used_point key = {.id = id};
    size_t i = lower_bound(u, &key);

    return i < u->n_points && is_of(&u->points[i], id);
}
