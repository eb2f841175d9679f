/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading as such: that the few types which are given to libbpf make the same
 * programs as all of the kernel's, and how long loading takes.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/cgroup.h"
#include "bpf/event_ring.h"
#include "bpf/features.h"
#include "bpf/life.h"
#include "bpf/named_types.h"
#include "bpf/probe.h"
#include "tests/bpf/require.h"

#define ROUNDS 5
#define BUDGET_NS 100000000
#define RING_BYTES 65536u

static struct btf *types;
static struct named_types named;

static int setup(void **state)
{
    (void)state;
    types = probe_types();
    assert_non_null(types);
    assert_int_equal(named_types_create(&named, types), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    named_types_close(&named);
    probe_types_free(types);
    return 0;
}

/* ---- The same programs ---------------------------------------------------- */

/* With all programs, though the kernel may refuse some of them: that is behind the
 * relocations of all. */
static struct bpf_object *relocated(enum loader_object which, const char *path)
{
    struct loader_cause cause;
    struct bpf_object *o = NULL;

    assert_int_equal(loader_open(&o, which, path, &cause), 0);
    (void)loader_load(o, &cause);
    return o;
}

/* But for the descriptors of maps. */
static void assert_same_code(const struct bpf_program *a,
                             const struct bpf_program *b)
{
    const struct bpf_insn *x = bpf_program__insns(a);
    const struct bpf_insn *y = bpf_program__insns(b);
    size_t n = bpf_program__insn_cnt(a);

    assert_int_equal(bpf_program__insn_cnt(b), n);
    for (size_t i = 0; i < n; i++) {
        if (x[i].code == (BPF_LD | BPF_IMM | BPF_DW)) {
            i++;
            continue;
        }
        assert_memory_equal(&x[i], &y[i], sizeof(x[i]));
    }
}

static void the_named_types_make_the_same_programs_as_all(void **state)
{
    (void)state;
    for (int which = 0; which < LOADER_N; which++) {
        struct bpf_object *a = relocated((enum loader_object)which, NULL);
        struct bpf_object *b = relocated((enum loader_object)which, named.path);
        struct bpf_program *p;
        size_t n = 0;

        bpf_object__for_each_program(p, a)
        {
            const struct bpf_program *q =
                bpf_object__find_program_by_name(b, bpf_program__name(p));

            assert_non_null(q);
            assert_same_code(p, q);
            n++;
        }
        assert_true(n > 0);
        loader_close(a);
        loader_close(b);
    }
}

static void the_named_types_are_few(void **state)
{
    (void)state;
    assert_true(lseek(named.fd, 0, SEEK_END) < 256 * 1024);
}

/* ---- Time ------------------------------------------------------------------ */

static uint64_t cpu_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t open_once(const struct feature *f,
                          const struct feature_env *env)
{
    struct loader_cause cause = {0};
    void *self = NULL;
    uint64_t ns = cpu_ns();

    assert_int_equal(f->open(&self, env, &cause), 0);
    ns = cpu_ns() - ns;
    f->close(self);
    return ns;
}

/* The least of some rounds, and the thread's own time: others must not decide it. */
static void each_feature_is_loaded_within_a_tenth_of_a_second(void **state)
{
    struct feature_opts opts = {.runq = RUNQ_OPTS_DEFAULT, .programs.on = true};
    struct loader_cause cause = {0};
    struct event_ring ring;
    struct feature_env env = {.opts = &opts,
                              .types = types,
                              .types_path = named.path,
                              .watched_fd = life_watched_create()};

    (void)state;
    env_opts_init(&opts.env);
    assert_int_equal(event_ring_create(&ring, RING_BYTES, &cause), 0);
    assert_int_equal(cgroups_create(&env.cgroups), 0);
    env.events_fd = ring.ring.ring_fd;
    env.events_control_fd = ring.ring.control_fd;
    env.events_stats_fd = ring.stats_fd;
    for (int i = 0; feature_table[i] != NULL; i++) {
        uint64_t least_ns = UINT64_MAX;

        for (int n = 0; n < ROUNDS; n++) {
            uint64_t ns = open_once(feature_table[i], &env);

            least_ns = ns < least_ns ? ns : least_ns;
        }
        print_message("%s: %.1f ms\n", feature_table[i]->name,
                      (double)least_ns / 1e6);
        assert_true(least_ns < BUDGET_NS);
    }
    cgroups_close(env.cgroups);
    event_ring_close(&ring);
    (void)close(env.watched_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_named_types_make_the_same_programs_as_all),
        cmocka_unit_test(the_named_types_are_few),
        cmocka_unit_test(each_feature_is_loaded_within_a_tenth_of_a_second),
    };

    require_bpf();
    return cmocka_run_group_tests(tests, setup, teardown);
}
