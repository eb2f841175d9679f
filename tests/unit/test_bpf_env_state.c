/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/env_state.h"

#define TICK UINT64_C(10000000)

static uint32_t n_gone;

static void count_gone(void *arg, struct env_proc *p)
{
    (void)arg;
    (void)p;
    n_gone++;
}

static int open_state(void **state)
{
    struct env_state *s;

    n_gone = 0;
    if (env_state_create(&s, count_gone, NULL) != 0)
        return -1;
    *state = s;
    return 0;
}

static int close_state(void **state)
{
    env_state_close(*state);
    return 0;
}

/* Process @tgid, started at tick 100 + @tgid, same number in our namespace. */
static struct env_id id(uint32_t tgid)
{
    return (struct env_id){tgid, tgid, (100 + tgid) * TICK};
}

struct record {
    union {
        struct event_env e;
        char bytes[sizeof(struct event_env) + ENV_MAX_VALUE];
    };
};

static int tell(struct env_state *s, uint32_t tgid, uint64_t ts_ns,
                enum event_env_op op, const char *value, bool overwrite,
                uint8_t flags, struct env_proc **p)
{
    static struct record r;
    size_t n = value != NULL ? strlen(value) : 0;

    memset(&r, 0, sizeof(r));
    r.e.hdr.type = EVENT_ENV;
    r.e.hdr.len = (uint16_t)(sizeof(r.e) + (n + 7) / 8 * 8);
    r.e.hdr.ts_ns = ts_ns;
    r.e.hdr.tgid = tgid;
    r.e.hdr.cgid = 7;
    r.e.ns_tgid = tgid;
    r.e.start_ns = (100 + tgid) * TICK + 12345; /* finer than /proc tells */
    r.e.op = (uint8_t)op;
    r.e.overwrite = overwrite;
    r.e.flags = flags;
    r.e.val_len = (uint32_t)n;
    memcpy(r.bytes + sizeof(r.e), value != NULL ? value : "", n);
    return env_state_event(s, &r.e, p);
}

static int set(struct env_state *s, uint32_t tgid, uint64_t ts_ns,
               const char *value)
{
    struct env_proc *p;

    return tell(s, tgid, ts_ns, ENV_SET, value, true, 0, &p);
}

static void expect(struct env_state *s, uint32_t tgid, enum env_known known,
                   const char *value)
{
    struct env_id who = id(tgid);
    struct env_proc *p = env_state_find(s, &who);

    assert_non_null(p);
    assert_int_equal(p->v[0].known, known);
    if (known == ENV_IS_SET) {
        assert_int_equal(p->v[0].n, strlen(value));
        assert_true(p->v[0].n == 0 ||
                    memcmp(p->v[0].text, value, p->v[0].n) == 0);
    }
}

static void a_call_sets_and_counts_a_generation(void **state)
{
    struct env_proc *p = NULL;

    assert_int_equal(tell(*state, 1, 10, ENV_SET, "0,1", true, 0, &p), 0);
    expect(*state, 1, ENV_IS_SET, "0,1");
    assert_int_equal(p->generation, 1);
    assert_int_equal(p->v[0].source, ENV_FROM_RUNTIME);
    assert_int_equal(tell(*state, 1, 11, ENV_SET, "0,1", true, 0, &p),
                     ENV_SAME);
    assert_int_equal(p->generation, 1);
    assert_int_equal(tell(*state, 1, 12, ENV_SET, "", true, 0, &p), 0);
    expect(*state, 1, ENV_IS_SET, "");
    assert_int_equal(p->generation, 2);
}

static void a_call_that_keeps_depends_on_what_is_known(void **state)
{
    struct env_proc *p = NULL;

    assert_int_equal(tell(*state, 1, 10, ENV_SET, "3", false, 0, &p), ENV_LOOK);
    assert_non_null(p);
    expect(*state, 1, ENV_UNKNOWN, NULL);
    assert_int_equal(tell(*state, 1, 11, ENV_UNSET, NULL, true, 0, &p), 0);
    assert_int_equal(tell(*state, 1, 12, ENV_SET, "3", false, 0, &p), 0);
    expect(*state, 1, ENV_IS_SET, "3");
    assert_int_equal(tell(*state, 1, 13, ENV_SET, "4", false, 0, &p), ENV_SAME);
    expect(*state, 1, ENV_IS_SET, "3");
}

static void what_was_cut_or_unreadable_needs_a_look(void **state)
{
    struct env_proc *p = NULL;

    assert_int_equal(set(*state, 1, 10, "0"), 0);
    assert_int_equal(tell(*state, 1, 11, ENV_SET, "1,2", true, ENV_TRUNCATED,
                          &p),
                     ENV_LOOK);
    expect(*state, 1, ENV_UNKNOWN, NULL);
    assert_int_equal(tell(*state, 2, 11, ENV_SET, "", true, ENV_READ_FAILED,
                          &p),
                     ENV_LOOK);
    expect(*state, 2, ENV_UNKNOWN, NULL);
}

static void clearing_removes_all(void **state)
{
    struct env_proc *p = NULL;

    assert_int_equal(set(*state, 1, 10, "0"), 0);
    assert_int_equal(tell(*state, 1, 11, ENV_CLEAR, NULL, true, 0, &p), 0);
    for (size_t i = 0; i < ENV_MAX_NAMES; i++)
        assert_int_equal(p->v[i].known, ENV_IS_UNSET);
    assert_int_equal(tell(*state, 1, 12, ENV_CLEAR, NULL, true, 0, &p),
                     ENV_SAME);
}

static void a_call_that_failed_changes_nothing(void **state)
{
    struct record r = {.e = {.hdr = {.tgid = 1, .len = sizeof(r.e)}, .rc = -1}};
    struct env_proc *p;

    assert_int_equal(env_state_event(*state, &r.e, &p), ENV_SAME);
    assert_int_equal(env_state_n(*state), 0);
}

static void a_record_that_contradicts_itself_changes_nothing(void **state)
{
    struct record r = {.e = {.hdr = {.tgid = 1, .len = sizeof(r.e)}}};
    struct env_proc *p;

    r.e.val_len = 1;
    assert_int_equal(env_state_event(*state, &r.e, &p), ENV_SAME);
    r.e.val_len = 0;
    r.e.name_idx = ENV_MAX_NAMES;
    assert_int_equal(env_state_event(*state, &r.e, &p), ENV_SAME);
    assert_int_equal(env_state_n(*state), 0);
}

static void older_is_ignored(void **state)
{
    struct env_id who = id(1);
    struct env_proc *p;

    assert_int_equal(set(*state, 1, 20, "new"), 0);
    assert_int_equal(set(*state, 1, 19, "old"), ENV_SAME);
    p = env_state_find(*state, &who);
    assert_int_equal(env_state_set(*state, p, 0, ENV_FROM_LIVE, 15, ENV_IS_SET,
                                   "old", 3),
                     ENV_SAME);
    expect(*state, 1, ENV_IS_SET, "new");
    assert_int_equal(env_state_set(*state, p, 0, ENV_FROM_LIVE, 21, ENV_IS_SET,
                                   "newer", 5),
                     0);
    expect(*state, 1, ENV_IS_SET, "newer");
}

static void a_fork_takes_what_was_changed_not_what_it_was_started_with(
    void **state)
{
    struct env_id parent = id(1), child = id(2);
    struct env_proc *p = env_state_get(*state, &parent);

    (void)env_state_set(*state, p, 0, ENV_FROM_START, 1, ENV_IS_SET, "0", 1);
    assert_null(env_state_fork(*state, &child, 1, 9));
    assert_int_equal(set(*state, 1, 20, "6"), 0);
    p = env_state_fork(*state, &child, 1, 9);
    assert_non_null(p);
    assert_int_equal(p->cgid, 9);
    assert_int_equal(p->v[0].source, ENV_FROM_RUNTIME);
    expect(*state, 2, ENV_IS_SET, "6");
    assert_int_equal(set(*state, 1, 30, "7"), 0);
    expect(*state, 2, ENV_IS_SET, "6");
    assert_null(env_state_fork(*state, &(struct env_id){3, 3, 0}, 99, 9));
}

static void a_new_program_forgets_what_is_older_than_it(void **state)
{
    struct env_id who = id(1);

    assert_int_equal(set(*state, 1, 20, "6"), 0);
    assert_non_null(env_state_exec(*state, &who, 30));
    expect(*state, 1, ENV_UNKNOWN, NULL);
    assert_int_equal(set(*state, 1, 40, "7"), 0);
    assert_non_null(env_state_exec(*state, &who, 35)); /* the record was late */
    expect(*state, 1, ENV_IS_SET, "7");
}

static void an_exit_keeps_it_for_a_while(void **state)
{
    struct env_id who = id(1);

    assert_int_equal(set(*state, 1, 20, "6"), 0);
    env_state_exit(*state, &who, 1000);
    env_state_expire(*state, 1000 + ENV_STATE_KEEP_NS - 1);
    expect(*state, 1, ENV_IS_SET, "6");
    env_state_expire(*state, 1000 + ENV_STATE_KEEP_NS);
    assert_null(env_state_find(*state, &who));
    assert_int_equal(n_gone, 1);
    assert_int_equal(env_state_n(*state), 0);
}

static void a_number_used_again_is_another_process(void **state)
{
    struct env_id old = id(1), new = id(1);

    new.start_ns += TICK;
    assert_int_equal(set(*state, 1, 20, "6"), 0);
    assert_null(env_state_find(*state, &new));
    env_state_exit(*state, &new, 1000); /* not this one */
    assert_int_equal(env_state_find(*state, &old)->gone_ns, 0);
    assert_null(env_state_fork(*state, &new, 99, 0));
    assert_null(env_state_find(*state, &old));
    assert_int_equal(n_gone, 1);
}

/* /proc tells our number, a record both. */
static void two_numbers_are_one_process(void **state)
{
    struct env_id ours = {0, 4, 500 * TICK}, both = {1504, 4, 500 * TICK + 1};
    struct env_proc *p = env_state_get(*state, &ours);

    assert_ptr_equal(env_state_get(*state, &both), p);
    assert_ptr_equal(env_state_by_tgid(*state, 1504), p);
    assert_ptr_equal(env_state_by_pid(*state, 4), p);
    assert_null(env_state_by_tgid(*state, 4));
    assert_int_equal(env_state_n(*state), 1);
    env_state_remove(*state, p);
    assert_null(env_state_by_pid(*state, 4));
    assert_null(env_state_by_tgid(*state, 1504));
}

static void an_invisible_process_has_the_number_that_records_give_it(
    void **state)
{
    struct env_id a = {1500, 0, 5 * TICK}, b = {1501, 0, 5 * TICK};

    assert_ptr_not_equal(env_state_get(*state, &a), env_state_get(*state, &b));
    assert_int_equal(env_state_n(*state), 2);
    assert_null(env_state_by_pid(*state, 0));
}

static void processes_and_bytes_are_bounded(void **state)
{
    char *big = test_calloc(1, 4096);
    uint64_t i;

    for (i = 1; i <= ENV_STATE_MAX_PROCS; i++) {
        struct env_id who = {(uint32_t)i, 0, TICK};

        assert_non_null(env_state_get(*state, &who));
    }
    assert_null(env_state_get(*state, &(struct env_id){(uint32_t)i, 0, TICK}));
    assert_int_equal(env_state_n_full(*state), 1);
    for (i = 1; i <= ENV_STATE_MAX_BYTES / 4096; i++)
        assert_int_equal(env_state_set(*state,
                                       env_state_by_tgid(*state, (uint32_t)i),
                                       0, ENV_FROM_LIVE, 1, ENV_IS_SET, big,
                                       4096),
                         0);
    assert_int_equal(env_state_set(*state,
                                   env_state_by_tgid(*state, (uint32_t)i), 0,
                                   ENV_FROM_LIVE, 1, ENV_IS_SET, big, 4096),
                     ENV_FULL);
    assert_int_equal(env_state_by_tgid(*state, (uint32_t)i)->v[0].known,
                     ENV_UNKNOWN);
    test_free(big);
}

/* Its fork was not told: nobody watches its parent. */
static void a_program_of_a_used_number_has_nothing(void **state)
{
    struct env_id next = id(5);
    struct env_proc *p = NULL;

    assert_int_equal(tell(*state, 5, 10, ENV_SET, "1", true, 0, &p), 0);
    env_state_exit(*state, &(struct env_id){5, 5, (100 + 5) * TICK}, 20);
    next.start_ns += 1000 * TICK;
    assert_null(env_state_exec(*state, &next, 30));
    assert_null(env_state_by_tgid(*state, 5));
    assert_null(env_state_by_pid(*state, 5));
    assert_int_equal(n_gone, 1);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_state, close_state)
    const struct CMUnitTest tests[] = {
        CASE(a_call_sets_and_counts_a_generation),
        CASE(a_program_of_a_used_number_has_nothing),
        CASE(a_call_that_keeps_depends_on_what_is_known),
        CASE(what_was_cut_or_unreadable_needs_a_look),
        CASE(clearing_removes_all),
        CASE(a_call_that_failed_changes_nothing),
        CASE(a_record_that_contradicts_itself_changes_nothing),
        CASE(older_is_ignored),
        CASE(a_fork_takes_what_was_changed_not_what_it_was_started_with),
        CASE(a_new_program_forgets_what_is_older_than_it),
        CASE(an_exit_keeps_it_for_a_while),
        CASE(a_number_used_again_is_another_process),
        CASE(two_numbers_are_one_process),
        CASE(an_invisible_process_has_the_number_that_records_give_it),
        CASE(processes_and_bytes_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
