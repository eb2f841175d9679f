/* SPDX-License-Identifier: Apache-2.0 */
/* Can kernel programs be loaded here at all? */
#ifndef RETRIEVER_TESTS_BPF_REQUIRE_H
#define RETRIEVER_TESTS_BPF_REQUIRE_H

#include "tests/support/skips.h"

/** Returns when they can. Else prints why and ends the program (skip_for()). */
void require_bpf(void);

#endif
