/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test needs and is not here. Said in each case; where
 * RETRIEVER_TEST_REQUIRE_BPF is 1 it is a failure, unless a machine that has all
 * that we ask for may be without it.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_SKIPS_H
#define RETRIEVER_TESTS_SUPPORT_SKIPS_H

#include <stdbool.h>

/** Nothing that the tests can be given may be missing. */
bool skips_fail(void);

/** Ends the program as skipped, or as failed where skips fail. */
void skip_for(const char *why);

/** Returns when @has. Else ends this row as skipped, or as failed where skips fail.
 *  For a package, a privilege, a mount. */
void require_row(bool has, const char *what);

/** Ends this row as skipped. For what an older kernel, or another way of mounting
 *  cgroups, does not have. */
void skip_row(const char *why);

#endif
