/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the record of an upgrade. What is accepted has connections whose
 * bytes lie inside the record, and listeners that can be.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/handover.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct handover h;
    const char *why = NULL;
    int rc;

    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 ||
        pwrite(fd, data, size, 0) != (ssize_t)size)
        return 0;
    rc = handover_read(&h, fd, &why);
    if (rc == HANDOVER_REFUSED && why == NULL)
        abort();
    if (rc != 0)
        return 0;
    if (h.sockets.n > SOCKETS_MAX)
        abort();
    for (uint32_t i = 0; i < h.n_conns; i++) {
        const struct handover_conn *c = &h.conns[i];

        if (c->listener >= SOCKETS_MAX || c->at > h.n_bytes ||
            c->n_bytes > h.n_bytes - c->at)
            abort();
    }
    handover_fini(&h);
    return 0;
}
