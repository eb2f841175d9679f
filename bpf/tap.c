/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Older kernels do not tell a socket filter who is sending. */
static int load_one(int *program, const struct ring *ring,
                    const struct tap_config *cfg, struct loader_cause *cause)
{
    struct bpf_object *o = NULL;
    int rc = loader_open(&o, LOADER_TAP, NULL, cause);

    if (rc == 0)
        rc = loader_set_constants(o, cfg, sizeof(*cfg));
    if (rc == 0)
        rc = loader_share_map(o, "tap_ring", ring->ring_fd);
    if (rc == 0)
        rc = loader_share_map(o, "tap_control", ring->control_fd);
    if (rc == 0)
        rc = loader_load(o, cause);
    if (rc == 0) {
        int fd = fcntl(loader_program(o, "tap"), F_DUPFD_CLOEXEC, 0);

        *program = fd;
        rc = fd >= 0 ? 0 : -errno;
    }
    loader_close(o);
    return rc;
}

int tap_load(struct tap *t, const struct ring *ring,
             const struct tap_opts *opts, struct loader_cause *cause)
{
    int rc = 0;

    for (uint32_t i = 0; i < TAP_MAX_SOURCES; i++)
        t->programs[i] = -1;
    for (uint32_t i = 0; rc == 0 && i < opts->n_sources; i++) {
        const struct tap_source *s = &opts->sources[i];
        struct tap_config cfg = {
            .socket = s->socket,
            .header_bytes = s->header_bytes,
            .max_bytes = opts->max_bytes,
            .want_tgid = 1,
        };

        if (s->source >= TAP_MAX_SOURCES)
            rc = -EINVAL;
        else
            rc = load_one(&t->programs[s->source], ring, &cfg, cause);
        if (rc == LOADER_REFUSED) {
            cfg.want_tgid = 0;
            rc = load_one(&t->programs[s->source], ring, &cfg, cause);
        }
    }
    if (rc != 0)
        tap_close(t);
    return rc;
}

int tap_attach(const struct tap *t, uint32_t source, int socket_fd)
{
    int fd = t->programs[source];

    if (fd < 0)
        return -ENOENT;
    return setsockopt(socket_fd, SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd)) ==
                   0
               ? 0
               : -errno;
}

int tap_detach(int socket_fd)
{
    int none = 0;

    if (setsockopt(socket_fd, SOL_SOCKET, SO_DETACH_BPF, &none, sizeof(none)) ==
            0 ||
        errno == ENOENT)
        return 0;
    return -errno;
}

void tap_close(struct tap *t)
{
    for (uint32_t i = 0; i < TAP_MAX_SOURCES; i++) {
        if (t->programs[i] >= 0)
            (void)close(t->programs[i]);
        t->programs[i] = -1;
    }
}
