/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/skips.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SKIPPED 77

bool skips_fail(void)
{
    const char *required = getenv("RETRIEVER_TEST_REQUIRE_BPF");

    return required != NULL && strcmp(required, "1") == 0;
}

void skip_for(const char *why)
{
    printf("skipped: %s\n", why);
    exit(skips_fail() ? EXIT_FAILURE : SKIPPED);
}

void skip_row(const char *why)
{
    print_message("skipped: %s\n", why);
    skip();
}

void require_row(bool has, const char *what)
{
    if (has)
        return;
    if (skips_fail())
        fail_msg("missing: %s", what);
    skip_row(what);
}
