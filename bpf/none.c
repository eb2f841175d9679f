/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A build without kernel programs: what the agent calls answers that it has none.
 */
#include <errno.h>
#include <stdio.h>

#include "bpf/drop.h"
#include "bpf/event_ring.h"
#include "bpf/life.h"
#include "bpf/named_types.h"
#include "bpf/probe.h"
#include "bpf/runq_kernel.h"
#include "bpf/tap.h"

static int refuse(struct loader_cause *cause)
{
    (void)snprintf(cause->why, sizeof(cause->why),
                   "this build has no kernel programs");
    (void)snprintf(cause->remedy, sizeof(cause->remedy),
                   "build with clang and libbpf (-DRETRIEVER_BPF=ON)");
    (void)snprintf(cause->reason, sizeof(cause->reason), "not_built");
    return LOADER_REFUSED;
}

int loader_probe(struct loader_cause *cause, uint32_t *own_tgid)
{
    (void)own_tgid;
    return refuse(cause);
}

int event_ring_create(struct event_ring *er, uint32_t n_bytes,
                      struct loader_cause *cause)
{
    (void)n_bytes;
    *er = (struct event_ring){.ring = {.ring_fd = -1,
                                       .control_fd = -1,
                                       .wait_fd = -1},
                              .stats_fd = -1};
    return refuse(cause);
}

void event_ring_close(struct event_ring *er)
{
    (void)er;
}

void event_ring_totals(int stats_fd, struct event_stats *sum)
{
    (void)stats_fd;
    *sum = (struct event_stats){0};
}

struct btf *probe_types(void)
{
    return NULL;
}

void probe_types_free(struct btf *types)
{
    (void)types;
}

int named_types_create(struct named_types *t, const struct btf *kernel)
{
    (void)kernel;
    *t = (struct named_types){.fd = -1};
    return -ENOENT;
}

void named_types_close(struct named_types *t)
{
    (void)t;
}

int probe_enum(const struct btf *types, const char *type, const char *name)
{
    (void)types;
    (void)type;
    (void)name;
    return -ENOENT;
}

int probe_tracepoint(const struct btf *types, const char *name, int *task_at)
{
    (void)types;
    (void)name;
    (void)task_at;
    return -ENOENT;
}

int life_watched_create(void)
{
    return -ENOSYS;
}

int ring_make(int *ring_fd, int *control_fd, uint32_t n_bytes,
              struct loader_cause *cause)
{
    (void)ring_fd;
    (void)control_fd;
    (void)n_bytes;
    return refuse(cause);
}

int ring_open(struct ring *r, int ring_fd, int control_fd)
{
    (void)r;
    (void)ring_fd;
    (void)control_fd;
    return -ENOSYS;
}

void ring_close(struct ring *r, bool keep_maps)
{
    (void)r;
    (void)keep_maps;
}

void ring_consumed(struct ring *r, uint64_t pos)
{
    (void)r;
    (void)pos;
}

uint64_t ring_begin(const struct ring *r)
{
    (void)r;
    return 0;
}

void ring_awake(struct ring *r)
{
    (void)r;
}

enum ring_wait ring_rest(struct ring *r, uint64_t n, bool woken,
                         uint64_t now_ns)
{
    (void)r;
    (void)n;
    (void)woken;
    (void)now_ns;
    return RING_SLEEP;
}

void ring_alive(struct ring *r, uint64_t now_ns, bool asleep)
{
    (void)r;
    (void)now_ns;
    (void)asleep;
}

int tap_load(struct tap *t, const struct ring *ring,
             const struct tap_opts *opts, struct loader_cause *cause)
{
    (void)t;
    (void)ring;
    (void)opts;
    (void)cause;
    return -ENOSYS;
}

int tap_attach(const struct tap *t, uint32_t source, int socket_fd)
{
    (void)t;
    (void)source;
    (void)socket_fd;
    return -ENOSYS;
}

int tap_detach(int socket_fd)
{
    (void)socket_fd;
    return 0;
}

void tap_close(struct tap *t)
{
    (void)t;
}

int runq_kernel_open(struct runq_kernel **out, const struct runq_opts *opts,
                     const struct feature_env *env,
                     const struct runq_kernel_force *force,
                     struct loader_cause *cause)
{
    (void)out;
    (void)opts;
    (void)env;
    (void)force;
    return refuse(cause);
}

int runq_kernel_start(struct runq_kernel *k, struct loader_cause *cause)
{
    (void)k;
    return refuse(cause);
}

void runq_kernel_stop(struct runq_kernel *k)
{
    (void)k;
}

void runq_kernel_close(struct runq_kernel *k)
{
    (void)k;
}

void runq_kernel_tell(struct runq_kernel *k, const struct cgroup_info *info,
                      bool is_silent)
{
    (void)k;
    (void)info;
    (void)is_silent;
}

void runq_kernel_read(struct runq_kernel *k,
                      const struct runq_kernel_sink *sink)
{
    (void)k;
    (void)sink;
}

void runq_kernel_own(struct runq_kernel *k, struct own_waits *w)
{
    (void)k;
    (void)w;
}

void runq_kernel_stats(struct runq_kernel *k, struct sched_stats *delta)
{
    (void)k;
    *delta = (struct sched_stats){0};
}

int drop_add_socket(struct drop_opts *o, int fd)
{
    (void)o;
    (void)fd;
    return 0;
}

void drop_report(const void *self, struct drop_report *out)
{
    (void)self;
    *out = (struct drop_report){.n_top = 0};
}

bool drop_top(void *self, char *line, size_t size)
{
    (void)self;
    (void)line;
    (void)size;
    return false;
}
