/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The innermost component that names a container wins: a container may run systemd
 * (units below it) or further containers. Only a path without one is a unit's, and
 * one with a pod alone is the pod's own (its pause process).
 *
 * Forms: docker, containerd, CRI-O and podman (64 hexadecimal digits, bare or as
 * `runtime-ID.scope`), ECS and Fargate (32 digits and a number), Garden (a UUID), lxc,
 * systemd-nspawn and other machines, Kubernetes pods with both cgroup drivers.
 */
#include "bpf/cgroup_name.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A piece of the path. */
struct span {
    const char *at;
    size_t n;
};

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
           (c >= 'A' && c <= 'F');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t n_hex(struct span s)
{
    size_t n = 0;

    while (n < s.n && is_hex(s.at[n]))
        n++;
    return n;
}

static bool begins(struct span s, const char *with)
{
    size_t n = strlen(with);

    return s.n >= n && memcmp(s.at, with, n) == 0;
}

static bool ends(struct span s, const char *with)
{
    size_t n = strlen(with);

    return s.n >= n && memcmp(s.at + s.n - n, with, n) == 0;
}

static bool cut_begin(struct span *s, const char *with)
{
    size_t n = strlen(with);

    if (!begins(*s, with) || s->n == n)
        return false;
    s->at += n;
    s->n -= n;
    return true;
}

static bool cut_end(struct span *s, const char *with)
{
    size_t n = strlen(with);

    if (!ends(*s, with) || s->n == n)
        return false;
    s->n -= n;
    return true;
}

/* 8-4-4-4-12, with '-' or '_' between. */
static bool is_uuid(struct span s)
{
    if (s.n != 36)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool gap = i == 8 || i == 13 || i == 18 || i == 23;

        if (gap ? s.at[i] != '-' && s.at[i] != '_' : !is_hex(s.at[i]))
            return false;
    }
    return true;
}

/* An ECS task: 32 digits, '-', a number. */
static bool is_task(struct span s)
{
    if (n_hex(s) != 32 || s.n < 34 || s.at[32] != '-')
        return false;
    for (size_t i = 33; i < s.n; i++) {
        if (!is_digit(s.at[i]))
            return false;
    }
    return true;
}

static int hex_value(char c)
{
    return is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* As a tag may have it: \xNN of systemd undone, what has a meaning in a line, or
 * cannot be printed, replaced. */
static void copy(char *out, size_t size, struct span s)
{
    size_t n = 0;

    for (size_t i = 0; i < s.n && n + 1 < size; i++) {
        unsigned char c = (unsigned char)s.at[i];

        if (c == '\\' && i + 3 < s.n && s.at[i + 1] == 'x' &&
            is_hex(s.at[i + 2]) && is_hex(s.at[i + 3])) {
            c = (unsigned char)(hex_value(s.at[i + 2]) * 16 +
                                hex_value(s.at[i + 3]));
            i += 3;
        }
        if (c <= ' ' || c == 0x7f || c == ',' || c == '|' || c == '#')
            c = '_';
        out[n++] = (char)c;
    }
    out[n] = '\0';
}

static bool find_container(struct span *s, struct span parent)
{
    static const char *const prefixes[] = {"docker-",     "cri-containerd-",
                                           "containerd-", "nerdctl-",
                                           "crio-",       "libpod-"};
    struct span in = *s;
    const char *colon;

    if (cut_begin(s, "lxc.payload."))
        return true;
    if (parent.n == 3 ? begins(parent, "lxc")
                      : parent.n == 11 && begins(parent, "lxc.payload"))
        return true;
    if (cut_begin(s, "machine-") && cut_end(s, ".scope"))
        return true;
    *s = in;
    if (cut_begin(s, "systemd-nspawn@") && cut_end(s, ".service"))
        return true;
    *s = in;
    (void)cut_end(s, ".scope");
    /* slice:runtime:ID, when runtime and kubelet disagree about the driver */
    colon = memrchr(s->at, ':', s->n);
    if (colon != NULL) {
        s->n -= (size_t)(colon + 1 - s->at);
        s->at = colon + 1;
    }
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (cut_begin(s, prefixes[i]))
            break;
    }
    if ((s->n == 64 && n_hex(*s) == 64) || is_task(*s) || is_uuid(*s))
        return true;
    *s = in;
    return false;
}

/* podUID, or kubepods-besteffort-podUID.slice. A static pod has 32 digits. */
static bool find_pod(struct span *s)
{
    struct span in = *s;

    (void)cut_end(s, ".slice");
    if (begins(*s, "kubepods-")) {
        const char *dash = memmem(s->at, s->n, "-pod", 4);

        if (dash != NULL) {
            s->n -= (size_t)(dash + 1 - s->at);
            s->at = dash + 1;
        }
    }
    if (cut_begin(s, "pod") && (is_uuid(*s) || (s->n == 32 && n_hex(*s) == 32)))
        return true;
    *s = in;
    return false;
}

/* Go to the next component outward: @s becomes it, @end the length of the path up
 * to and with it. */
static bool outward(const char *path, size_t *end, struct span *s)
{
    size_t n = *end;
    size_t begin;

    while (n > 0 && path[n - 1] == '/')
        n--;
    begin = n;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    *s = (struct span){path + begin, n - begin};
    *end = n;
    return n > 0;
}

static void name_pod(struct cgroup_name *out, const char *path)
{
    size_t end = strlen(path);
    struct span s;

    while (outward(path, &end, &s)) {
        size_t here = end;

        end -= s.n;
        if (!find_pod(&s))
            continue;
        copy(out->pod_uid, sizeof(out->pod_uid), s);
        for (char *c = out->pod_uid; *c != '\0'; c++) {
            if (*c == '_')
                *c = '-';
        }
        if (out->kind == CGROUP_UNKNOWN) {
            out->kind = CGROUP_CONTAINER;
            (void)memcpy(out->id, out->pod_uid, sizeof(out->pod_uid));
            out->n_path = here;
        }
        return;
    }
}

static void name_container(struct cgroup_name *out, const char *path)
{
    size_t end = strlen(path);
    struct span s;

    while (outward(path, &end, &s)) {
        size_t here = end, above = end - s.n;
        struct span parent;

        (void)outward(path, &above, &parent);
        end -= s.n;
        if (!find_container(&s, parent))
            continue;
        out->kind = CGROUP_CONTAINER;
        copy(out->id, sizeof(out->id), s);
        out->n_path = here;
        return;
    }
}

static void name_unit(struct cgroup_name *out, const char *path)
{
    size_t end = strlen(path);
    struct span s, last = {"root", 4};

    out->kind = CGROUP_SYSTEM;
    if (outward(path, &end, &s))
        last = s;
    out->n_path = end;
    copy(out->id, sizeof(out->id), last);
    while (outward(path, &end, &s)) {
        if (ends(s, ".service") || ends(s, ".scope")) {
            copy(out->id, sizeof(out->id), s);
            out->n_path = end;
            return;
        }
        end -= s.n;
    }
}

void cgroup_name(struct cgroup_name *out, const char *path)
{
    *out = (struct cgroup_name){.kind = CGROUP_UNKNOWN};
    name_container(out, path);
    name_pod(out, path);
    if (out->kind == CGROUP_UNKNOWN)
        name_unit(out, path);
}

char *cgroup_name_tags(char out[CGROUP_TAGS_MAX],
                       const struct cgroup_name *name)
{
    const char *key = name->kind != CGROUP_CONTAINER ? "unit" : "container_id";

    if (name->pod_uid[0] == '\0')
        (void)snprintf(out, CGROUP_TAGS_MAX, "%s:%s", key, name->id);
    else if (strcmp(name->id, name->pod_uid) == 0)
        (void)snprintf(out, CGROUP_TAGS_MAX, "kube_pod_uid:%s", name->pod_uid);
    else
        (void)snprintf(out, CGROUP_TAGS_MAX, "%s:%s,kube_pod_uid:%s", key,
                       name->id, name->pod_uid);
    return out;
}
