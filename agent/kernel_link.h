/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What passes between the reader and the kernel thread: records of the event ring
 * one way, packets of lines the other way, and the ring itself once it exists.
 *
 *   reader  --records-->  kernel thread  --packets-->  reader
 *
 * Each side has a bell, an eventfd that is readable when there is something for it:
 * records or packets, or room again where it had found none. So whoever finds a ring
 * full waits for its own bell.
 *
 * Thread:  "reader" calls by the reader, "kernel" calls by the kernel thread.
 * Memory:  two rings of fixed size, pages as they are used; nothing per record.
 * Promise: no lock, no wait; what was put before an order of the loop is there when
 *          that order is carried out. Nothing is lost between the two: a full ring
 *          refuses.
 */
#ifndef RETRIEVER_AGENT_KERNEL_LINK_H
#define RETRIEVER_AGENT_KERNEL_LINK_H

#include "agent/base/spsc.h"
#include "bpf/event_check.h"
#include "bpf/lines.h"

#define KERNEL_PACKETS 64u
#define KERNEL_RECORDS 4096u
#define KERNEL_SLOT_BYTES 64u /* most records take one, long ones several */

struct ring;

/** Whole lines; one byte behind them is the parser's. */
struct kernel_packet {
    uint32_t n;
    char bytes[LINES_PACKET_BYTES + 4];
};

/** Whole slots. */
struct kernel_record {
    _Alignas(8) unsigned char bytes[(EVENT_MAX_BYTES + KERNEL_SLOT_BYTES - 1) /
                                    KERNEL_SLOT_BYTES * KERNEL_SLOT_BYTES];
};

/* Embedded; made and closed by whoever owns both threads. */
struct kernel_link {
    struct spsc packets, records;
    struct kernel_packet *packet_mem;
    unsigned char *record_mem;           /* KERNEL_RECORDS slots */
    int reader_bell, kernel_bell;        /* eventfds */
    _Atomic bool packets_full;           /* the kernel thread found it so */
    _Atomic bool records_full;           /* the reader did */
    _Atomic(struct ring *) ring;         /* for the reader; NULL = none (yet) */
    _Atomic uint32_t max_delay_ms;       /* before @ring */
    _Atomic uint64_t n_records, n_wrong; /* taken from the ring; thrown away */
};

/** Returns 0 or -errno; @l is closed then. */
int kernel_link_init(struct kernel_link *l);
/** No thread may use it any more. Twice is fine. */
void kernel_link_fini(struct kernel_link *l);

/** A bell was heard: make it quiet, before looking. */
void kernel_link_hush(int bell);
void kernel_link_ring(int bell);

/* ---- Kernel thread ------------------------------------------------------ */

/** Let the reader read @ring, which stays until the reader has ended. */
void kernel_link_give_ring(struct kernel_link *l, struct ring *ring,
                           uint32_t max_delay_ms);

/** False: there is no room; kernel_bell says when to try again. */
bool kernel_link_put_packet(struct kernel_link *l,
                            const struct kernel_packet *p);

/** The oldest record. False: there is none. */
bool kernel_link_take_record(struct kernel_link *l, struct kernel_record *r);

/** Behind the last one that was there: the reader may wait for room. */
void kernel_link_took_records(struct kernel_link *l);

/* ---- Reader ------------------------------------------------------------- */

/** @r is whole (event_check.h). False: there is no room; reader_bell says when to
 *  try again. Ring kernel_bell when some were put. */
bool kernel_link_put_record(struct kernel_link *l,
                            const struct kernel_record *r);

/** The same with records of one slot each, @n behind one another: all or none. */
bool kernel_link_put_slots(struct kernel_link *l, const void *slots, size_t n);

bool kernel_link_take_packet(struct kernel_link *l, struct kernel_packet *p);

/** Behind the last one that was there. */
void kernel_link_took_packets(struct kernel_link *l);

#endif
