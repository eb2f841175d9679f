/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seconds that points of earlier lives have used: the intake keeps only the
 * latest of two points of one series and second, so no later life may take them
 * again.
 *
 * Thread:  pure functions.
 * Memory:  the caller's lists, borrowed.
 * Promise: the identity of a series is the same in every life and build of one
 *          format (agent/stamps.h).
 */
#ifndef RETRIEVER_AGGREGATOR_USED_H
#define RETRIEVER_AGGREGATOR_USED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What the intake tells series apart by: normalised name, tags and host, as an
 *  unseeded hash. */
struct used_id {
    uint64_t lo, hi;
};

/** A second of one series, taken by a point with a timestamp of the client's or
 *  by one that had to make way for such a point. */
struct used_point {
    struct used_id id;
    uint32_t second_s;
    uint32_t pad; /* 0 */
};

/** What one part took: from its stamp on, with what shifted cells took behind. */
struct used_span {
    uint32_t stamp_s;
    uint32_t max_shift;
};

/** Both lists ascending and without duplicates; n 0 = none. */
struct used_seconds {
    const uint32_t *stamps_s; /* of parts: any series may have a point there */
    size_t n_stamps;
    const struct used_point *points;
    size_t n_points;
};

/** The order of struct used_seconds.points, for qsort(). */
int used_compare(const void *x, const void *y);

bool used_has_stamp(const struct used_seconds *u, int64_t t_s);
bool used_has_point(const struct used_seconds *u, struct used_id id,
                    uint32_t t_s);

/** Is any second of the series known? */
bool used_has_series(const struct used_seconds *u, struct used_id id);

#endif
