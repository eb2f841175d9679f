/* SPDX-License-Identifier: Apache-2.0 */
/* Can kernel programs be loaded here at all? */
#ifndef RETRIEVER_TESTS_BPF_REQUIRE_H
#define RETRIEVER_TESTS_BPF_REQUIRE_H

/** Returns when they can. Else prints why and ends the program: as skipped, or as
 *  failed when RETRIEVER_TEST_REQUIRE_BPF is 1. */
void require_bpf(void);

/** The same for something else that is missing. */
void skip_for(const char *why);

#endif
