/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf/lineage.h"

#define S UINT64_C(1000000000)

static struct family_rule rule = {
    .name = "agent",
    .env = "AGENT_MODE=1",
    .sub = {"claude*"},
    .n_sub = 1,
    .skill = {"skill-*"},
    .n_skill = 1,
};

static int make(void **state)
{
    struct lineage *l;

    assert_int_equal(lineage_create(&l, 200), 0);
    *state = l;
    return 0;
}

static int drop(void **state)
{
    lineage_close(*state);
    return 0;
}

/* Process n started at second n. */
static struct lineage_id id(uint32_t tgid)
{
    return (struct lineage_id){tgid, tgid * S};
}

static const struct lineage_node *member(struct lineage *l, uint32_t tgid,
                                         uint32_t ppid, const char *comm)
{
    struct family_facts f = {.comm = comm,
                             .exe = "",
                             .argv0 = "",
                             .cgroup = ""};

    return lineage_member(l, id(tgid), ppid, 7, &f, 100 * S);
}

static void children_inherit_family_and_get_a_role(void **state)
{
    struct lineage *l = *state;

    (void)lineage_root(l, id(10), 7, &rule, 0);
    assert_int_equal(member(l, 11, 10, "bash")->role, FAMILY_TOOL);
    assert_int_equal(member(l, 12, 11, "claude-2")->role, FAMILY_SUB_AGENT);
    assert_int_equal(member(l, 13, 12, "skill-pdf")->role, FAMILY_SKILL);
    assert_int_equal(lineage_find(l, id(13))->family, 7);
    assert_ptr_equal(lineage_find_root(lineage_find(l, id(13))),
                     lineage_find(l, id(10)));
}

static void another_program_is_another_role(void **state)
{
    struct lineage *l = *state;

    (void)lineage_root(l, id(10), 7, &rule, 0);
    assert_int_equal(member(l, 11, 10, "bash")->role, FAMILY_TOOL);
    assert_int_equal(member(l, 11, 10, "claude")->role, FAMILY_SUB_AGENT);
    assert_int_equal(member(l, 10, 1, "bash")->role, FAMILY_AGENT);
    assert_int_equal(lineage_n_nodes(l), 2);
}

/* AGENT_MODE goes on in the environment: below an agent it makes no agent... */
static void a_member_is_no_second_root(void **state)
{
    struct lineage *l = *state;

    (void)lineage_root(l, id(10), 7, &rule, 0);
    (void)member(l, 11, 10, "bash");
    assert_int_equal(lineage_family(l, id(11), 10, 0), 7);
    assert_int_equal(lineage_family(l, id(12), 11, 0), 7); /* not seen yet */
    assert_int_equal(lineage_family(l, id(12), 1, 9), 9);  /* the kernel's */
}

/* ... and where no agent is above, it does. */
static void whose_parent_is_unknown_may_be_a_root(void **state)
{
    struct lineage *l = *state;
    struct family_facts f = {.comm = "x",
                             .exe = "",
                             .argv0 = "",
                             .cgroup = "",
                             .environ = "A=1\0AGENT_MODE=1",
                             .n_environ = 17};

    assert_int_equal(lineage_family(l, id(11), 10, 0), 0);
    assert_ptr_equal(family_rule_first(&rule, 1, &f), &rule);
    assert_non_null(lineage_root(l, id(11), 7, &rule, 0));
    assert_int_equal(lineage_find(l, id(11))->role, FAMILY_AGENT);
}

static void a_number_used_again_is_somebody_else(void **state)
{
    struct lineage *l = *state;
    struct lineage_id again = {11, 50 * S};
    struct family_facts f = {.comm = "new",
                             .exe = "",
                             .argv0 = "",
                             .cgroup = ""};

    (void)lineage_root(l, id(10), 7, &rule, 0);
    (void)lineage_root(l, id(20), 8, &rule, 0);
    (void)member(l, 11, 10, "old");
    (void)member(l, 12, 11, "child");
    (void)lineage_member(l, again, 20, 8, &f, 100 * S);
    assert_true(lineage_find(l, id(11))->died_ns != 0);
    assert_int_equal(lineage_find(l, again)->family, 8);
    assert_ptr_equal(lineage_find(l, again)->parent, lineage_find(l, id(20)));
    assert_ptr_equal(lineage_alive(l, 11), lineage_find(l, again));
    /* The child of the old one has its grandparent, not the new one. */
    assert_ptr_equal(lineage_find(l, id(12))->parent, lineage_find(l, id(10)));
}

static void the_same_start_may_be_known_to_10_ms(void **state)
{
    struct lineage *l = *state;
    struct lineage_id rough = {10, 10 * S - 9999999};
    struct lineage_id other = {10, 10 * S - 10000000};

    (void)lineage_root(l, id(10), 7, &rule, 0);
    assert_ptr_equal(lineage_find(l, rough), lineage_find(l, id(10)));
    assert_null(lineage_find(l, other));
}

static void children_of_the_dead_go_to_the_grandparent(void **state)
{
    struct lineage *l = *state;

    (void)lineage_root(l, id(10), 7, &rule, 0);
    (void)member(l, 11, 10, "bash");
    (void)member(l, 12, 11, "make");
    (void)member(l, 13, 11, "make");
    lineage_exit(l, id(11), 100 * S);
    assert_ptr_equal(lineage_find(l, id(12))->parent, lineage_find(l, id(10)));
    assert_ptr_equal(lineage_find(l, id(13))->parent, lineage_find(l, id(10)));
    lineage_exit(l, id(10), 100 * S);
    assert_null(lineage_find(l, id(12))->parent);
    assert_int_equal(lineage_find(l, id(12))->family, 7); /* still */
}

static void the_dead_are_found_for_30_s(void **state)
{
    struct lineage *l = *state;

    (void)lineage_root(l, id(10), 7, &rule, 0);
    (void)member(l, 11, 10, "bash");
    lineage_exit(l, id(11), 100 * S);
    lineage_exit(l, id(11), 120 * S); /* told twice: dead since the first */
    lineage_expire(l, 130 * S - 1);
    assert_int_equal(lineage_find(l, id(11))->role, FAMILY_TOOL);
    assert_null(lineage_alive(l, 11));
    lineage_expire(l, 130 * S);
    assert_null(lineage_find(l, id(11)));
    assert_int_equal(lineage_n_nodes(l), 1);
}

static void a_root_is_found_within_64_steps(void **state)
{
    struct lineage *l = *state;

    (void)lineage_root(l, id(1), 7, &rule, 0);
    for (uint32_t i = 2; i <= 65; i++)
        (void)member(l, i, i - 1, "bash");
    assert_non_null(lineage_find_root(lineage_find(l, id(64))));
    assert_null(lineage_find_root(lineage_find(l, id(65))));
}

static void a_circle_ends(void **state)
{
    struct lineage *l = *state;

    (void)member(l, 10, 1, "a");
    (void)member(l, 11, 10, "b");
    (void)member(l, 12, 11, "c");
    (void)member(l, 10, 12, "a");
    assert_null(lineage_find_root(lineage_find(l, id(11))));
    for (uint32_t i = 10; i <= 12; i++)
        lineage_exit(l, id(i), 100 * S);
    assert_null(lineage_find(l, id(12))->parent);
    lineage_expire(l, 200 * S);
    assert_int_equal(lineage_n_nodes(l), 0);
}

static void when_full_the_first_dead_goes_and_the_living_stay(void **state)
{
    struct lineage *l = *state;

    for (uint32_t i = 1; i <= 200; i++)
        assert_non_null(member(l, i, i - 1, "bash"));
    assert_null(member(l, 201, 200, "bash"));
    assert_int_equal(lineage_n_refused(l), 1);
    lineage_exit(l, id(50), 100 * S);
    lineage_exit(l, id(20), 101 * S);
    assert_non_null(member(l, 201, 200, "bash"));
    assert_null(lineage_find(l, id(50)));
    assert_non_null(lineage_find(l, id(20)));
    assert_int_equal(lineage_n_nodes(l), 200);
    assert_int_equal(lineage_n_refused(l), 1);
}

/* Any order of births, ends and reuse, compared with nothing but the invariants:
 * a parent lives, and the tree can be taken down. */
static void any_order_of_events_keeps_the_tree(void **state)
{
    struct lineage *l = *state;
    uint32_t seed = 12345;

    for (int i = 0; i < 20000; i++) {
        uint32_t r = seed = seed * 1664525u + 1013904223u;
        uint32_t tgid = 1 + (r >> 8) % 60, ppid = 1 + (r >> 16) % 60;
        struct lineage_id who = {tgid, ((r >> 24) % 3 + 1) * S};
        struct family_facts f = {.comm = "x",
                                 .exe = "",
                                 .argv0 = "",
                                 .cgroup = ""};

        if (r % 4 == 0)
            lineage_exit(l, who, (uint64_t)i * S / 10);
        else if (r % 4 == 1)
            (void)lineage_root(l, who, 7, &rule, (uint64_t)i * S / 10);
        else
            (void)lineage_member(l, who, ppid, 7, &f, (uint64_t)i * S / 10);
        if (i % 100 == 0)
            lineage_expire(l, (uint64_t)i * S / 10);
        for (uint32_t k = 1; k <= 60; k++) {
            const struct lineage_node *n = lineage_alive(l, k);

            assert_true(n == NULL || n->parent == NULL ||
                        n->parent->died_ns == 0);
            (void)lineage_find_root(n);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make, drop)
    const struct CMUnitTest tests[] = {
        TEST(children_inherit_family_and_get_a_role),
        TEST(another_program_is_another_role),
        TEST(a_member_is_no_second_root),
        TEST(whose_parent_is_unknown_may_be_a_root),
        TEST(a_number_used_again_is_somebody_else),
        TEST(the_same_start_may_be_known_to_10_ms),
        TEST(children_of_the_dead_go_to_the_grandparent),
        TEST(the_dead_are_found_for_30_s),
        TEST(a_root_is_found_within_64_steps),
        TEST(a_circle_ends),
        TEST(when_full_the_first_dead_goes_and_the_living_stay),
        TEST(any_order_of_events_keeps_the_tree),
    };

    return cmocka_run_group_tests_name("bpf_lineage", tests, NULL, NULL);
}
