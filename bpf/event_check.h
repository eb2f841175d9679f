/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a record of the ring what it says it is? Asked once, by the reader: behind
 * it, whoever gets a record may read all fields of its type.
 *
 * Thread:  any; pure.
 * Memory:  none.
 * Promise: total; nothing is read beyond the @n bytes.
 */
#ifndef RETRIEVER_BPF_EVENT_CHECK_H
#define RETRIEVER_BPF_EVENT_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bpf/events.h"

/** Longest record of any type. */
#define EVENT_MAX_BYTES (sizeof(struct event_env) + ENV_MAX_VALUE)

/** Bytes of a record of @type; of ENV, without its value; 0 = no such type. */
static inline uint32_t event_bytes(uint32_t type)
{
    switch (type) {
    case EVENT_FORK:
    case EVENT_EXEC:
        return sizeof(struct event_process);
    case EVENT_EXIT:
        return sizeof(struct event_exit);
    case EVENT_ENV:
        return sizeof(struct event_env);
    case EVENT_CGROUP:
        return sizeof(struct event_cgroup);
    case EVENT_RUNQ:
        return sizeof(struct event_runq);
    default:
        return 0;
    }
}

/** Whether @record, @n bytes in the ring, is whole and of the length of its type,
 *  with its texts ended. */
static inline bool event_is_whole(const void *record, uint32_t n)
{
    struct event_hdr h;
    uint32_t want;

    if (n < sizeof(h) || n > EVENT_MAX_BYTES)
        return false;
    memcpy(&h, record, sizeof(h));
    want = event_bytes(h.type);
    if (h.type == EVENT_ENV && n >= want) {
        struct event_env e;

        memcpy(&e, record, sizeof(e));
        if (e.val_len > ENV_MAX_VALUE)
            return false;
        want += (e.val_len + 7) / 8 * 8;
    }
    if (want == 0 || n != want || h.len != n)
        return false;
    return h.type != EVENT_CGROUP || ((const char *)record)[n - 1] == '\0';
}

/** "fork", "exec", ...; "?" */
static inline const char *event_type_name(uint32_t type)
{
    static const char *const names[EVENT_N_TYPES] = {
        [EVENT_NONE] = "?",    [EVENT_FORK] = "fork", [EVENT_EXEC] = "exec",
        [EVENT_EXIT] = "exit", [EVENT_ENV] = "env",   [EVENT_CGROUP] = "cgroup",
        [EVENT_RUNQ] = "runq"};

    return names[type < EVENT_N_TYPES ? type : EVENT_NONE];
}

#endif
