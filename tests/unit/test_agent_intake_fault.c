/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/intake_control.h"
#include "agent/intake_fault.h"

static void follows_the_script_then_accepts(void **state)
{
    struct fault_plan p;
    struct fault_outcome o;

    (void)state;
    fault_init(&p, 1);
    assert_int_equal(
        fault_set_script(&p, "200,500*2,reset,429/2,stall,late-reset,accept"),
        0);
    o = fault_next(&p);
    assert_int_equal(o.kind, FAULT_ACCEPT);
    assert_int_equal(o.status, 200);
    for (int i = 0; i < 2; i++) {
        o = fault_next(&p);
        assert_int_equal(o.kind, FAULT_STATUS);
        assert_int_equal(o.status, 500);
    }
    assert_int_equal(fault_next(&p).kind, FAULT_RESET);
    o = fault_next(&p);
    assert_int_equal(o.status, 429);
    assert_int_equal(o.retry_after_s, 2);
    assert_int_equal(fault_next(&p).kind, FAULT_STALL);
    assert_int_equal(fault_next(&p).kind, FAULT_LATE_RESET);
    for (int i = 0; i < 3; i++) {
        o = fault_next(&p);
        assert_int_equal(o.kind, FAULT_ACCEPT);
        assert_int_equal(o.status, 0);
    }
}

static void refuses_bad_scripts_and_keeps_the_old_one(void **state)
{
    static const char *const bad[] = {",",         "200,", "200,,500",
                                      "600",       "99",   "2000",
                                      "500/",      "500*", "resets",
                                      "stall:0.5", "-1",   "500 ,500"};
    struct fault_plan p;

    (void)state;
    fault_init(&p, 1);
    assert_int_equal(fault_set_script(&p, "503"), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (fault_set_script(&p, bad[i]) != FAULT_BAD)
            fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(fault_next(&p).status, 503);
}

static void rules_have_the_share_they_ask_for(void **state)
{
    struct fault_plan p, same;
    unsigned n_500 = 0, n_reset = 0;

    (void)state;
    fault_init(&p, 42);
    assert_int_equal(fault_add_rule(&p, "500:0.2"), 0);
    assert_int_equal(fault_add_rule(&p, "reset:0.3"), 0);
    same = p;
    for (int i = 0; i < 10000; i++) {
        struct fault_outcome o = fault_next(&p);

        assert_int_equal(o.kind, fault_next(&same).kind);
        n_500 += o.kind == FAULT_STATUS;
        n_reset += o.kind == FAULT_RESET;
    }
    assert_in_range(n_500, 1800, 2200);
    assert_in_range(n_reset, 2800, 3200);
}

static void a_rule_of_one_always_holds(void **state)
{
    struct fault_plan p;

    (void)state;
    fault_init(&p, 7);
    assert_int_equal(fault_add_rule(&p, "403:1"), 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(fault_next(&p).status, 403);
}

static void refuses_bad_rules(void **state)
{
    static const char *const bad[] = {"500",     "500:",     "500:2", "500:-1",
                                      "500:nan", "500:0.5x", "x:0.5", ""};
    struct fault_plan p;

    (void)state;
    fault_init(&p, 1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (fault_add_rule(&p, bad[i]) != FAULT_BAD)
            fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(fault_add_rule(&p, "500:0.7"), 0);
    assert_int_equal(fault_add_rule(&p, "429:0.4"), FAULT_BAD); /* 1.1 */
}

static int control(struct intake_settings *s, const char *text,
                   struct intake_order *o)
{
    char why[100] = "";
    int rc;

    memset(o, 0, sizeof(*o));
    rc = intake_control(s, text, strlen(text), o, why, sizeof(why));
    assert_true((rc == 0) == (why[0] == '\0'));
    return rc;
}

static void control_changes_what_it_names(void **state)
{
    struct intake_settings s = {.latency_ms = 5};
    struct intake_order o;

    (void)state;
    fault_init(&s.plan, 1);
    assert_int_equal(control(&s,
                             "{\"fail\":[\"500:1\"],\"script\":\"429\","
                             "\"down\":true,\"api_key\":\"abc\"}",
                             &o),
                     0);
    assert_int_equal(s.latency_ms, 5);
    assert_int_equal(s.down, 1);
    assert_string_equal(s.api_key, "abc");
    assert_int_equal(fault_next(&s.plan).status, 429);
    assert_int_equal(fault_next(&s.plan).status, 500);
    assert_int_equal(control(&s,
                             "{\"fail\":[],\"latency_ms\":9,\"down\":false,"
                             "\"down_ms\":70,\"reset\":true}",
                             &o),
                     0);
    assert_int_equal(s.latency_ms, 9);
    assert_int_equal(o.down_ms, 70);
    assert_int_equal(o.reset, 1);
    assert_int_equal(fault_next(&s.plan).kind, FAULT_ACCEPT);
}

static void a_faulty_control_message_changes_nothing(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{\"latency_ms\":-1}",
        "{\"latency_ms\":\"1\"}",
        "{\"down\":1}",
        "{\"fail\":\"500:1\"}",
        "{\"fail\":[\"500\"]}",
        "{\"script\":5}",
        "{\"what\":1}",
        "{\"api_key\":\"a\\u0000b\"}",
        "{\"seed\":1.5}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intake_settings s = {.latency_ms = 5}, before;
        struct intake_order o;
        char text[200];

        (void)snprintf(text, sizeof(text), "%s", bad[i]);
        if (text[0] == '{') /* a good member first */
            (void)snprintf(text, sizeof(text), "{\"down\":true,%s", bad[i] + 1);
        before = s;
        if (control(&s, text, &o) != INTAKE_CONTROL_BAD)
            fail_msg("accepted: %s", text);
        assert_memory_equal(&s, &before, sizeof(s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_script_then_accepts),
        cmocka_unit_test(refuses_bad_scripts_and_keeps_the_old_one),
        cmocka_unit_test(rules_have_the_share_they_ask_for),
        cmocka_unit_test(a_rule_of_one_always_holds),
        cmocka_unit_test(refuses_bad_rules),
        cmocka_unit_test(control_changes_what_it_names),
        cmocka_unit_test(a_faulty_control_message_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
