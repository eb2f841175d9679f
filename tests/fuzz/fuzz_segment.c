/* SPDX-License-Identifier: Apache-2.0 */
/* A segment file of any bytes: read on as the store does, each record is within
 * the file and written again it reads the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "forwarder/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
    if (!ok)
        abort();
}

static void again(const struct segment_record *r, const uint8_t *body)
{
    unsigned char head[SEGMENT_RECORD_BYTES];
    struct segment_record w = *r;
    struct segment_record got;

    segment_record_write(head, &w, body, body + r->n_bytes);
    need(segment_record_read(&got, head, segment_record_size(&w)) == 0);
    need(got.order == r->order && got.n_bytes == r->n_bytes &&
         got.n_index_bytes == r->n_index_bytes && got.kind == r->kind &&
         got.encoding == r->encoding && got.flags == r->flags &&
         got.state == r->state && got.newest_s == r->newest_s &&
         memcmp(&got.load, &r->load, sizeof(got.load)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_check *c = segment_check_create();
    struct segment_record r;
    struct segment_head h;
    size_t at = SEGMENT_HEAD_BYTES;

    need(c != NULL);
    if (segment_head_read(&h, data, size) == 0) {
        unsigned char head[SEGMENT_HEAD_BYTES];

        need(size >= SEGMENT_HEAD_BYTES);
        segment_head_write(head, &h);
        need(memcmp(head, data, sizeof(head)) == 0);
    }
    while (at < size && segment_record_read(&r, data + at, size - at) == 0) {
        const uint8_t *body = data + at + SEGMENT_RECORD_BYTES;

        need(segment_record_size(&r) <= size - at);
        segment_check_begin(c, data + at);
        segment_check_add(c, body, (size_t)r.n_bytes + r.n_index_bytes);
        (void)segment_check_end(c);
        again(&r, body);
        at += (size_t)segment_record_size(&r);
    }
    segment_check_free(c);
    return 0;
}
