/* SPDX-License-Identifier: Apache-2.0 */
/* A record of the event ring of any bytes: what counts as whole may be read as its
 * type says, to the last byte. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/event_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_env env;
    struct event_hdr h;

    if (!event_is_whole(data, (uint32_t)size))
        return 0;
    memcpy(&h, data, sizeof(h));
    need(h.len == size && h.type > EVENT_NONE && h.type < EVENT_N_TYPES);
    need(size >= event_bytes(h.type) && size <= EVENT_MAX_BYTES);
    if (h.type == EVENT_ENV) {
        memcpy(&env, data, sizeof(env));
        need(sizeof(env) + env.val_len <= size);
    } else if (h.type == EVENT_CGROUP) {
        need(memchr(data + offsetof(struct event_cgroup, path), '\0',
                    sizeof(((struct event_cgroup *)0)->path)) != NULL);
    }
    return 0;
}
