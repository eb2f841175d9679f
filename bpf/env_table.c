/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address space stays the same, what is mapped there changes: so a reader needs no
 * word on whether there is a table now.
 *
 * A place is a sequence lock, as in proctags.c; the other side is
 * env_table.bpf.h. Rules that were replaced stay, since nobody knows who reads them;
 * they change when a driver is loaded.
 */
#include "bpf/env_table.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TABLE_BYTES (ENV_TABLE_PLACES * sizeof(struct env_place))
#define PIDS_BYTES (ENV_TABLE_PLACES * sizeof(uint64_t))
#define WORDS (sizeof(struct env_place) / 8)

struct rules {
    struct env_rules rules;
    struct rules *before;
};

struct env_table {
    const _Atomic uint64_t (*places)[WORDS];
    const _Atomic uint64_t *pids;
    _Atomic bool has_pids;
    _Atomic(struct rules *) rules;
    uint32_t n_rules;
};

static int map_nothing(void *at, size_t n)
{
    void *p =
        mmap(at, n, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | (at != NULL ? MAP_FIXED : 0), -1, 0);

    return p != MAP_FAILED ? 0 : -errno;
}

static int reserve(size_t n, const void **out)
{
    void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    *out = p;
    return 0;
}

int env_table_create(struct env_table **out)
{
    struct env_table *t = calloc(1, sizeof(*t));
    const void *places = NULL, *pids = NULL;
    int rc = -ENOMEM;

    if (t != NULL)
        rc = reserve(TABLE_BYTES, &places);
    if (rc == 0)
        rc = reserve(PIDS_BYTES, &pids);
    if (rc != 0) {
        if (places != NULL)
            (void)munmap((void *)(uintptr_t)places, TABLE_BYTES);
        free(t);
        return rc;
    }
    t->places = places;
    t->pids = pids;
    *out = t;
    return 0;
}

void env_table_close(struct env_table *t)
{
    struct rules *r, *before;

    if (t == NULL)
        return;
    for (r = atomic_load(&t->rules); r != NULL; r = before) {
        before = r->before;
        free(r);
    }
    (void)munmap((void *)(uintptr_t)t->places, TABLE_BYTES);
    (void)munmap((void *)(uintptr_t)t->pids, PIDS_BYTES);
    free(t);
}

/* ---- The writer --------------------------------------------------------- */

/* Made elsewhere first: a refusal must not leave a hole that somebody reads. */
static int map_over(const void *at, size_t n, int fd)
{
    void *p = mmap(NULL, n, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    int rc = 0;

    if (p == MAP_FAILED)
        return -errno;
    if (mremap(p, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(uintptr_t)at) ==
        MAP_FAILED) {
        rc = -errno;
        (void)munmap(p, n);
    }
    return rc;
}

void env_table_unmap(struct env_table *t)
{
    (void)map_nothing((void *)(uintptr_t)t->places, TABLE_BYTES);
    (void)map_nothing((void *)(uintptr_t)t->pids, PIDS_BYTES);
    atomic_store(&t->has_pids, false);
}

int env_table_map(struct env_table *t, int table_fd, int pids_fd)
{
    int rc = pids_fd >= 0 ? map_over(t->pids, PIDS_BYTES, pids_fd) : 0;

    atomic_store(&t->has_pids, pids_fd >= 0);
    if (rc == 0)
        rc = map_over(t->places, TABLE_BYTES, table_fd);
    if (rc != 0)
        env_table_unmap(t);
    return rc;
}

void env_table_set_rules(struct env_table *t, const struct env_rules *rules)
{
    struct rules *before = atomic_load(&t->rules), *r;

    if (before != NULL && memcmp(&before->rules.devices, &rules->devices,
                                 sizeof(rules->devices)) == 0)
        return;
    r = t->n_rules < ENV_TABLE_MAX_RULES ? malloc(sizeof(*r)) : NULL;
    if (r == NULL)
        return;
    *r = (struct rules){.rules = *rules, .before = before};
    t->n_rules++;
    atomic_store_explicit(&t->rules, r, memory_order_release);
}

/* ---- Readers ------------------------------------------------------------ */

static uint64_t word(const struct env_table *t, uint32_t tgid, size_t i)
{
    return atomic_load_explicit(&t->places[tgid % ENV_TABLE_PLACES][i],
                                memory_order_acquire);
}

static uint32_t tgid_of(const struct env_table *t, enum proctags_space space,
                        uint32_t number)
{
    if (space == PROCTAGS_TGID ||
        !atomic_load_explicit(&t->has_pids, memory_order_relaxed))
        return number;
    return (uint32_t)atomic_load_explicit(&t->pids[number % ENV_TABLE_PLACES],
                                          memory_order_acquire);
}

uint64_t env_table_stamp(const struct env_table *t, enum proctags_space space,
                         uint32_t number)
{
    uint32_t tgid = tgid_of(t, space, number);

    return word(t, tgid, 0) ^ (uint64_t)tgid << 32;
}

/* The place of that process, as it is at one moment; false: it has none. */
static bool read_place(const struct env_table *t, enum proctags_space space,
                       uint32_t number, bool whole, struct env_place *out)
{
    uint32_t tgid = tgid_of(t, space, number);
    size_t n = offsetof(struct env_place, values) / 8;
    uint64_t *to = (void *)out;

    for (size_t i = 0; i < n; i++)
        to[i] = word(t, tgid, i);
    if (number == 0 || (out->sequence & 1) != 0 || out->tgid != tgid ||
        (space == PROCTAGS_PID ? out->ns_tgid : out->tgid) != number ||
        out->n_text > ENV_TABLE_TEXT)
        return false;
    if (whole) {
        size_t end = (offsetof(struct env_place, text) + out->n_text + 7) / 8;

        for (size_t i = n; i < end; i++)
            to[i] = word(t, tgid, i);
    }
    /* Behind loads with acquire. */
    return word(t, tgid, 0) == out->sequence;
}

static bool is_since(const struct env_table *t, enum proctags_space space,
                     uint32_t number, uint64_t since_ns, bool whole,
                     struct env_place *out)
{
    return read_place(t, space, number, whole, out) && out->ts_ns > since_ns;
}

bool env_table_is_newer(const struct env_table *t, enum proctags_space space,
                        uint32_t number, uint64_t since_ns)
{
    struct env_place p;

    return is_since(t, space, number, since_ns, false, &p);
}

bool env_table_read(const struct env_table *t, enum proctags_space space,
                    uint32_t number, struct env_place *out)
{
    return read_place(t, space, number, true, out) &&
           (out->flags & ENV_PLACE_UNSURE) == 0;
}

struct env_text env_place_value(const struct env_place *p, uint32_t i)
{
    uint32_t at = p->values[i].at, n = p->values[i].n;

    if (n == 0 || at + n > p->n_text)
        return (struct env_text){NULL, 0};
    return (struct env_text){p->text + at, n - 1};
}

int env_table_get(const struct env_table *t, enum proctags_space space,
                  uint32_t number, uint64_t since_ns, char *out, size_t *n)
{
    const struct rules *rules =
        atomic_load_explicit(&t->rules, memory_order_acquire);
    struct env_text values[ENV_MAX_NAMES] = {{NULL, 0}};
    char tags[ENV_TAGS_BYTES];
    struct env_place p;

    if (rules == NULL || !is_since(t, space, number, since_ns, false, &p) ||
        !is_since(t, space, number, since_ns, true, &p))
        return ENV_TABLE_NOTHING;
    if ((p.flags & ENV_PLACE_UNSURE) != 0)
        return ENV_TABLE_UNSURE;
    for (uint32_t i = 0; i < ENV_MAX_NAMES; i++)
        values[i] = env_place_value(&p, i);
    *n = proctags_whole(tags, env_tags(&rules->rules, values, tags));
    memcpy(out, tags, *n);
    return 0;
}

bool env_table_values(const struct env_table *t, enum proctags_space space,
                      uint32_t number, uint64_t since_ns,
                      struct environ_values *out, uint64_t *as_of_ns)
{
    struct env_place place;

    if (!env_table_read(t, space, number, &place) || place.ts_ns <= since_ns)
        return false;
    for (uint32_t i = 0; i < ENV_MAX_NAMES; i++) {
        struct env_text text = env_place_value(&place, i);
        struct environ_value *v = &out->v[i];

        v->is_set = text.text != NULL;
        v->is_cut = false;
        v->n = (uint32_t)text.n;
        if (v->is_set)
            memcpy(v->text, text.text, text.n);
    }
    *as_of_ns = place.ts_ns;
    return true;
}
