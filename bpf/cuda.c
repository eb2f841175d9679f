/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags cannot contain a comma, so a list is written with `_` between its items:
 * cuda_visible_devices:1_0.
 */
#include "bpf/cuda.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/lines.h"

#define GPU "GPU-"
#define MIG "MIG-"
#define WHOLE_UUID 40u /* "GPU-" and 36 digits and dashes */
#define MAX_INDEX 9999
#define LIST_BYTES 170u /* with its key less than the 200 of a tag */

/* ---- Devices ------------------------------------------------------------ */

/* Value of "@key: \t value" at the beginning of a line. */
static bool field(const char *text, const char *key, char *out, size_t size)
{
    size_t n_key = strlen(key);
    const char *at = text;

    while (at != NULL && *at != '\0') {
        if (strncmp(at, key, n_key) == 0 && at[n_key] == ':') {
            size_t n;

            at += n_key + 1;
            at += strspn(at, " \t");
            n = strcspn(at, "\n");
            n = n < size - 1 ? n : size - 1;
            memcpy(out, at, n);
            out[n] = '\0';
            return n > 0;
        }
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    return false;
}

bool cuda_parse_information(const char *text, struct cuda_device *out)
{
    char minor[16];

    memset(out, 0, sizeof(*out));
    out->minor = -1;
    if (!field(text, "GPU UUID", out->uuid, sizeof(out->uuid)) ||
        strncmp(out->uuid, GPU, strlen(GPU)) != 0)
        return false;
    if (strchr(out->uuid, '?') != NULL) /* the driver has not looked yet */
        out->uuid[0] = '\0';
    (void)field(text, "Model", out->model, sizeof(out->model));
    (void)field(text, "Bus Location", out->bus, sizeof(out->bus));
    if (field(text, "Device Minor", minor, sizeof(minor)))
        out->minor = (int32_t)strtol(minor, NULL, 10);
    return true;
}

static int by_place(const void *a, const void *b)
{
    return strcmp(((const struct cuda_device *)a)->bus,
                  ((const struct cuda_device *)b)->bus);
}

int cuda_devices_read(const char *root, struct cuda_devices *out)
{
    char path[512];
    struct dirent *e;
    DIR *d;

    memset(out, 0, sizeof(*out));
    (void)snprintf(path, sizeof(path), "%s/proc/driver/nvidia/gpus", root);
    d = opendir(path);
    if (d == NULL)
        return errno == ENOENT ? 0 : -errno;
    while (out->n < CUDA_MAX_DEVICES && (e = readdir(d)) != NULL) {
        char text[4096];
        ssize_t n = -1;
        int fd;

        (void)snprintf(path, sizeof(path), "%s/information", e->d_name);
        fd = openat(dirfd(d), path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            n = read(fd, text, sizeof(text) - 1);
            (void)close(fd);
        }
        if (n <= 0)
            continue;
        text[n] = '\0';
        if (cuda_parse_information(text, &out->v[out->n]))
            out->n++;
    }
    (void)closedir(d);
    qsort(out->v, out->n, sizeof(out->v[0]), by_place);
    return 0;
}

/* ---- Values ------------------------------------------------------------- */

struct token {
    const char *at;
    size_t n;
};

static bool begins(struct token t, const char *prefix)
{
    size_t n = strlen(prefix);

    return t.n >= n && memcmp(t.at, prefix, n) == 0;
}

/* Next item of a list; false behind the last. "a," has two, the second empty. */
static bool next_token(const char **rest, const char *end, struct token *out)
{
    const char *comma;

    if (*rest == NULL)
        return false;
    comma = memchr(*rest, ',', (size_t)(end - *rest));
    out->at = *rest;
    out->n = (size_t)((comma != NULL ? comma : end) - *rest);
    *rest = comma != NULL ? comma + 1 : NULL;
    return true;
}

/* Digits at the beginning, and whether there is anything behind them. -1: none, or
 * more than any host has. */
static int32_t number(struct token t, bool *is_whole)
{
    int32_t v = 0;
    size_t i = 0;

    if (t.n > 0 && t.at[0] == '+')
        i++;
    *is_whole = false;
    if (i == t.n || t.at[i] < '0' || t.at[i] > '9')
        return -1;
    for (; i < t.n && t.at[i] >= '0' && t.at[i] <= '9'; i++) {
        v = v * 10 + (t.at[i] - '0');
        if (v > MAX_INDEX)
            return -1;
    }
    *is_whole = i == t.n;
    return v;
}

static struct token trim(struct token t)
{
    while (t.n > 0 && (t.at[0] == ' ' || t.at[0] == '\t')) {
        t.at++;
        t.n--;
    }
    while (t.n > 0 && (t.at[t.n - 1] == ' ' || t.at[t.n - 1] == '\t'))
        t.n--;
    return t;
}

static bool take_index(const struct cuda_devices *devices, int32_t index,
                       struct cuda_item *out)
{
    if (index < 0 || (devices->n > 0 && (uint32_t)index >= devices->n))
        return false;
    *out = (struct cuda_item){.index = index};
    return true;
}

/* The one device whose UUID begins so; without a list of devices whatever is said.
 * MIG instances are not in the list. */
static bool take_uuid(const struct cuda_devices *devices, struct token t,
                      struct cuda_item *out)
{
    const struct cuda_device *hit = NULL;

    *out = (struct cuda_item){.index = -1, .is_mig = begins(t, MIG)};
    if (t.n >= sizeof(out->uuid))
        return false;
    memcpy(out->uuid, t.at, t.n);
    if (out->is_mig || devices->n == 0)
        return true;
    for (uint32_t i = 0; i < devices->n; i++) {
        if (strncmp(devices->v[i].uuid, out->uuid, t.n) != 0)
            continue;
        if (hit != NULL)
            return false;
        hit = &devices->v[i];
    }
    if (hit != NULL)
        memcpy(out->uuid, hit->uuid, sizeof(out->uuid));
    return hit != NULL;
}

static bool is_named(const struct cuda_list *list, const struct cuda_item *item)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (list->v[i].index == item->index &&
            strcmp(list->v[i].uuid, item->uuid) == 0)
            return true;
    }
    return false;
}

/* The first item says of which kind the list is. Whatever is wrong ends it; one named
 * twice empties it. */
static void parse_cuda(const char *value, const char *end,
                       const struct cuda_devices *devices,
                       struct cuda_list *out)
{
    const char *rest = value;
    const char *kind = NULL; /* NULL: indices */
    struct cuda_item item;
    struct token t;
    bool is_whole, ok;

    for (bool first = true; next_token(&rest, end, &t); first = false) {
        if (first)
            kind = begins(t, GPU) ? GPU : begins(t, MIG) ? MIG : NULL;
        if (kind == NULL)
            ok = take_index(devices, number(trim(t), &is_whole), &item);
        else
            ok = begins(t, kind) && take_uuid(devices, t, &item);
        if (!ok || out->n == CUDA_MAX_DEVICES)
            return;
        if (is_named(out, &item)) {
            out->n = 0;
            return;
        }
        out->v[out->n++] = item;
    }
}

static void keep_first_mig(struct cuda_list *out)
{
    for (uint32_t i = 0; i < out->n; i++) {
        if (out->v[i].is_mig) {
            out->v[0] = out->v[i];
            out->n = 1;
            return;
        }
    }
}

static void parse_datadog(const char *value, const char *end,
                          const struct cuda_devices *devices,
                          struct cuda_list *out)
{
    const char *rest = value;
    struct cuda_item item;
    struct token t;

    while (next_token(&rest, end, &t)) {
        bool is_whole = true;
        bool ok;

        if (begins(t, GPU) || begins(t, MIG))
            ok = take_uuid(devices, t, &item);
        else
            ok = take_index(devices, number(t, &is_whole), &item);
        if (!ok || !is_whole) {
            out->is_error = true;
            out->n = 0;
            return;
        }
        if (out->n < CUDA_MAX_DEVICES)
            out->v[out->n++] = item;
    }
    keep_first_mig(out);
}

void cuda_parse(const char *value, size_t n, const struct cuda_devices *devices,
                enum cuda_semantics semantics, struct cuda_list *out)
{
    memset(out, 0, sizeof(*out));
    if (semantics == CUDA_AS_CUDA) {
        if (n > 0)
            parse_cuda(value, value + n, devices, out);
    } else if (n == 0) {
        out->is_all = true;
    } else {
        parse_datadog(value, value + n, devices, out);
    }
}

/* ---- Tags --------------------------------------------------------------- */

static bool is_one_model(const struct cuda_devices *devices)
{
    for (uint32_t i = 1; i < devices->n; i++) {
        if (strcmp(devices->v[i].model, devices->v[0].model) != 0)
            return false;
    }
    return devices->n > 0;
}

struct text {
    char *to;
    size_t size, n;
};

/* Whole or not at all. */
static void put(struct text *t, const char *key, const char *value)
{
    int n = snprintf(t->to + t->n, t->size - t->n, "%s%s%s",
                     t->n > 0 ? "," : "", key, value);

    if (n > 0 && (size_t)n < t->size - t->n)
        t->n += (size_t)n;
    else
        t->to[t->n] = '\0';
}

static void put_device(struct text *t, const struct cuda_devices *devices,
                       const struct cuda_item *item, bool ordered)
{
    char value[CUDA_UUID_BYTES];
    int32_t index = item->index;
    const char *uuid = item->uuid;

    if (index < 0 && ordered) {
        for (uint32_t i = 0; i < devices->n; i++) {
            if (strcmp(devices->v[i].uuid, uuid) == 0)
                index = (int32_t)i;
        }
    }
    if (item->index >= 0 && ordered && (uint32_t)index < devices->n)
        uuid = devices->v[index].uuid;
    if (index >= 0) {
        (void)snprintf(value, sizeof(value), "%d", index);
        put(t, "gpu_index:", value);
    }
    if (strlen(uuid) >= WHOLE_UUID)
        put(t, "gpu_uuid:", lines_tag(value, sizeof(value), uuid));
}

static void put_list(struct text *t, const struct cuda_list *list)
{
    char all[LIST_BYTES + 8];
    struct text l = {all, LIST_BYTES, 0};

    all[0] = '\0';
    for (uint32_t i = 0; i < list->n && i < CUDA_MAX_TAGGED; i++) {
        char one[CUDA_UUID_BYTES];
        const char *dash = i > 0 ? "_" : "";
        int n;

        if (list->v[i].index >= 0)
            (void)snprintf(one, sizeof(one), "%d", list->v[i].index);
        else
            (void)lines_tag(one, sizeof(one), list->v[i].uuid);
        n = snprintf(all + l.n, l.size - l.n, "%s%s", dash, one);
        if (n < 0 || (size_t)n >= l.size - l.n) {
            memcpy(all + l.n, "_etc", 4);
            l.n += 4;
            break;
        }
        l.n += (size_t)n;
    }
    all[l.n] = '\0';
    if (list->is_all)
        put(t, "cuda_visible_devices:", "all");
    else
        put(t, "cuda_visible_devices:", l.n > 0 ? all : "none");
}

size_t cuda_tags(const struct cuda_list *list,
                 const struct cuda_devices *devices, bool by_bus, char *out,
                 size_t size)
{
    bool ordered = by_bus || is_one_model(devices);
    struct text t = {out, size, 0};
    uint32_t n = list->is_all ? devices->n : list->n;

    out[0] = '\0';
    put_list(&t, list);
    for (uint32_t i = 0; i < n && i < CUDA_MAX_TAGGED; i++) {
        struct cuda_item item = {.index = (int32_t)i};

        if (!list->is_all)
            item = list->v[i];
        put_device(&t, devices, &item, ordered);
    }
    return t.n;
}
