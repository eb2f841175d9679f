/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REQUIRE(): a caller's duty, checked in every build.
 *
 * For mistakes of our own code only (a NULL that may not be, an order of calls
 * that may not happen). Never applied to bytes that came from outside.
 *
 * Thread:  any.
 * Memory:  none.
 * Promise: a broken duty ends the process at once, before it damages state;
 *          the keeper starts a successor that rolls the open transaction back.
 */
#ifndef RETRIEVER_AGENT_BASE_CONTRACT_H
#define RETRIEVER_AGENT_BASE_CONTRACT_H

/** Write one line to stderr and abort. */
_Noreturn void contract_broken(const char *what, const char *file, int line);

#define REQUIRE(cond)                                                          \
    ((cond) ? (void)0 : contract_broken(#cond, __FILE__, __LINE__))

#endif
