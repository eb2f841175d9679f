/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A build without kernel programs: what stands in for all files that need libbpf, and
 * refuses. Whatever has another way is compiled in every build and takes it, as it
 * does where the kernel refuses.
 */
#include <errno.h>

#include "bpf/activity_families.h"
#include "bpf/env_attach_link.h"
#include "bpf/env_exec.h"
#include "bpf/event_ring.h"
#include "bpf/features.h"
#include "bpf/named_types.h"
#include "bpf/probe.h"
#include "bpf/runq_kernel.h"
#include "bpf/tap.h"

static int refuse(struct loader_cause *cause)
{
    *cause = (struct loader_cause){
        .why = "this agent was built without kernel programs",
        .remedy = "build it with clang, llvm, libbpf-dev and libelf-dev "
                  "installed (-DRETRIEVER_BPF=ON)",
        .reason = "not_built",
    };
    return LOADER_REFUSED;
}

/* ---- Probe, ring, maps --------------------------------------------------- */

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

int life_watched_create(void)
{
    return -ENOSYS;
}

void life_watched_add(int watched_fd, uint32_t tgid)
{
    (void)watched_fd;
    (void)tgid;
}

int ring_make(int *ring_fd, int *control_fd, uint32_t n_bytes,
              struct loader_cause *cause)
{
    (void)ring_fd;
    (void)control_fd;
    (void)n_bytes;
    return refuse(cause);
}

int ring_check(int ring_fd, int control_fd, uint32_t *n_bytes)
{
    (void)ring_fd;
    (void)control_fd;
    (void)n_bytes;
    return -ENOSYS;
}

/* ---- The tap ------------------------------------------------------------- */

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

/* ---- What features with another way ask first ----------------------------- */

int activity_families_open(struct activity_families **out,
                           const struct feature_env *env,
                           struct loader_cause *cause)
{
    (void)out;
    (void)env;
    return refuse(cause);
}

void activity_families_event(struct activity_families *a,
                             const struct event_hdr *ev)
{
    (void)a;
    (void)ev;
}

void activity_families_collect(struct activity_families *a, struct lines *out,
                               bool last)
{
    (void)a;
    (void)out;
    (void)last;
}

void activity_families_close(struct activity_families *a)
{
    (void)a;
}

int attach_link_load(struct attach_linker *l, const struct attach_opts *o,
                     enum attach_mode mode, const char *types,
                     struct loader_cause *cause)
{
    (void)l;
    (void)o;
    (void)mode;
    (void)types;
    return refuse(cause);
}

void attach_link_unload(struct attach_linker *l)
{
    (void)l;
}

int attach_link(struct attach_linker *l, struct attach_links *to, int fd,
                const struct image *im)
{
    (void)l;
    (void)to;
    (void)fd;
    (void)im;
    return -ENOSYS;
}

void attach_unlink(struct attach_links *l)
{
    (void)l;
}

int env_exec_create(struct env_exec **out, const struct watch *w,
                    uint32_t ns_inum, const char *types)
{
    (void)out;
    (void)w;
    (void)ns_inum;
    (void)types;
    return -ENOSYS;
}

int env_exec_start(struct env_exec *e, struct loader_cause *cause)
{
    (void)e;
    return refuse(cause);
}

void env_exec_close(struct env_exec *e)
{
    (void)e;
}

int env_exec_table(const struct env_exec *e)
{
    (void)e;
    return -ENOSYS;
}

int env_exec_pids(const struct env_exec *e)
{
    (void)e;
    return -ENOSYS;
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

/* ---- Features that have no other way -------------------------------------- */

static int open_none(void **self, const struct feature_env *env,
                     struct loader_cause *cause)
{
    (void)self;
    (void)env;
    return refuse(cause);
}

const struct feature drop_feature = {
    .name = "drop",
    .what = DROP_WHAT,
    .open = open_none,
};

const struct feature life_feature = {
    .name = "life",
    .what = LIFE_WHAT,
    .open = open_none,
};

const struct feature programs_feature = {
    .name = "programs",
    .what = PROGRAMS_WHAT,
    .open = open_none,
};

const struct feature self_feature = {
    .name = "self",
    .what = SELF_WHAT,
    .open = open_none,
};

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
