/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DDSketch variant of the Datadog Agent (its quantile module v0.85.1,
 * default configuration): relative accuracy 1/128, 4096 bins, int16 keys,
 * uint16 counts on the wire. Keys and counts are bit-compatible.
 *
 * Thread:  pure functions on the caller's memory.
 * Memory:  none of its own but one table of bin boundaries (static, 34 KiB),
 *          read-only after sketch_init(). The bins of one sketch are bounded by
 *          the keys there are (65,535); on the wire by sketch_to_wire().
 * Promise: the same values give the same keys and counts as the Agent's module,
 *          whatever the order of merges, while no bin is trimmed. Nothing that
 *          is finite going in comes out as an infinity.
 */
#ifndef RETRIEVER_AGGREGATOR_SKETCH_H
#define RETRIEVER_AGGREGATOR_SKETCH_H

#include <stddef.h>
#include <stdint.h>

#define SKETCH_MAX_BINS 4096
#define SKETCH_MAX_COUNT 65535 /* of one bin on the wire */
#define SKETCH_KEY_INF 32767

/** A bin while it is accumulated: counts are wider than on the wire. */
struct sketch_bin {
    int16_t key;
    uint16_t pad;
    uint32_t n;
};

/** Count, sum and extremes; the same update rules as the Agent's summary. */
struct sketch_summary {
    int64_t cnt;
    double min, max, sum, avg;
};

/** Call once per process, before other threads use this module; idempotent.
 *  Takes less than a millisecond. Keys are right without it, only slower. */
void sketch_init(void);

/** Key of a finite value: round(ln|v| / ln gamma) + 1338 with v's sign, at
 *  least 1; 0 for |v| < 9.94e-10; +-SKETCH_KEY_INF for what is beyond the last
 *  key. */
int16_t sketch_key(double v);

/** One finite value of weight 1. */
void sketch_summary_add(struct sketch_summary *s, double v);

/** One value seen with sample rate @rate in (0, 1): weight 1/rate. Returns the
 *  whole number by which its bin's count grows (trunc(1/rate), capped at
 *  UINT32_MAX). */
uint32_t sketch_summary_add_rated(struct sketch_summary *s, double v,
                                  double rate);

/** Merge sorted @bins (n_bins, ascending unique keys) with unsorted @keys
 *  (n_keys, each weight 1; sorted in place) into @out (room for n_bins + n_keys
 *  bins, not overlapping @bins). Returns the number of bins, unique ascending.
 *  A count stays at UINT32_MAX where it would overflow. */
size_t sketch_merge_keys(struct sketch_bin *out, const struct sketch_bin *bins,
                         size_t n_bins, int16_t *keys, size_t n_keys);

/** As above with one (key, n). Room for n_bins + 1. */
size_t sketch_merge_one(struct sketch_bin *out, const struct sketch_bin *bins,
                        size_t n_bins, int16_t key, uint32_t n);

/** Bins as they go on the wire: counts above 65535 split into repeated keys and
 *  the Agent's trim to 4096 bins (lowest keys collapse). @k and @n need room
 *  for sketch_wire_room(bins, n_bins) entries. Returns the number written,
 *  which is 0 only for no bins. Counts that would split into more than twice
 *  4096 entries (only absurd sample rates make such) are not split: room and
 *  result stay below 65,536 entries whatever comes in. */
size_t sketch_wire_room(const struct sketch_bin *bins, size_t n_bins);
size_t sketch_to_wire(int32_t *k, uint32_t *n, const struct sketch_bin *bins,
                      size_t n_bins);

#endif
