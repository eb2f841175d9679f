/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpf/env_table.h"

/* What kernel programs write, here in files. */
struct maps {
    struct env_table *t;
    int table_fd, pids_fd;
    struct env_place *places;
    uint64_t *pids;
};

static void *make_file(int *fd, size_t n)
{
    void *p;

    *fd = memfd_create("table", MFD_CLOEXEC);
    assert_true(*fd >= 0);
    assert_int_equal(ftruncate(*fd, (off_t)n), 0);
    p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static int open_maps(void **state)
{
    struct maps *m = calloc(1, sizeof(*m));
    struct env_rules *rules = calloc(1, sizeof(*rules));

    m->places =
        make_file(&m->table_fd, ENV_TABLE_PLACES * sizeof(struct env_place));
    m->pids = make_file(&m->pids_fd, ENV_TABLE_PLACES * sizeof(uint64_t));
    assert_int_equal(env_table_create(&m->t), 0);
    assert_int_equal(env_table_map(m->t, m->table_fd, -1), 0);
    watch_init(&rules->watch);
    assert_null(watch_item(&rules->watch, "DD_SERVICE:service"));
    rules->cuda_tags = true;
    env_table_set_rules(m->t, rules);
    free(rules);
    *state = m;
    return 0;
}

static int close_maps(void **state)
{
    struct maps *m = *state;

    env_table_close(m->t);
    (void)munmap(m->places, ENV_TABLE_PLACES * sizeof(struct env_place));
    (void)munmap(m->pids, ENV_TABLE_PLACES * sizeof(uint64_t));
    (void)close(m->table_fd);
    (void)close(m->pids_fd);
    free(m);
    return 0;
}

static void put(struct maps *m, uint32_t tgid, uint32_t pid, uint64_t ts_ns,
                uint32_t name, const char *value)
{
    struct env_place *p = &m->places[tgid % ENV_TABLE_PLACES];

    memset(&p->tgid, 0, sizeof(*p) - offsetof(struct env_place, tgid));
    p->sequence += 2;
    p->ts_ns = ts_ns;
    p->tgid = tgid;
    p->ns_tgid = pid;
    p->n_text = 5;
    if (value == NULL)
        return;
    p->values[name].at = 5;
    p->values[name].n = (uint16_t)(strlen(value) + 1);
    memcpy(p->text + 5, value, strlen(value) + 1);
    p->n_text += (uint32_t)strlen(value) + 1;
}

static int get(struct maps *m, enum proctags_space space, uint32_t number,
               uint64_t since_ns, char out[PROCTAGS_MAX_BYTES + 1])
{
    size_t n = 0;
    int rc = env_table_get(m->t, space, number, since_ns, out, &n);

    out[n] = '\0';
    return rc;
}

static void a_value_becomes_tags(void **state)
{
    char out[PROCTAGS_MAX_BYTES + 1];
    struct maps *m = *state;

    put(m, 70000, 70000, 10, WATCH_CUDA, "1,0");
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 9, out), 0);
    assert_string_equal(out,
                        "cuda_visible_devices:1_0,gpu_index:1,gpu_index:0");
    put(m, 70000, 70000, 11, WATCH_FIRST_OWN, "web");
    assert_int_equal(get(m, PROCTAGS_PID, 70000, 10, out), 0);
    assert_string_equal(out, "service:web");
    put(m, 70000, 70000, 12, 0, NULL);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 11, out), 0);
    assert_string_equal(out, "");
}

static void what_is_not_newer_is_nothing(void **state)
{
    char out[PROCTAGS_MAX_BYTES + 1];
    struct maps *m = *state;

    put(m, 70000, 70000, 10, WATCH_CUDA, "1");
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 10, out), ENV_TABLE_NOTHING);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000 + ENV_TABLE_PLACES, 0, out),
                     ENV_TABLE_NOTHING);
    assert_int_equal(get(m, PROCTAGS_TGID, 0, 0, out), ENV_TABLE_NOTHING);
    m->places[70000 % ENV_TABLE_PLACES].sequence++; /* being written */
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), ENV_TABLE_NOTHING);
    m->places[70000 % ENV_TABLE_PLACES].sequence++;
    m->places[70000 % ENV_TABLE_PLACES].flags = ENV_PLACE_UNSURE;
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 10, out), ENV_TABLE_NOTHING);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 9, out), ENV_TABLE_UNSURE);
}

static void the_two_numbers_are_two_spaces(void **state)
{
    char out[PROCTAGS_MAX_BYTES + 1];
    struct maps *m = *state;

    assert_int_equal(env_table_map(m->t, m->table_fd, m->pids_fd), 0);
    put(m, 70000, 4, 10, WATCH_CUDA, "1");
    assert_int_equal(get(m, PROCTAGS_PID, 4, 0, out), ENV_TABLE_NOTHING);
    m->pids[4] = 70000;
    assert_int_equal(get(m, PROCTAGS_PID, 4, 0, out), 0);
    assert_string_equal(out, "cuda_visible_devices:1,gpu_index:1");
    assert_int_equal(get(m, PROCTAGS_PID, 70000, 0, out), ENV_TABLE_NOTHING);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), 0);
    /* invisible to us: its number there is none */
    put(m, 70000, 0, 10, WATCH_CUDA, "1");
    assert_int_equal(get(m, PROCTAGS_PID, 4, 0, out), ENV_TABLE_NOTHING);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), 0);
}

static void a_stamp_changes_with_what_is_said(void **state)
{
    struct maps *m = *state;
    uint64_t a = env_table_stamp(m->t, PROCTAGS_TGID, 70000), b, c;

    put(m, 70000, 70000, 10, WATCH_CUDA, "1");
    b = env_table_stamp(m->t, PROCTAGS_TGID, 70000);
    put(m, 70000, 70000, 11, WATCH_CUDA, "2");
    c = env_table_stamp(m->t, PROCTAGS_TGID, 70000);
    assert_true(a != b && b != c);
    assert_true(env_table_stamp(m->t, PROCTAGS_TGID, 70000) == c);
}

static void without_a_map_nothing_is_known(void **state)
{
    char out[PROCTAGS_MAX_BYTES + 1];
    struct maps *m = *state;

    put(m, 70000, 70000, 10, WATCH_CUDA, "1");
    env_table_unmap(m->t);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), ENV_TABLE_NOTHING);
    assert_true(env_table_map(m->t, -1, -1) < 0);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), ENV_TABLE_NOTHING);
    assert_int_equal(env_table_map(m->t, m->table_fd, -1), 0);
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), 0);
}

/* Whoever writes into that memory is not trusted with ours. */
static void a_damaged_place_is_harmless(void **state)
{
    char out[PROCTAGS_MAX_BYTES + 1];
    struct maps *m = *state;
    struct env_place *p = &m->places[70000 % ENV_TABLE_PLACES];

    put(m, 70000, 70000, 10, WATCH_CUDA, "1");
    p->values[WATCH_CUDA].n = UINT16_MAX;
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), 0);
    assert_string_equal(out, "");
    p->values[WATCH_CUDA].at = UINT16_MAX;
    p->values[WATCH_CUDA].n = 2;
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), 0);
    assert_string_equal(out, "");
    p->n_text = ENV_TABLE_TEXT + 1;
    assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), ENV_TABLE_NOTHING);
}

static void rules_may_change_so_often(void **state)
{
    struct env_rules *rules = calloc(1, sizeof(*rules));
    char out[PROCTAGS_MAX_BYTES + 1];
    struct maps *m = *state;

    watch_init(&rules->watch);
    rules->cuda_tags = true;
    put(m, 70000, 70000, 10, WATCH_CUDA, "0");
    for (uint32_t i = 0; i < 2 * ENV_TABLE_MAX_RULES; i++) {
        rules->devices.n = 1;
        memcpy(rules->devices.v[0].model, "H200", 5);
        (void)snprintf(rules->devices.v[0].uuid, CUDA_UUID_BYTES, "GPU-%036u",
                       i);
        env_table_set_rules(m->t, rules);
        env_table_set_rules(m->t, rules);
        assert_int_equal(get(m, PROCTAGS_TGID, 70000, 0, out), 0);
        if (i == 5)
            assert_non_null(
                strstr(out,
                       "gpu_uuid:GPU-000000000000000000000000000000000005"));
    }
    assert_non_null(strstr(out, "gpu_uuid:GPU-"));
    free(rules);
}

/* ---- Two threads -------------------------------------------------------- */

#define ROUNDS 200000u

struct race {
    struct maps *m;
    _Atomic bool over;
};

/* Value: one digit many times. */
static void *write_all(void *arg)
{
    struct race *r = arg;
    _Atomic uint64_t *words = (void *)&r->m->places[70000 % ENV_TABLE_PLACES];
    struct env_place p = {.tgid = 70000, .ns_tgid = 70000, .ts_ns = 10};
    uint64_t from[sizeof(p) / 8];

    for (uint32_t i = 0; i < ROUNDS; i++) {
        p.n_text = 2 + i % 100;
        p.values[WATCH_FIRST_OWN].n = (uint16_t)p.n_text;
        memset(p.text, (int)('a' + i % 26), p.n_text - 1);
        p.text[p.n_text - 1] = '\0';
        memcpy(from, &p, sizeof(p));
        atomic_store(&words[0], 2 * i + 1);
        for (size_t k = 1; k < sizeof(p) / 8; k++)
            atomic_store(&words[k], from[k]);
        atomic_store(&words[0], 2 * i + 2);
    }
    atomic_store(&r->over, true);
    return NULL;
}

static void the_reader_never_sees_a_mixture(void **state)
{
    struct race r = {.m = *state};
    char out[PROCTAGS_MAX_BYTES + 1];
    uint32_t n_some = 0;
    pthread_t writer;

    assert_int_equal(pthread_create(&writer, NULL, write_all, &r), 0);
    while (n_some == 0 || !atomic_load(&r.over)) {
        if (get(r.m, PROCTAGS_TGID, 70000, 0, out) != 0)
            continue;
        assert_memory_equal(out, "service:", 8);
        for (const char *c = out + 8; *c != '\0'; c++)
            assert_int_equal(*c, out[8]);
        n_some++;
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_maps, close_maps)
    const struct CMUnitTest tests[] = {
        CASE(a_value_becomes_tags),
        CASE(what_is_not_newer_is_nothing),
        CASE(the_two_numbers_are_two_spaces),
        CASE(a_stamp_changes_with_what_is_said),
        CASE(without_a_map_nothing_is_known),
        CASE(a_damaged_place_is_harmless),
        CASE(rules_may_change_so_often),
        CASE(the_reader_never_sees_a_mixture),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
