/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers are put together byte by byte: no padding, no alignment and no byte
 * order of the machine reaches the disk. Compilers make single moves of it.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>
#include <string.h>

#include "forwarder/segment.h"

#define RECORD_MAGIC 0x31507652u /* "RvP1" */
#define CHECKED_AT 16u           /* of a record: what its check covers */

static const unsigned char magic[8] = {'r', 't', 'v',  's',
                                       'e', 'g', '\r', '\n'};

static void put(unsigned char *to, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get(const unsigned char *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

void segment_head_write(unsigned char to[SEGMENT_HEAD_BYTES],
                        const struct segment_head *h)
{
    memcpy(to, magic, sizeof(magic));
    put(to + 8, SEGMENT_VERSION, 4);
    put(to + 12, SEGMENT_HEAD_BYTES, 4);
    put(to + 16, h->life, 8);
    put(to + 24, (uint64_t)h->created_s, 8);
    put(to + 32, XXH3_64bits(to, 32), 8);
}

/* The version comes before the check: a newer head may be of another length. */
int segment_head_read(struct segment_head *h, const unsigned char *p, size_t n)
{
    size_t n_magic = n < sizeof(magic) ? n : sizeof(magic);

    if (memcmp(p, magic, n_magic) != 0)
        return SEGMENT_FOREIGN;
    if (n >= 12 && get(p + 8, 4) > SEGMENT_VERSION)
        return SEGMENT_NEWER;
    if (n < SEGMENT_HEAD_BYTES)
        return SEGMENT_SHORT;
    if (get(p + 8, 4) != SEGMENT_VERSION ||
        get(p + 12, 4) != SEGMENT_HEAD_BYTES ||
        get(p + 32, 8) != XXH3_64bits(p, 32))
        return SEGMENT_DAMAGED;
    h->life = get(p + 16, 8);
    h->created_s = (int64_t)get(p + 24, 8);
    return 0;
}

uint64_t segment_record_size(const struct segment_record *r)
{
    return (SEGMENT_RECORD_BYTES + (uint64_t)r->n_bytes + r->n_index_bytes +
            7) &
           ~(uint64_t)7;
}

void segment_state_write(unsigned char to[4], enum record_state s)
{
    put(to, s, 4);
}

void segment_record_write(unsigned char to[SEGMENT_RECORD_BYTES],
                          struct segment_record *r, const void *body,
                          const void *index)
{
    XXH3_state_t x;

    put(to, RECORD_MAGIC, 4);
    segment_state_write(to + SEGMENT_STATE_AT, r->state);
    put(to + 16, r->order, 8);
    put(to + 24, r->n_bytes, 4);
    put(to + 28, r->n_raw_bytes, 4);
    put(to + 32, r->n_index_bytes, 4);
    put(to + 36, r->kind, 1);
    put(to + 37, r->encoding, 1);
    put(to + 38, r->flags, 2);
    put(to + 40, r->load.n_samples, 8);
    put(to + 48, r->load.n_points, 8);
    put(to + 56, r->load.n_events, 8);
    put(to + 64, r->load.n_checks, 8);
    put(to + 72, (uint64_t)r->newest_s, 8);
    XXH3_64bits_reset(&x);
    XXH3_64bits_update(&x, to + CHECKED_AT, SEGMENT_RECORD_BYTES - CHECKED_AT);
    XXH3_64bits_update(&x, body, r->n_bytes);
    XXH3_64bits_update(&x, index, r->n_index_bytes);
    r->check = XXH3_64bits_digest(&x);
    put(to + 8, r->check, 8);
}

static bool load_is_sane(const struct payload_load *l)
{
    return l->n_samples <= SEGMENT_MAX_LOAD &&
           l->n_points <= SEGMENT_MAX_LOAD && l->n_events <= SEGMENT_MAX_LOAD &&
           l->n_checks <= SEGMENT_MAX_LOAD;
}

int segment_record_read(struct segment_record *r, const unsigned char *p,
                        uint64_t left)
{
    struct segment_record got = {0};
    uint64_t state;

    if (left < SEGMENT_RECORD_BYTES)
        return SEGMENT_SHORT;
    if (get(p, 4) != RECORD_MAGIC)
        return SEGMENT_DAMAGED;
    state = get(p + SEGMENT_STATE_AT, 4);
    got.state = state == RECORD_FROZEN || state == RECORD_SETTLED
                    ? (enum record_state)state
                    : RECORD_MAYBE_SENT;
    got.check = get(p + 8, 8);
    got.order = get(p + 16, 8);
    got.n_bytes = (uint32_t)get(p + 24, 4);
    got.n_raw_bytes = (uint32_t)get(p + 28, 4);
    got.n_index_bytes = (uint32_t)get(p + 32, 4);
    got.load.n_samples = get(p + 40, 8);
    got.load.n_points = get(p + 48, 8);
    got.load.n_events = get(p + 56, 8);
    got.load.n_checks = get(p + 64, 8);
    if (!load_is_sane(&got.load) || got.n_bytes == 0 ||
        got.n_bytes > SEGMENT_MAX_BODY_BYTES ||
        got.n_index_bytes > SEGMENT_MAX_BODY_BYTES ||
        p[36] >= PAYLOAD_N_KINDS || p[37] > ENCODING_ZSTD)
        return SEGMENT_DAMAGED;
    got.kind = p[36];
    got.encoding = p[37];
    got.flags = (uint16_t)get(p + 38, 2);
    got.newest_s = (int64_t)get(p + 72, 8);
    if (segment_record_size(&got) > left)
        return SEGMENT_SHORT;
    *r = got;
    return 0;
}

/* ---- Checks in pieces -------------------------------------------------- */

struct segment_check {
    XXH3_state_t *x;
};

struct segment_check *segment_check_create(void)
{
    struct segment_check *c = malloc(sizeof(*c));

    if (c == NULL)
        return NULL;
    c->x = XXH3_createState(); /* aligned beyond malloc()'s */
    if (c->x == NULL) {
        free(c);
        return NULL;
    }
    return c;
}

void segment_check_begin(struct segment_check *c,
                         const unsigned char head[SEGMENT_RECORD_BYTES])
{
    XXH3_64bits_reset(c->x);
    XXH3_64bits_update(c->x, head + CHECKED_AT,
                       SEGMENT_RECORD_BYTES - CHECKED_AT);
}

void segment_check_add(struct segment_check *c, const void *p, size_t n)
{
    XXH3_64bits_update(c->x, p, n);
}

uint64_t segment_check_end(const struct segment_check *c)
{
    return XXH3_64bits_digest(c->x);
}

void segment_check_free(struct segment_check *c)
{
    if (c == NULL)
        return;
    XXH3_freeState(c->x);
    free(c);
}
