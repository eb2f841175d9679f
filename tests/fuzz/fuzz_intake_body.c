/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a compressed body: never more than the bound comes out. */
#include <stdint.h>
#include <stdlib.h>

#include "agent/intake_body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const encodings[] = {"deflate", "gzip", "zstd"};
    void *out = NULL;
    size_t n = 0;

    if (size < 1)
        return 0;
    if (intake_body_plain(encodings[data[0] % 3], data + 1, size - 1, 100000,
                          &out, &n) == 0 &&
        n > 100000)
        abort();
    free(out);
    return 0;
}
