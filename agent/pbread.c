/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pbread.h"

#include <string.h>

void pbread_init(struct pbread *r, const uint8_t *p, size_t n)
{
    r->p = p;
    r->end = p + n;
}

/* Ten bytes carry 70 bits: the tenth may hold only the 64th. Longer or larger
 * is refused rather than wrapped, as a writer never makes it. */
int pbread_varint(struct pbread *r, uint64_t *v)
{
    uint64_t value = 0;

    if (r->p == r->end)
        return PBREAD_END;
    for (unsigned shift = 0; shift < 70 && r->p < r->end; shift += 7) {
        uint8_t b = *r->p++;

        if (shift == 63 && b > 1)
            return PBREAD_BAD;
        value |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *v = value;
            return 0;
        }
    }
    return PBREAD_BAD;
}

/* Of tags and lengths: 32 bits in five bytes at most, as protobuf's own reader
 * has it, however many zeros the rest of them were. */
static int read_varint32(struct pbread *r, uint64_t *v)
{
    const uint8_t *begin = r->p;
    int rc = pbread_varint(r, v);

    if (rc == 0 && (r->p - begin > 5 || *v > UINT32_MAX))
        return PBREAD_BAD;
    return rc;
}

static int read_fixed(struct pbread *r, size_t n, uint64_t *v)
{
    uint64_t value = 0;

    if ((size_t)(r->end - r->p) < n)
        return PBREAD_BAD;
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)r->p[i] << (8 * i);
    r->p += n;
    *v = value;
    return 0;
}

static int read_bytes(struct pbread *r, struct pbread_field *f)
{
    uint64_t n;

    if (read_varint32(r, &n) != 0 || n > (uint64_t)(r->end - r->p))
        return PBREAD_BAD;
    f->bytes = r->p;
    f->n_bytes = (size_t)n;
    r->p += n;
    return 0;
}

int pbread_next(struct pbread *r, struct pbread_field *f)
{
    struct pbread_field out = {.bytes = NULL};
    uint64_t tag;
    int rc = read_varint32(r, &tag);

    if (rc != 0)
        return rc;
    if (tag >> 3 == 0)
        return PBREAD_BAD;
    out.number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case PBREAD_VARINT:
        rc = pbread_varint(r, &out.value) == 0 ? 0 : PBREAD_BAD;
        break;
    case PBREAD_FIXED64:
        rc = read_fixed(r, 8, &out.value);
        break;
    case PBREAD_BYTES:
        rc = read_bytes(r, &out);
        break;
    case PBREAD_FIXED32:
        rc = read_fixed(r, 4, &out.value);
        break;
    default:
        return PBREAD_BAD;
    }
    if (rc != 0)
        return rc;
    out.wire = (enum pbread_wire)(tag & 7);
    *f = out;
    return 0;
}

double pbread_double(uint64_t bits)
{
    double d;

    memcpy(&d, &bits, sizeof(d));
    return d;
}

int64_t pbread_zigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}
