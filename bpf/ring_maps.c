/* SPDX-License-Identifier: Apache-2.0 */
/* Apart from ring.c, which reads a ring without libbpf. */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bpf/ring.h"

int ring_make(int *ring_fd, int *control_fd, uint32_t n_bytes,
              struct loader_cause *cause)
{
    LIBBPF_OPTS(bpf_map_create_opts, mmapable, .map_flags = BPF_F_MMAPABLE);
    int ring = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "retriever_ring", 0, 0,
                              n_bytes, NULL);
    int control = -1;

    if (ring >= 0)
        control = bpf_map_create(BPF_MAP_TYPE_ARRAY, "retriever_word",
                                 sizeof(uint32_t), sizeof(struct ring_control),
                                 1, &mmapable);
    if (control < 0) {
        loader_explain(cause, "the kernel refused the ring buffer", errno);
        if (ring >= 0)
            (void)close(ring);
        return LOADER_REFUSED;
    }
    *ring_fd = ring;
    *control_fd = control;
    return 0;
}

int ring_check(int ring_fd, int control_fd, uint32_t *n_bytes)
{
    struct bpf_map_info info = {0};
    uint32_t n = sizeof(info);

    if (bpf_obj_get_info_by_fd(ring_fd, &info, &n) != 0)
        return -errno;
    if (info.type != BPF_MAP_TYPE_RINGBUF)
        return -EINVAL;
    *n_bytes = info.max_entries;
    memset(&info, 0, sizeof(info));
    n = sizeof(info);
    if (bpf_obj_get_info_by_fd(control_fd, &info, &n) != 0)
        return -errno;
    return info.type == BPF_MAP_TYPE_ARRAY &&
                   info.value_size == sizeof(struct ring_control) &&
                   (info.map_flags & BPF_F_MMAPABLE) != 0
               ? 0
               : -EINVAL;
}
