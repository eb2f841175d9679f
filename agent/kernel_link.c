/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kernel_link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int kernel_link_init(struct kernel_link *l)
{
    int rc = 0;

    memset(l, 0, sizeof(*l));
    l->reader_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->kernel_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->reader_bell < 0 || l->kernel_bell < 0)
        rc = -errno;
    l->packet_mem = calloc(KERNEL_PACKETS, sizeof(*l->packet_mem));
    l->record_mem = calloc(KERNEL_RECORDS, KERNEL_SLOT_BYTES);
    if (l->packet_mem == NULL || l->record_mem == NULL)
        rc = -ENOMEM;
    if (rc != 0) {
        kernel_link_fini(l);
        return rc;
    }
    spsc_init(&l->packets, l->packet_mem, KERNEL_PACKETS,
              sizeof(*l->packet_mem));
    spsc_init(&l->records, l->record_mem, KERNEL_RECORDS, KERNEL_SLOT_BYTES);
    return 0;
}

void kernel_link_fini(struct kernel_link *l)
{
    if (l->reader_bell >= 0)
        (void)close(l->reader_bell);
    if (l->kernel_bell >= 0)
        (void)close(l->kernel_bell);
    l->reader_bell = l->kernel_bell = -1;
    free(l->packet_mem);
    free(l->record_mem);
    l->packet_mem = NULL;
    l->record_mem = NULL;
}

void kernel_link_hush(int bell)
{
    uint64_t n;

    (void)!read(bell, &n, sizeof(n));
}

void kernel_link_ring(int bell)
{
    uint64_t one = 1;

    (void)!write(bell, &one, sizeof(one)); /* EAGAIN: it rings already */
}

void kernel_link_give_ring(struct kernel_link *l, struct ring *ring,
                           uint32_t max_delay_ms)
{
    atomic_store(&l->max_delay_ms, max_delay_ms);
    atomic_store(&l->ring, ring);
    kernel_link_ring(l->reader_bell);
}

/* Full: say so first and try again. Either there is room by now, or the other side
 * has still to take a record and will then see the word. */
static bool put(struct spsc *s, _Atomic bool *full, const void *records,
                size_t n)
{
    if (spsc_push_n(s, records, n))
        return true;
    atomic_store(full, true);
    return spsc_push_n(s, records, n);
}

bool kernel_link_put_packet(struct kernel_link *l,
                            const struct kernel_packet *p)
{
    if (!put(&l->packets, &l->packets_full, p, 1))
        return false;
    kernel_link_ring(l->reader_bell);
    return true;
}

bool kernel_link_take_packet(struct kernel_link *l, struct kernel_packet *p)
{
    return spsc_pop(&l->packets, p);
}

void kernel_link_took_packets(struct kernel_link *l)
{
    if (atomic_exchange(&l->packets_full, false))
        kernel_link_ring(l->kernel_bell);
}

bool kernel_link_put_record(struct kernel_link *l,
                            const struct kernel_record *r)
{
    const struct event_hdr *h = (const void *)r->bytes;

    return put(&l->records, &l->records_full, r->bytes,
               (h->len + KERNEL_SLOT_BYTES - 1) / KERNEL_SLOT_BYTES);
}

bool kernel_link_put_slots(struct kernel_link *l, const void *slots, size_t n)
{
    return put(&l->records, &l->records_full, slots, n);
}

bool kernel_link_take_record(struct kernel_link *l, struct kernel_record *r)
{
    const struct event_hdr *h = (const void *)r->bytes;

    if (!spsc_pop(&l->records, r->bytes))
        return false;
    for (uint32_t at = KERNEL_SLOT_BYTES; at < h->len; at += KERNEL_SLOT_BYTES)
        REQUIRE(spsc_pop(&l->records, r->bytes + at)); /* put in one go */
    return true;
}

void kernel_link_took_records(struct kernel_link *l)
{
    if (atomic_exchange(&l->records_full, false))
        kernel_link_ring(l->reader_bell);
}
