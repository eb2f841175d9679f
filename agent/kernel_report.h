/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `retriever ebpf status`: what of the kernel side is on, reduced (it runs, with
 * something missing) or off, why, and what would help; for people and for programs.
 *
 * Thread:  the loop.
 * Memory:  the text goes to the caller's buffer.
 * Promise: both forms say the same.
 */
#ifndef RETRIEVER_AGENT_KERNEL_REPORT_H
#define RETRIEVER_AGENT_KERNEL_REPORT_H

#include "agent/base/buf.h"
#include "agent/config.h"
#include "agent/kernel.h"

/** Append the report on @k under the setting @mode. @k NULL: @off says why there is
 *  none. */
void kernel_report(struct kernel *k, enum ebpf_mode mode,
                   const struct loader_cause *off, bool json, struct buf *out);

/** Append one line for the log: what is on, reduced and off, why, and what would
 *  help; a feature that a setting switched off is left out. By any thread while @rows
 *  stand still. Returns whether nothing is missing. */
bool kernel_summary(const struct kernel_feature *rows, uint32_t n,
                    struct buf *out);

#endif
