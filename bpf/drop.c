/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets are recognised by their cookie, which is the kernel's own number for a
 * socket and never used twice: no port, path or namespace has to be compared.
 */
#include "bpf/drop.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "bpf/cgroup.h"
#include "bpf/drop_probe.h"
#include "bpf/features.h"
#include "bpf/probe.h"

#define BATCH 256
#define QUIET_READINGS 6 /* a minute */

struct drop {
    const struct drop_opts *opts;
    struct cgroups *cgroups; /* NULL = no names */
    struct drop_senders *senders;
    struct bpf_object *object;
    struct bpf_link *links[4];
    uint32_t n_links;
    int senders_fd, totals_fd; /* the object's */
    struct drop_key keys[BATCH];
    struct drop_value values[BATCH];
};

static const struct drop_opts *opts_of(const struct feature_env *env)
{
    return &env->opts->drop;
}

int drop_add_socket(struct drop_opts *o, int fd)
{
    struct drop_socket s = {0};
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof(a);
    int type = 0;

    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return -errno;
    n = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0)
        return -errno;
    n = sizeof(s.cookie);
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &s.cookie, &n) != 0)
        return -errno;
    if (type != SOCK_DGRAM)
        return 0;
    s.transport = a.ss_family == AF_UNIX ? DROP_UDS : DROP_UDP;
    if (a.ss_family == AF_INET)
        s.port = ntohs(((struct sockaddr_in *)&a)->sin_port);
    else if (a.ss_family == AF_INET6)
        s.port = ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
    if (o->n_sockets >= DROP_MAX_SOCKETS)
        return -ENOSPC;
    o->sockets[o->n_sockets++] = s;
    return 0;
}

/* ---- Loading ------------------------------------------------------------ */

static void choose(struct bpf_object *o, const char *program, bool on)
{
    struct bpf_program *p = bpf_object__find_program_by_name(o, program);

    if (p != NULL)
        (void)bpf_program__set_autoload(p, on);
}

static void set_config(struct drop *d, const struct drop_kernel *k,
                       struct drop_config *out)
{
    struct stat st = {0};

    *out = (struct drop_config){
        .n_sockets = d->opts->n_sockets,
        .cgroup_subsys = d->cgroups != NULL ? cgroups_subsys(d->cgroups) : -1,
        .reason_queue = k->reason_queue,
        .reason_memory = k->reason_memory,
    };
    memcpy(out->sockets, d->opts->sockets, sizeof(out->sockets));
    if (stat("/proc/self/ns/net", &st) == 0)
        out->netns = (uint32_t)st.st_ino;
}

static int load(struct drop *d, const struct feature_env *env,
                const struct drop_kernel *k, const struct drop_plan *plan,
                struct loader_cause *cause)
{
    struct drop_config cfg;
    int rc = loader_open(&d->object, LOADER_DROP, env->types_path, cause);

    if (rc != 0)
        return rc;
    choose(d->object, "udp_lost", plan->udp_lost);
    choose(d->object, "udp_lost_total", plan->udp_lost_total);
    choose(d->object, "udp_lost_by", plan->udp_lost_by);
    choose(d->object, "udp_no_memory", plan->udp_no_memory);
    choose(d->object, "unix_lost", plan->unix_lost);
    set_config(d, k, &cfg);
    rc = loader_set_constants(d->object, &cfg, sizeof(cfg));
    if (rc == 0)
        rc = loader_load(d->object, cause);
    d->senders_fd = loader_map(d->object, "drop_senders");
    d->totals_fd = loader_map(d->object, "drop_totals");
    return rc;
}

static int attach(struct drop *d, struct loader_cause *cause)
{
    struct bpf_program *p;

    bpf_object__for_each_program(p, d->object)
    {
        struct bpf_link *link;

        if (!bpf_program__autoload(p))
            continue;
        link = bpf_program__attach(p);
        if (link == NULL) {
            loader_explain(cause, "the kernel refused to run the program",
                           errno);
            return LOADER_REFUSED;
        }
        d->links[d->n_links++] = link;
    }
    return 0;
}

static void detach(struct drop *d)
{
    while (d->n_links > 0)
        (void)bpf_link__destroy(d->links[--d->n_links]);
}

static void drop_close(void *self)
{
    struct drop *d = self;

    if (d == NULL)
        return;
    if (d->opts->closed != NULL)
        d->opts->closed(d->opts->arg);
    detach(d);
    loader_close(d->object);
    drop_senders_close(d->senders);
    free(d);
}

static void explain(struct loader_cause *cause, const struct drop_plan *plan)
{
    (void)snprintf(cause->why, sizeof(cause->why), "%s", plan->missing);
    (void)snprintf(cause->remedy, sizeof(cause->remedy), "a newer kernel");
    (void)snprintf(cause->reason, sizeof(cause->reason), "old_kernel");
}

int drop_open_on(void **self, const struct feature_env *env,
                 const struct drop_kernel *k, struct loader_cause *cause)
{
    struct drop_plan plan;
    struct drop *d;
    int rc;

    if (!drop_choose(k, &plan)) {
        explain(cause, &plan);
        return LOADER_REFUSED;
    }
    d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->opts = opts_of(env);
    d->cgroups = env->cgroups;
    rc = drop_senders_create(&d->senders);
    if (rc == 0)
        rc = load(d, env, k, &plan, cause);
    if (rc == 0)
        rc = attach(d, cause);
    if (rc != 0) {
        drop_close(d);
        return rc;
    }
    if (plan.missing != NULL)
        explain(cause, &plan);
    *self = d;
    return 0;
}

static int drop_open(void **self, const struct feature_env *env,
                     struct loader_cause *cause)
{
    struct btf *own = env->types == NULL ? probe_types() : NULL;
    const struct btf *types = own != NULL ? own : env->types;
    struct drop_kernel k;

    if (types == NULL) {
        loader_explain(cause, "the kernel does not describe itself", ESRCH);
        return LOADER_REFUSED;
    }
    drop_probe(types, &k);
    probe_types_free(own);
    return drop_open_on(self, env, &k, cause);
}

/* ---- Collecting --------------------------------------------------------- */

static void write_lines(struct lines *out, enum drop_transport transport,
                        const struct drop_total *more, uint32_t pid,
                        const char *names)
{
    char tags[DROP_TAGS_BYTES + 64];
    char client[32] = "";

    if (more->packets == 0)
        return;
    if (pid != 0)
        (void)snprintf(client, sizeof(client), ",client_pid:%u", pid);
    (void)snprintf(tags, sizeof(tags), "transport:%s%s%s%s",
                   transport == DROP_UDP ? "udp" : "uds",
                   names[0] != '\0' ? "," : "", names, client);
    lines_add(out, "retriever.ingress.lost", (double)more->packets, "c", tags);
    if (more->bytes > 0)
        lines_add(out, "retriever.ingress.lost_bytes", (double)more->bytes, "c",
                  tags);
}

static void read_sender(struct drop *d, struct lines *out,
                        const struct drop_key *key, const struct drop_value *v)
{
    struct drop_total more;
    struct drop_entry *e = drop_senders_update(d->senders, key, v, &more);
    const char *names;

    if (e == NULL)
        return;
    if (e->tags == NULL && v->cgid != 0 && d->cgroups != NULL) {
        names = cgroups_tags(d->cgroups, v->cgid);
        if (strlen(names) < DROP_TAGS_BYTES)
            drop_senders_name(e, names);
    }
    write_lines(out, key->transport, &more, d->opts->client_pid ? key->tgid : 0,
                e->tags != NULL ? e->tags : "");
}

/* False: not all of them. */
static bool read_senders(struct drop *d, struct lines *out)
{
    uint32_t at, n;
    void *from = NULL;
    int rc;

    do {
        n = BATCH;
        rc = bpf_map_lookup_batch(d->senders_fd, from, &at, d->keys, d->values,
                                  &n, NULL);
        if (rc != 0 && rc != -ENOENT)
            return false;
        for (uint32_t i = 0; i < n; i++)
            read_sender(d, out, &d->keys[i], &d->values[i]);
        from = &at;
    } while (rc == 0);
    return true;
}

static void remove_sender(void *arg, const struct drop_key *key)
{
    const struct drop *d = arg;

    (void)bpf_map_delete_elem(d->senders_fd, key);
}

static void drop_collect(void *self, struct lines *out, bool last)
{
    struct drop *d = self;
    struct drop_total total;
    bool all;

    if (last)
        detach(d);
    for (uint32_t i = 0; i < DROP_N_TRANSPORTS; i++) {
        if (bpf_map_lookup_elem(d->totals_fd, &i, &total) == 0)
            drop_senders_total(d->senders, i, &total);
    }
    all = read_senders(d, out);
    /* A sender that was not read is not unknown: its loss would count again. */
    for (uint32_t i = 0; (all || last) && i < DROP_N_TRANSPORTS; i++) {
        drop_senders_unknown(d->senders, i, &total);
        write_lines(out, i, &total, 0, "");
    }
    drop_senders_forget(d->senders, QUIET_READINGS, remove_sender, d);
    if (d->opts->collected != NULL)
        d->opts->collected(d->opts->arg, d);
}

void drop_report(const void *self, struct drop_report *out)
{
    const struct drop *d = self;

    drop_senders_report(d->senders, out);
}

bool drop_top(void *self, char *line, size_t size)
{
    struct drop *d = self;

    return drop_senders_top(d->senders, line, size);
}

const struct feature drop_feature = {
    .name = "drop",
    .what = DROP_WHAT,
    .by_cgroup = true,
    .capabilities = FEATURE_CAPS_READ,
    .open = drop_open,
    .collect = drop_collect,
    .close = drop_close,
};
