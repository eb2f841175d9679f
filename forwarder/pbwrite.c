/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A nested length is not known before its content is written. Room for the
 * length is kept by a guess that is nearly always right (one byte below 128, two
 * below 16384); otherwise the content moves by a byte or two, once.
 */
#include "forwarder/pbwrite.h"

void pb_uint(struct pbwrite *w, uint32_t field, uint64_t v)
{
    if (v == 0)
        return;
    pb_tag(w, field, PB_VARINT);
    pb_varint(w, v);
}

void pb_double(struct pbwrite *w, uint32_t field, double v)
{
    uint64_t bits;

    if (v == 0)
        return;
    memcpy(&bits, &v, sizeof(bits));
    pb_tag(w, field, PB_I64);
    if (!pb_room(w, sizeof(bits)))
        return;
    for (int i = 0; i < 8; i++)
        w->p[w->n++] = (unsigned char)(bits >> (8 * i));
}

void pb_bytes_always(struct pbwrite *w, uint32_t field, struct view v)
{
    pb_tag(w, field, PB_LEN);
    pb_varint(w, v.n);
    pb_raw(w, v.p, v.n);
}

void pb_bytes(struct pbwrite *w, uint32_t field, struct view v)
{
    if (v.n > 0)
        pb_bytes_always(w, field, v);
}

struct pb_nest pb_begin(struct pbwrite *w, uint32_t field, size_t expected)
{
    struct pb_nest nest;

    pb_tag(w, field, PB_LEN);
    nest.n_reserved = pb_varint_size(expected);
    nest.at = w->n;
    if (pb_room(w, nest.n_reserved))
        w->n += nest.n_reserved;
    return nest;
}

void pb_end(struct pbwrite *w, struct pb_nest nest)
{
    size_t n_content;
    size_t n_length;
    size_t end;

    if (w->full)
        return;
    n_content = w->n - nest.at - nest.n_reserved;
    n_length = pb_varint_size(n_content);
    if (n_length > nest.n_reserved && !pb_room(w, n_length - nest.n_reserved))
        return;
    if (n_length != nest.n_reserved)
        memmove(w->p + nest.at + n_length, w->p + nest.at + nest.n_reserved,
                n_content);
    end = nest.at + n_length + n_content;
    w->n = nest.at;
    pb_varint(w, n_content);
    w->n = end;
}
