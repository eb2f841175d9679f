/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities of the worker's threads: each gives up what it will not use. The one
 * that talks to the network cannot load kernel programs, the one that reads
 * other processes' memory cannot write other users' files.
 *
 * Threads share their memory, so this is no wall between them. It bounds what a
 * confused thread can be made to do by system calls of its own.
 *
 * Thread:  the caller's own capabilities, nobody else's; a thread that is made later
 *          has those of its maker.
 * Memory:  none.
 * Promise: nothing is ever gained. Files are found and written as before: a root
 *          that may not pass by permissions is locked out of other users' folders.
 */
#ifndef RETRIEVER_AGENT_PRIVILEGE_H
#define RETRIEVER_AGENT_PRIVILEGE_H

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>

#define PRIVILEGE(cap) (UINT64_C(1) << (cap))

/** What is in run_path, log_file, api_key_file, certificates: they may be anybody's. */
#define PRIVILEGE_FILES                                                        \
    (PRIVILEGE(CAP_DAC_OVERRIDE) | PRIVILEGE(CAP_DAC_READ_SEARCH) |            \
     PRIVILEGE(CAP_FOWNER))

/** Files, and health_port, which may be below 1024. */
#define PRIVILEGE_LOOP (PRIVILEGE_FILES | PRIVILEGE(CAP_NET_BIND_SERVICE))

/** To fall back to a nice value, should real time be taken away. */
#define PRIVILEGE_NICE PRIVILEGE(CAP_SYS_NICE)

/** This thread keeps those of @capabilities that it has, and no other. Whoever was
 *  given CAP_SYS_ADMIN in place of the narrower ones that came with Linux 5.8 keeps
 *  that where one of them is kept. Returns 0 or -errno: it keeps all. */
int privilege_keep(uint64_t capabilities);

/** This thread may use all of @capabilities now. */
bool privilege_has(uint64_t capabilities);

#endif
