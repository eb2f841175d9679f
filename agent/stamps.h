/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <run_path>/stamps: the latest second that any part of ours used, so that the
 * next life within the same ten seconds takes another one.
 *
 * Thread:  load before the first worker, save by the encoder.
 * Memory:  none.
 * Promise: 16 bytes written by one pwrite(): a kill leaves the old or the new
 *          ones. Not synced: after a power loss a life stamps its first part by
 *          its own start second, as without the file.
 */
#ifndef RETRIEVER_AGENT_STAMPS_H
#define RETRIEVER_AGENT_STAMPS_H

#include <stdint.h>

#define STAMPS_FILE "stamps"

/** The stamp saved last; 0: there is none, or none that can be read (logged). */
int64_t stamps_load(int run_dir);

/** Returns 0 or -errno. */
int stamps_save(int run_dir, int64_t stamp_s);

#endif
