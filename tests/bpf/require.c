/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/require.h"

#include <stdio.h>
#include <string.h>

#include "bpf/ring.h"

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
