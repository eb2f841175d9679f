/* SPDX-License-Identifier: Apache-2.0 */
/* What hooks cost, while others load programs and take theirs away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "tests/bpf/hook_cost.h"
#include "tests/bpf/require.h"

/* What is done within each moment. */
static void (*meanwhile)(void);
static struct empty_hooks others;

void __real_pingpong_play(const struct pingpong *p, unsigned int n);
void __wrap_pingpong_play(const struct pingpong *p, unsigned int n);

void __wrap_pingpong_play(const struct pingpong *p, unsigned int n)
{
    __real_pingpong_play(p, n);
    if (meanwhile != NULL)
        meanwhile();
}

static void go_once(void)
{
    empty_hooks_off(&others);
    meanwhile = NULL;
}

/* To go alone is not enough: the kernel may keep them for a while. */
static void go_and_come(void)
{
    empty_hooks_off(&others);
    assert_int_equal(empty_hooks_on(&others), 0);
}

static void a_moment_in_which_programs_go_is_left_out(void **state)
{
    uint32_t id = hook_cost_last_id();
    struct empty_hooks stay;
    struct pingpong p;
    double alone, ns;

    (void)state;
    assert_int_equal(pingpong_start(&p), 0);
    assert_int_equal(empty_hooks_on(&stay), 0);
    alone = hook_cost_ns(&p, id);
    assert_int_equal(empty_hooks_on(&others), 0);
    (void)hook_cost_ns(&p, id); /* they have run, much more than a moment */
    meanwhile = go_once;
    ns = hook_cost_ns(&p, id);
    pingpong_stop(&p);
    empty_hooks_off(&stay);
    print_message("%.0f ns, with others that go %.0f ns\n", alone, ns);
    assert_null(others.object);
    assert_true(alone > 0 && ns > alone / 2);
}

static void without_a_moment_left_nothing_is_said(void **state)
{
    uint32_t id = hook_cost_last_id();
    struct pingpong p;
    double ns;

    (void)state;
    assert_int_equal(pingpong_start(&p), 0);
    meanwhile = go_and_come;
    ns = hook_cost_ns(&p, id);
    meanwhile = NULL;
    empty_hooks_off(&others);
    pingpong_stop(&p);
    assert_true(ns == HUGE_VAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_moment_in_which_programs_go_is_left_out),
        cmocka_unit_test(without_a_moment_left_nothing_is_said),
    };

    require_bpf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
