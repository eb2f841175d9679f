/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why the kernel refused real-time priority, and what would make it say yes. It says
 * EPERM to all: a missing capability, a group without real-time budget, a sandbox.
 *
 * Thread:  any but the reader: it reads small files.
 * Memory:  none.
 * Promise: reads only below @root; whatever the files hold, one cause comes out.
 */
#ifndef RETRIEVER_AGENT_PRIORITY_CAUSE_H
#define RETRIEVER_AGENT_PRIORITY_CAUSE_H

enum priority_cause {
    PRIORITY_GRANTED,
    PRIORITY_NO_CAPABILITY,
    PRIORITY_USER_NAMESPACE, /* the capability counts inside of it only */
    PRIORITY_NO_RUNTIME,     /* our v1 group has no real-time budget */
    PRIORITY_RT_GROUP,       /* groups have budgets, and v2 cannot set them */
    PRIORITY_UNSUPPORTED, /* the kernel, or what stands for one, has it not */
    PRIORITY_FORBIDDEN,   /* a sandbox, as far as can be told */
    PRIORITY_RUNAWAY      /* granted, and taken away again */
};

/** @err: errno of the refusal of @rt_priority to this process; 0 = none. @root:
 *  before /proc and /sys ("" = the real ones). */
enum priority_cause priority_diagnose(const char *root, int err,
                                      int rt_priority);

/** One word, as in tags: "capability", "rt_runtime"; "" = granted. */
const char *priority_cause_name(enum priority_cause c);
/** For people: what it is, and what to do about it. */
const char *priority_cause_text(enum priority_cause c);
const char *priority_cause_remedy(enum priority_cause c);

#endif
