/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command `retriever intake`: options, the wait for a signal, the totals.
 *
 * Thread:  the main thread of the process.
 * Memory:  see intake_serve.h.
 * Promise: the first line on stdout is `listening on URL`, written when the
 *          address can be connected to.
 */
#ifndef RETRIEVER_AGENT_INTAKE_MAIN_H
#define RETRIEVER_AGENT_INTAKE_MAIN_H

/** Returns the exit code. */
int intake_main(int argc, char **argv);

#endif
