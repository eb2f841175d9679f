/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index for each kind of number, of words {number, slot} in buckets that are one
 * cache line, and slots with the text. A bucket is looked at whole, so that removing
 * is storing 0. A number finds no room when its bucket is full, at a quarter of the
 * words in use about once in 10,000.
 *
 * A slot is a sequence lock without fences: the writer makes the sequence odd, stores
 * words with release, makes it even with release; the reader loads words with
 * acquire and the sequence before and behind. The slot says whose it is, so one that
 * was given to another process between index and text is noticed.
 *
 * As of when something is known stands beside the word, written last and read first:
 * tags are never older than it says.
 */
#include "bpf/proctags.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "bpf/env_table.h"

#define BUCKET 8u
#define BUCKETS (PROCTAGS_MAX_IDS / BUCKET * 4)
#define WORDS (PROCTAGS_MAX_BYTES / 8)
#define NO_SLOT UINT32_C(0xffffffff) /* known, and without tags */
#define TRIES 4

struct slot {
    _Atomic uint64_t sequence; /* odd: being written */
    _Atomic uint64_t owner;    /* tgid << 32 | pid; 0 = free */
    _Atomic uint64_t n;
    _Atomic uint64_t words[WORDS];
};

struct proctags {
    _Atomic uint64_t index[PROCTAGS_N_SPACES][BUCKETS][BUCKET]
        __attribute__((aligned(64)));
    _Atomic uint64_t as_of_ns[PROCTAGS_N_SPACES][BUCKETS * BUCKET];
    struct slot slots[PROCTAGS_MAX_PROCS];
    _Atomic uint32_t asked[PROCTAGS_N_SPACES][PROCTAGS_MAX_ASKED];
    _Atomic uint32_t any_asked;
    _Atomic uint64_t version;
    _Atomic uint32_t n;
    uint32_t next_slot; /* where to look for a free one */
    uint32_t n_ids[PROCTAGS_N_SPACES];
    struct env_table *env;
};

int proctags_create(struct proctags **out)
{
    struct proctags *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (t == MAP_FAILED)
        return -errno;
    rc = env_table_create(&t->env);
    if (rc != 0) {
        (void)munmap(t, sizeof(*t));
        return rc;
    }
    *out = t;
    return 0;
}

void proctags_close(struct proctags *t)
{
    if (t == NULL)
        return;
    env_table_close(t->env);
    (void)munmap(t, sizeof(*t));
}

struct env_table *proctags_env(struct proctags *t)
{
    return t->env;
}

static uint32_t hash(uint32_t number)
{
    return number * 2654435761u >> 8;
}

static _Atomic uint64_t *find_word(struct proctags *t,
                                   enum proctags_space space, uint32_t number)
{
    _Atomic uint64_t *words = t->index[space][hash(number) % BUCKETS];

    for (uint32_t i = 0; i < BUCKET; i++) {
        uint64_t w = atomic_load_explicit(&words[i], memory_order_relaxed);

        if (w >> 32 == number)
            return &words[i];
    }
    return NULL;
}

static _Atomic uint64_t *as_of(struct proctags *t, enum proctags_space space,
                               const _Atomic uint64_t *word)
{
    size_t i = (size_t)(word - &t->index[space][0][0]);

    return &t->as_of_ns[space][i];
}

/* ---- The writer --------------------------------------------------------- */

static uint64_t load(_Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static struct slot *free_slot(struct proctags *t)
{
    for (uint32_t i = 0; i < PROCTAGS_MAX_PROCS; i++) {
        struct slot *s = &t->slots[t->next_slot];

        t->next_slot = (t->next_slot + 1) % PROCTAGS_MAX_PROCS;
        if (load(&s->owner) == 0)
            return s;
    }
    return NULL;
}

static void write_slot(struct slot *s, uint64_t owner, const char *tags,
                       size_t n)
{
    uint64_t seq = load(&s->sequence);

    atomic_store_explicit(&s->sequence, seq + 1, memory_order_relaxed);
    atomic_store_explicit(&s->owner, owner, memory_order_release);
    atomic_store_explicit(&s->n, n, memory_order_release);
    for (size_t i = 0; i * 8 < n; i++) {
        uint64_t word = 0;

        memcpy(&word, tags + i * 8, n - i * 8 < 8 ? n - i * 8 : 8);
        atomic_store_explicit(&s->words[i], word, memory_order_release);
    }
    atomic_store_explicit(&s->sequence, seq + 2, memory_order_release);
}

static bool set_word(struct proctags *t, enum proctags_space space,
                     uint32_t number, uint32_t slot, uint64_t as_of_ns)
{
    _Atomic uint64_t *word = find_word(t, space, number);
    _Atomic uint64_t *words = t->index[space][hash(number) % BUCKETS];

    if (word == NULL && t->n_ids[space] < PROCTAGS_MAX_IDS) {
        for (uint32_t i = 0; i < BUCKET && word == NULL; i++)
            word = load(&words[i]) == 0 ? &words[i] : NULL;
        t->n_ids[space] += word != NULL;
    }
    if (word == NULL)
        return false;
    atomic_store_explicit(word, (uint64_t)number << 32 | slot,
                          memory_order_release);
    atomic_store_explicit(as_of(t, space, word), as_of_ns,
                          memory_order_release);
    return true;
}

/* The slot of that process, if it has one. */
static struct slot *own_slot(struct proctags *t, uint32_t tgid, uint32_t pid)
{
    _Atomic uint64_t *word =
        tgid != 0 ? find_word(t, PROCTAGS_TGID, tgid) : NULL;

    if (word == NULL && pid != 0)
        word = find_word(t, PROCTAGS_PID, pid);
    if (word == NULL || (uint32_t)load(word) == NO_SLOT)
        return NULL;
    return &t->slots[(uint32_t)load(word)];
}

static void forget_word(struct proctags *t, enum proctags_space space,
                        uint32_t number)
{
    _Atomic uint64_t *word = number != 0 ? find_word(t, space, number) : NULL;

    if (word == NULL)
        return;
    atomic_store_explicit(word, 0, memory_order_release);
    t->n_ids[space]--;
}

static void free_one(struct proctags *t, struct slot *s)
{
    write_slot(s, 0, "", 0);
    atomic_fetch_sub_explicit(&t->n, 1, memory_order_relaxed);
}

/* Behind the change: who saw the old version looks again. */
static void changed(struct proctags *t)
{
    atomic_fetch_add_explicit(&t->version, 1, memory_order_release);
}

void proctags_remove(struct proctags *t, uint32_t tgid, uint32_t pid)
{
    struct slot *s = own_slot(t, tgid, pid);

    forget_word(t, PROCTAGS_TGID, tgid);
    forget_word(t, PROCTAGS_PID, pid);
    if (s != NULL)
        free_one(t, s);
    changed(t);
}

size_t proctags_whole(const char *tags, size_t n)
{
    if (n <= PROCTAGS_MAX_BYTES)
        return n;
    for (n = PROCTAGS_MAX_BYTES; n > 0 && tags[n] != ','; n--)
        ;
    return n;
}

int proctags_set(struct proctags *t, uint32_t tgid, uint32_t pid,
                 const char *tags, size_t n, uint64_t as_of_ns)
{
    struct slot *s = own_slot(t, tgid, pid);
    uint32_t slot = NO_SLOT;
    bool ok = true;

    n = proctags_whole(tags, n);
    if (n > 0 && s == NULL) {
        s = free_slot(t);
        if (s == NULL)
            return PROCTAGS_FULL;
        atomic_fetch_add_explicit(&t->n, 1, memory_order_relaxed);
    }
    if (n > 0) {
        write_slot(s, (uint64_t)tgid << 32 | pid, tags, n);
        slot = (uint32_t)(s - t->slots);
    }
    if (tgid != 0)
        ok = set_word(t, PROCTAGS_TGID, tgid, slot, as_of_ns);
    if (pid != 0)
        ok = set_word(t, PROCTAGS_PID, pid, slot, as_of_ns) && ok;
    if (n == 0 && s != NULL)
        free_one(t, s);
    if (!ok)
        proctags_remove(t, tgid, pid);
    changed(t);
    return ok ? 0 : PROCTAGS_FULL;
}

void proctags_asked(struct proctags *t, proctags_asked_fn *fn, void *arg)
{
    if (atomic_exchange_explicit(&t->any_asked, 0, memory_order_acquire) == 0)
        return;
    for (int space = 0; space < PROCTAGS_N_SPACES; space++) {
        for (uint32_t i = 0; i < PROCTAGS_MAX_ASKED; i++) {
            uint32_t number = atomic_exchange_explicit(&t->asked[space][i], 0,
                                                       memory_order_relaxed);

            if (number != 0)
                fn(arg, (enum proctags_space)space, number);
        }
    }
}

uint32_t proctags_n(const struct proctags *t)
{
    return atomic_load_explicit(&t->n, memory_order_relaxed);
}

/* ---- The reader --------------------------------------------------------- */

uint64_t proctags_version(const struct proctags *t)
{
    return atomic_load_explicit(&t->version, memory_order_acquire);
}

/* Whoever else has that place goes: it asks again. */
void proctags_ask(struct proctags *t, enum proctags_space space,
                  uint32_t number)
{
    _Atomic uint32_t *place = &t->asked[space][number % PROCTAGS_MAX_ASKED];

    if (atomic_load_explicit(place, memory_order_relaxed) == number)
        return;
    atomic_store_explicit(place, number, memory_order_relaxed);
    atomic_store_explicit(&t->any_asked, 1, memory_order_release);
}

static bool read_slot(struct slot *s, enum proctags_space space,
                      uint32_t number, char *out, size_t *n, uint64_t *sequence)
{
    uint64_t before = atomic_load_explicit(&s->sequence, memory_order_acquire);
    uint64_t owner = atomic_load_explicit(&s->owner, memory_order_acquire);
    uint64_t len = atomic_load_explicit(&s->n, memory_order_acquire);

    if (before % 2 != 0 || len > PROCTAGS_MAX_BYTES)
        return false;
    for (size_t i = 0; i * 8 < len; i++) {
        uint64_t word =
            atomic_load_explicit(&s->words[i], memory_order_acquire);

        memcpy(out + i * 8, &word, 8);
    }
    *sequence = before;
    *n = (size_t)len;
    return atomic_load_explicit(&s->sequence, memory_order_relaxed) == before &&
           (uint32_t)(space == PROCTAGS_TGID ? owner >> 32 : owner) == number;
}

size_t proctags_get(struct proctags *t, enum proctags_space space,
                    uint32_t number, char *out, uint64_t *generation,
                    uint64_t *as_of_ns)
{
    uint64_t gen = 0, when = 0;
    size_t n = 0;

    for (int i = 0; number != 0 && i < TRIES; i++) {
        _Atomic uint64_t *word = find_word(t, space, number);
        uint64_t w = 0, sequence;

        when = 0;
        if (word != NULL) {
            when = atomic_load_explicit(as_of(t, space, word),
                                        memory_order_acquire);
            w = atomic_load_explicit(word, memory_order_acquire);
        }

        if (w >> 32 != number) {
            proctags_ask(t, space, number);
            gen = PROCTAGS_UNKNOWN;
            when = 0;
            break;
        }
        if ((uint32_t)w == NO_SLOT)
            break;
        if (read_slot(&t->slots[(uint32_t)w], space, number, out, &n,
                      &sequence)) {
            /* a slot's sequence is below 2^48 for some thousand years */
            gen = (w & 0xffff) << 48 | (sequence + 2);
            break;
        }
        n = 0;
    }
    if (generation != NULL)
        *generation = gen;
    if (as_of_ns != NULL)
        *as_of_ns = when;
    return n;
}
