/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health_port: answers 200 while the worker's loop and reader are alive, else
 * 500, and says nothing else.
 *
 * Thread:  started and stopped by the loop; asked on a thread of the HTTP server.
 * Memory:  one small object; the server's thread belongs to the module.
 * Promise: the agent runs on whatever happens here.
 */
#ifndef RETRIEVER_AGENT_HEALTH_H
#define RETRIEVER_AGENT_HEALTH_H

#include "agent/worker.h"

struct health; /* opaque */

/** Load the HTTP server's module and serve. A failure is one warning and leaves
 *  *out NULL: health never stops the agent. */
void health_start(struct health **out, const struct worker_env *env);

/** NULL-safe. */
void health_stop(struct health *h);

#endif
