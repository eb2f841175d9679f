/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One flush item to the bytes of its format. Used by encoder.c alone.
 *
 * Thread:  pure functions.
 * Memory:  the caller's.
 * Promise: what does not fit sets w->full and never goes beyond its buffer; text
 *          that is not UTF-8 cannot make a JSON body invalid.
 */
#ifndef RETRIEVER_FORWARDER_ENCODE_ITEMS_H
#define RETRIEVER_FORWARDER_ENCODE_ITEMS_H

#include "agent/base/buf.h"
#include "aggregator/series.h"
#include "forwarder/pbwrite.h"

/** MetricPayload.series, one message for each series of the item. Of each series
 *  the points [@first, @first + @n), cut at its end. */
void encode_series(struct pbwrite *w, const struct flush_item *item,
                   uint32_t first, uint32_t n);

/** SketchPayload.sketches, one message with one point. */
void encode_sketch(struct pbwrite *w, const struct flush_item *item);

/** What follows the last sketch: CommonMetadata, always there and empty. */
#define ENCODE_SKETCHES_TAIL "\x12\x00"
#define ENCODE_SKETCHES_TAIL_BYTES 2

/** One JSON object. @scratch keeps its memory between calls. Returns 0 or
 *  -ENOMEM (of the heap; too large is w->full). */
int encode_event(struct pbwrite *w, struct buf *scratch,
                 const struct flush_item *item);
int encode_check(struct pbwrite *w, struct buf *scratch,
                 const struct flush_item *item);

/** What stands before the first event of a payload, and after the last one. Whole
 *  values of @out; check out->failed. */
void encode_events_head(struct buf *out, struct view source_type);
void encode_events_tail(struct buf *out, const char *internal_hostname);

#endif
