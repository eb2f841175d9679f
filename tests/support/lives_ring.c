/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the memfd: a page for the consumer's position, one for the control words, one
 * for the producer's position, the records. The records are mapped twice, one
 * behind the other, as the kernel does, so that none of them is cut.
 */
#include "tests/support/lives_ring.h"

#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BEGIN (UINT64_C(0x100000000) - 256)

enum { CONSUMER, CONTROL, PRODUCER, N_WORDS };

static void *word(const struct lives_ring *f, unsigned which)
{
    return f->map + which * (f->words_bytes / N_WORDS);
}

static unsigned char *data(const struct lives_ring *f)
{
    return f->map + f->words_bytes;
}

static bool map_records(const struct lives_ring *f, int flags)
{
    for (unsigned i = 0; i < 2; i++) {
        if (mmap(data(f) + i * LIVES_RING_BYTES, LIVES_RING_BYTES,
                 PROT_READ | PROT_WRITE, flags | MAP_FIXED, f->fd,
                 (off_t)f->words_bytes) == MAP_FAILED)
            return false;
    }
    return true;
}

static bool map_all(struct lives_ring *f)
{
    size_t n = N_WORDS * (size_t)sysconf(_SC_PAGESIZE);

    f->words_bytes = n;
    f->fd = memfd_create("proof-ring", MFD_CLOEXEC);
    if (f->fd < 0 || ftruncate(f->fd, (off_t)(n + LIVES_RING_BYTES)) != 0)
        return false;
    f->map = mmap(NULL, n + 2 * LIVES_RING_BYTES, PROT_READ | PROT_WRITE,
                  MAP_SHARED, f->fd, 0);
    return f->map != MAP_FAILED && map_records(f, MAP_SHARED);
}

static void put_record(struct lives_ring *f, const struct lives_record *r)
{
    uint32_t n_bytes = (uint32_t)strlen(r->bytes);
    uint32_t len = (uint32_t)sizeof(struct tap_record) + n_bytes;
    unsigned char *at = data(f) + (f->end & (LIVES_RING_BYTES - 1));
    struct tap_record head = {.n_bytes = n_bytes};
    uint32_t flags = 0;

    if (r->kind == LIVES_WITHDRAWN)
        flags = BPF_RINGBUF_DISCARD_BIT;
    else if (r->kind == LIVES_UNFINISHED)
        flags = BPF_RINGBUF_BUSY_BIT;
    else
        head.socket =
            r->kind == LIVES_FOREIGN ? UINT32_MAX : f->ids[r->kind - LIVES_UDP];
    flags |= len;
    memcpy(at, &flags, sizeof(flags));
    memcpy(at + BPF_RINGBUF_HDR_SZ, &head, sizeof(head));
    memcpy(at + BPF_RINGBUF_HDR_SZ + sizeof(head), r->bytes, n_bytes);
    f->end += (len + BPF_RINGBUF_HDR_SZ + 7u) / 8 * 8;
    REQUIRE(f->end - BEGIN < LIVES_RING_BYTES);
}

static void put_records(struct lives_ring *f, const struct lives_record *r)
{
    for (; r != NULL && r->kind != LIVES_END; r++) {
        for (unsigned i = 0; i <= r->n_more; i++)
            put_record(f, r);
    }
}

static void reserve(struct lives_ring *f)
{
    __atomic_store_n((uint64_t *)word(f, PRODUCER), f->end, __ATOMIC_RELEASE);
}

bool lives_ring_open(struct lives_ring *f, struct landing *zone,
                     const struct lives_record *now,
                     const struct lives_record *later)
{
    if (!map_all(f)) {
        perror("lives_ring_open");
        return false;
    }
    f->end = BEGIN;
    *(uint64_t *)word(f, CONSUMER) = BEGIN;
    put_records(f, now);
    reserve(f);
    put_records(f, later);
    zone->ring = (struct ring){.ring_fd = -1,
                               .control_fd = -1,
                               .wait_fd = -1,
                               .control = word(f, CONTROL),
                               .consumer = word(f, CONSUMER),
                               .producer = word(f, PRODUCER),
                               .data = data(f),
                               .n_bytes = LIVES_RING_BYTES};
    zone->has_ring = true;
    zone->head->tap.pos = (struct ingest_pos){(uint32_t)BEGIN, 0};
    zone->head->tap.counted = (uint32_t)BEGIN;
    return true;
}

void lives_ring_close(struct lives_ring *f, struct landing *zone)
{
    if (!zone->has_ring)
        return;
    zone->has_ring = false; /* it is not the kernel's: unmapped here */
    (void)munmap(f->map, f->words_bytes + 2 * LIVES_RING_BYTES);
    (void)close(f->fd);
}

void lives_ring_go_on(struct lives_ring *f)
{
    reserve(f);
}

bool lives_ring_copy(struct lives_ring *f)
{
    uint64_t begin = *(uint64_t *)word(f, CONSUMER);

    if (!map_records(f, MAP_PRIVATE))
        return false;
    for (uint64_t at = BEGIN; at < begin; at++) {
        unsigned char *p = data(f) + (at & (LIVES_RING_BYTES - 1));

        p[0] = p[LIVES_RING_BYTES] = 0xff;
    }
    return true;
}
