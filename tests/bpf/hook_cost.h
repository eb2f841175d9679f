/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs on the hooks of the scheduler take for a switch and a wake-up, beside
 * programs that do nothing there. By the kernel's own count (BPF_ENABLE_STATS), which is
 * good for a nanosecond where the difference of two switches is lost in those of the
 * machine.
 *
 * Thread:  one.
 * Memory:  of libbpf, while empty programs are on.
 * Promise: programs that were there at hook_cost_last_id() are not counted, but those
 *          that anybody loads on these hooks behind it are; a moment in which some
 *          come or go is left out. Nothing is left on the kernel's hooks behind
 *          empty_hooks_off(), or the end of the process.
 */
#ifndef RETRIEVER_TESTS_BPF_HOOK_COST_H
#define RETRIEVER_TESTS_BPF_HOOK_COST_H

#include <stdint.h>

#include "tests/support/pingpong.h"

#define EMPTY_HOOKS 3

struct bpf_link;
struct bpf_object;

struct empty_hooks {
    struct bpf_object *object;
    struct bpf_link *links[EMPTY_HOOKS];
};

/** Load and attach programs that do nothing. Returns 0 or -errno; nothing is left
 *  then. */
int empty_hooks_on(struct empty_hooks *h);
void empty_hooks_off(struct empty_hooks *h);

/** What was loaded until now has no higher id. */
uint32_t hook_cost_last_id(void);

/** ns in programs with a higher id than @after, whoever has loaded them, for one switch
 *  and one wake-up, what the counting takes included: the least of some moments. 0 when
 *  there are none; HUGE_VAL when no moment was left because some came or went in each.
 *  Needs CAP_SYS_ADMIN; < 0 without. */
double hook_cost_ns(const struct pingpong *p, uint32_t after);

#endif
