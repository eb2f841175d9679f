/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kernel programs and the agent tell each other: the words around a ring, and
 * the records in it. Included by both sides, so plain C and types of fixed width.
 *
 * Thread:  a program on any CPU writes; the reader reads.
 * Memory:  BPF maps; layouts are equal on both sides (asserted below).
 * Promise: 8-byte alignment, native byte order, no implicit padding. The agent
 *          drops and counts a record whose length does not fit its type.
 */
#ifndef RETRIEVER_BPF_EVENTS_H
#define RETRIEVER_BPF_EVENTS_H

#include <linux/types.h>

/* ---- Around each ring ---------------------------------------------------- */

enum ring_mode {
    RING_WAKE, /* the reader sleeps: the record that it would look at next wakes
                  it, as the kernel does by itself */
    RING_POLLED /* the reader comes by a timer: wake it only, and once, when so
                   much waits that the timer might be late */
};

/** One per ring, in a map that both sides have mapped. */
struct ring_control {
    /* the reader writes */
    __u32 mode;          /* enum ring_mode */
    __u32 wake_at_bytes; /* RING_POLLED: from so much on */
    /* Dead-man word, CLOCK_MONOTONIC: the reader will have come back by then. 0 =
     * it sleeps, and whoever wakes it sets the time. Past: it is dead or stalled,
     * and what has another way takes that. */
    __u64 alive_until_ns;
    __u32 off; /* take no more */
    __u32 pad[11];
    /* programs write */
    __u32 woken; /* RING_POLLED: done; the reader clears it behind its drain */
    __u32 pad2;
    __u64 n_full;   /* found no room in the ring */
    __u64 n_bypass; /* found the reader dead */
};

/** So long a reader may be away before it counts as dead: with the tick of the
 *  kernel's coarse clock, of up to 10 ms, no more than 50 ms in all. */
#define RING_ALIVE_NS 40000000ULL

/* ---- The tap ------------------------------------------------------------- */

/** A datagram, as it came to a socket of ours. The record in the ring is longer:
 *  records have one of a few lengths. */
struct tap_record {
    __u32 n_bytes;
    __u32 socket; /* tap_config.socket */
    __u32 tgid;   /* of the sender, initial namespace; 0 = not dependable */
    __u32 pad;
    /* then n_bytes */
};

/** Longest datagram that goes through the ring; the socket takes longer ones. */
#define TAP_MAX_BYTES (8192u + 256u)

/** Constant for a program: one is loaded for each socket. */
struct tap_config {
    __u32
        socket; /* its inode: it means the same to whoever reads on in the ring
                     after us */
    __u32 header_bytes; /* before the payload in the skb: 8 (UDP), 0 (Unix) */
    __u32 max_bytes;    /* dogstatsd_buffer_size */
    __u32 want_tgid;
};

/* ---- Lost datagrams ------------------------------------------------------ */

enum drop_transport { DROP_UDP, DROP_UDS, DROP_N_TRANSPORTS };

#define DROP_MAX_SOCKETS 32u
#define DROP_MAX_SENDERS 4096u

/** A socket of ours. */
struct drop_socket {
    __u64 cookie; /* SO_COOKIE */
    __u32 transport;
    __u32 port; /* UDP, host byte order */
};

/** Constants of drop.bpf.c. */
struct drop_config {
    struct drop_socket sockets[DROP_MAX_SOCKETS];
    __u32 n_sockets;
    __s32 cgroup_subsys; /* in css_set.subsys[]; -1 = version 2 */
    __u32 netns;         /* of the sockets, inode */
    /* enum skb_drop_reason of this kernel; ~0 = it has none */
    __u32 reason_queue;  /* the socket's buffer is full */
    __u32 reason_memory; /* the memory for sockets is used up */
    __u32 pad;
};

/** Who lost something: a process where it is known for sure, else an address, with
 *  the port when the sender is on this host. */
struct drop_key {
    __u32 transport;
    __u32 tgid;     /* initial namespace; 0 = not known */
    __u64 start_ns; /* with tgid, the identity of a process */
    __u8 address[16];
    __u16 family; /* of the address; 0 = none */
    __u16 port;
    __u32 pad;
};

/** What it lost. */
struct drop_value {
    __u64 packets;
    __u64 bytes; /* payload; Unix sockets: not known, 0 */
    __u64 cgid;
    char comm[16];
};

/** All that was lost on a transport: the truth that the sum of senders is held
 *  against. */
struct drop_total {
    __u64 packets;
    __u64 bytes;
};

/* ---- Kernel events ------------------------------------------------------- */

enum event_type {
    EVENT_NONE,
    EVENT_FORK,
    EVENT_EXEC,
    EVENT_EXIT,   /* last thread of a process */
    EVENT_ENV,    /* a watched variable was set, or removed */
    EVENT_CGROUP, /* made, removed, or seen for the first time */
    EVENT_RUNQ,   /* one wait for a CPU; stream mode only */
    EVENT_N_TYPES
};

/** Begins each record. Ids are those of the initial namespaces. */
struct event_hdr {
    __u16 type;
    __u16 len; /* of the whole record */
    __u32 cpu;
    __u64 ts_ns; /* CLOCK_MONOTONIC */
    __u32 tgid;
    __u32 tid;
    __u64 cgid; /* in the hierarchy that cgroups_hierarchy() chose */
};

/** FORK (hdr.tgid = the child) and EXEC. */
struct event_process {
    struct event_hdr hdr;
    __u32 ppid;
    __u32 family; /* 0 = none */
    __u32
        ns_tgid; /* hdr.tgid in our own pid namespace; 0 = not visible there */
    __u32 pad;
    __u64 start_ns; /* since boot; with tgid, the identity of a process */
    char comm[16];
};

#define EXIT_OOM_KILLED 1u /* the kernel chose it as it ran out of memory */

struct event_exit {
    struct event_hdr hdr;
    __u32 ppid;
    __u32 family;
    __u16 exit_code; /* as wait(2) tells it: status << 8 | signal */
    __u16 flags;
    __u32 ns_tgid;
    __u64 start_ns;
    __u64 run_ns; /* from its start to its end */
    char comm[16];
};

/** Value of the map life_watched, by tgid: whose FORK and EXIT are told. Children
 *  of a watched process are watched, with the same value; its end removes it. */
struct life_watch {
    __u32 family; /* 0 = none */
    __u32 flags;  /* EXIT_*; life.bpf.c's */
};

/** Constants of life.bpf.c. */
struct life_config {
    __u32 pidns_inode; /* of our own pid namespace */
    __s32 subsys;      /* cgroups_subsys() */
    __u32 own_tgid;    /* whose records nobody wants */
    __u32 all; /* FORK and EXIT of all processes, not the watched only */
};

enum event_env_op {
    ENV_SET,
    ENV_UNSET,
    ENV_CLEAR /* all variables */
};
#define ENV_TRUNCATED 1u   /* the value is longer than val_len */
#define ENV_READ_FAILED 2u /* the value could not be read */
#define ENV_MAX_VALUE 1024u

/** The call that a program is attached to: cookie of its link. */
enum env_function {
    ENV_SETENV,
    ENV_PUTENV,
    ENV_UNSETENV,
    ENV_CLEARENV,
    ENV_N_FUNCTIONS
};

#define ENV_MAX_NAMES 10u
#define ENV_NAME_BYTES 32u /* with at least one NUL */

/** Constant for the programs. */
struct env_config {
    __u32 ns_inum; /* our own pid namespace */
    __u32 own_tgid;
    __s32 subsys; /* cgroups_subsys() */
    __u32 n_names;
    char names[ENV_MAX_NAMES][ENV_NAME_BYTES]; /* watched, zeroes behind each */
};

/** The record ends with val_len bytes of val[], rounded up to 8. */
struct event_env {
    struct event_hdr hdr;
    __u8 op;       /* enum event_env_op */
    __u8 name_idx; /* in the list of watched names */
    __u8 overwrite;
    __u8 flags;
    __s32 rc; /* of the call; 0 when not known */
    __u32 val_len;
    __u32 ns_tgid;
    __u64 start_ns;
    char val[];
};

/* What the kernel knows of environments (env_table.h): one place for each number
 * modulo this. Numbers are given out in turn, so processes meet in a place when one
 * is older than the other by some thousands. */
#define ENV_TABLE_PLACES 4096u
#define ENV_TABLE_TEXT 952u
#define ENV_TABLE_LAST_AT 511u /* no value begins behind it; a mask */
#define ENV_TABLE_VALUE 440u   /* with its NUL */
_Static_assert(ENV_TABLE_LAST_AT + ENV_TABLE_VALUE < ENV_TABLE_TEXT,
               "the last value has room");

#define ENV_PLACE_UNSURE 1u /* something was not read: ask elsewhere */
#define ENV_PLACE_DEAD 2u   /* it has ended; others may have the place */

/** Value of the map env_table, by tgid % ENV_TABLE_PLACES. */
struct env_place {
    __u64 sequence; /* odd: being written; the rest may change */
    /* Since when it has been so, CLOCK_MONOTONIC: exec, fork or call. */
    __u64 ts_ns;
    __u32 tgid;    /* 0 = nobody */
    __u32 ns_tgid; /* in our own pid namespace; 0 = not visible there */
    __u32 flags;   /* ENV_PLACE_* */
    __u32 n_text;  /* bytes of text in use */
    struct {
        __u16 at; /* in text */
        __u16 n;  /* with its NUL; 0 = it is not set */
    } values[ENV_MAX_NAMES];
    char text[ENV_TABLE_TEXT];
};

/** Constants of env_exec.bpf.c. */
struct env_exec_config {
    __u32 ns_inum; /* our own pid namespace */
    __u32 n_names;
    __u32 n_prefix[ENV_MAX_NAMES]; /* bytes of "NAME=" */
    /* "NAME=" with zeroes behind it, and its bytes that count as ones. */
    __u64 prefixes[ENV_MAX_NAMES][ENV_NAME_BYTES / 8];
    __u64 masks[ENV_MAX_NAMES][ENV_NAME_BYTES / 8];
};

enum event_cgroup_op { CGROUP_SEEN, CGROUP_MADE, CGROUP_REMOVED };

struct event_cgroup {
    struct event_hdr hdr;
    __u8 op; /* enum event_cgroup_op */
    __u8 pad[3];
    __s32 hierarchy;
    __u64 id;
    char path[256]; /* MADE and REMOVED; cut, NUL at its end */
};

/** From the kernel a single wait; whoever adds up (agent/kernel_waits.h) sets @n. */
struct event_runq {
    struct event_hdr hdr;
    __u64 prev_cgid;
    __u64 latency_ns; /* of all of them */
    __u32 flags;
    __u32 n; /* waits */
};

/* ---- Activity of process families ---------------------------------------- */

/* Instants and durations in ticks of 1024 ns, modulo 2^44: half a year, at which
 * an idle family would be told as less idle than it is. */
#define ACTIVITY_TICK_SHIFT 10
#define ACTIVITY_COUNT_BITS 20
#define ACTIVITY_COUNT_MASK ((1ULL << ACTIVITY_COUNT_BITS) - 1)
#define ACTIVITY_TICKS_MASK ((1ULL << (64 - ACTIVITY_COUNT_BITS)) - 1)
#define ACTIVITY_MAX_FAMILIES 1024u /* 0 is none */
#define ACTIVITY_BUCKETS 128u       /* activity_bucket.h */

/** Value of the map `families`. Only what never changes back is added to here: the
 *  idle time that goes on now, and the burst before it, are in word and
 *  active_since_ticks alone, until the family wakes. */
struct activity_family {
    /* Low bits: runnable tasks. Above: when they last became none. One word, so
     * that whoever wakes the family sees both as of one instant. */
    __u64 word;
    __u64 active_since_ticks;
    __u64 n_idle; /* periods of idleness that are over, and long enough */
    __u64 active_ticks;
    __u64 idle_ticks;
    __u64 cpu_ns;
    __u64 n_execs;
    __u64 n_exits;
    __s32 n_threads;
    __s32 n_processes;
    __u64 n_repaired;
    __u32 bursts[ACTIVITY_BUCKETS];
    __u32 idles[ACTIVITY_BUCKETS];
};

/** Constants of activity.bpf.c. */
struct activity_config {
    __u64 threshold_ticks; /* shorter idleness is none */
    __u32 pidns_inode;
    __s32 subsys;
};

/** Between the agent and the walk over all tasks. */
struct activity_walk {
    __u32 n_new;   /* tasks that joined a family */
    __u32 ns_tgid; /* look for this process (our pid namespace); 0 = none */
    __u32 tgid;    /* found; 0 = not */
    __u32 ppid;
    __u64 start_ns;
    __u64 cgid;
    char comm[16];
};

/** Value of the per-CPU map event_stats, one entry per type: sent = received +
 *  lost, exactly, once the ring is empty. */
struct event_stats {
    __u64 sent; /* asked for room */
    __u64 lost; /* found none */
    __u64 bytes;
};

#define EVENTS_ASSERT(type, n)                                                 \
    _Static_assert(sizeof(struct type) == (n), "layout of " #type)
EVENTS_ASSERT(ring_control, 88);
EVENTS_ASSERT(tap_record, 16);
EVENTS_ASSERT(drop_config, 536);
EVENTS_ASSERT(drop_key, 40);
EVENTS_ASSERT(drop_value, 40);
EVENTS_ASSERT(drop_total, 16);
EVENTS_ASSERT(event_hdr, 32);
EVENTS_ASSERT(event_process, 72);
EVENTS_ASSERT(event_exit, 80);
EVENTS_ASSERT(life_watch, 8);
EVENTS_ASSERT(life_config, 16);
EVENTS_ASSERT(activity_family, 1104);
EVENTS_ASSERT(activity_config, 16);
EVENTS_ASSERT(activity_walk, 48);
EVENTS_ASSERT(env_config, 336);
EVENTS_ASSERT(event_env, 56);
EVENTS_ASSERT(env_place, 1024);
EVENTS_ASSERT(env_exec_config, 688);
EVENTS_ASSERT(event_cgroup, 304);
EVENTS_ASSERT(event_runq, 56);

#endif
