/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/require.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/ring.h"

#define SKIPPED 77

void skip_for(const char *why)
{
    const char *required = getenv("RETRIEVER_TEST_REQUIRE_BPF");

    printf("skipped: %s\n", why);
    exit(required != NULL && strcmp(required, "1") == 0 ? EXIT_FAILURE
                                                        : SKIPPED);
}

void require_bpf(void)
{
    struct loader_cause cause = {0};
    struct ring ring;
    char why[400];
    int rc = ring_create(&ring, 1u << 16, &cause);

    if (rc == 0) {
        ring_close(&ring, false);
        return;
    }
    if (rc < 0)
        (void)snprintf(cause.why, sizeof(cause.why), "%s", strerror(-rc));
    (void)snprintf(why, sizeof(why), "%s; %s", cause.why, cause.remedy);
    skip_for(why);
}
