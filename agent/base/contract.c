/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Not through the log: its state may be what is broken. */
void contract_broken(const char *what, const char *file, int line)
{
    char text[512];
    int n =
        snprintf(text, sizeof(text), "retriever: broken contract: %s:%d: %s\n",
                 file, line, what);

    if (n > 0) {
        size_t len = (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
        ssize_t ignored = write(STDERR_FILENO, text, len);

        (void)ignored;
    }
    abort();
}
