/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's priority in the configuration: policy and priority are one setting with
 * four spellings.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/config_rig.h"

#define STREAM_KEY "event_monitoring_config.event_stream."

/* The spellings, each as text for YAML and as variable. */
static const struct spelling {
    const char *key; /* before "policy" and "priority" */
    const char *env;
    const char *yaml; /* policy and priority are put in */
} spellings[] = {
    {STREAM_KEY "scheduling_",
     "EVENT_MONITORING_CONFIG_EVENT_STREAM_SCHEDULING_",
     "event_monitoring_config:\n  event_stream:\n"
     "    scheduling_policy: %s\n    scheduling_priority: %s\n"},
    {"ebpf.reader.scheduling_", "EBPF_READER_SCHEDULING_",
     "ebpf:\n  reader:\n"
     "    scheduling_policy: %s\n    scheduling_priority: %s\n"},
    {"ebpf.scheduling_", "EBPF_SCHEDULING_",
     "ebpf:\n  scheduling_policy: %s\n  scheduling_priority: %s\n"},
    {"dogstatsd_scheduling_", "DOGSTATSD_SCHEDULING_",
     "dogstatsd_scheduling_policy: %s\ndogstatsd_scheduling_priority: %s\n"},
};

static const struct {
    const char *policy, *priority;
    const char *about; /* what the error names; NULL = good */
    const char *says;
    int want;
} pairs[] = {
    {"", "0", NULL, NULL, SCHED_OTHER},
    {"SCHED_FIFO", "10", NULL, NULL, SCHED_FIFO},
    {"SCHED_RR", "1", NULL, NULL, SCHED_RR},
    {"SCHED_FIFO", "99", NULL, NULL, SCHED_FIFO},
    {"SCHED_OTHER", "10", "policy", "must be SCHED_FIFO or SCHED_RR", 0},
    {"SCHED_FIFO", "0", "priority", "must be between 1 and 99", 0},
    {"SCHED_FIFO", "100", "priority", "must be between 1 and 99", 0},
    {"SCHED_FIFO", "-1", "priority", "must be between 1 and 99", 0},
    {"", "10", "priority", "is empty", 0},
    /* beyond the nine: exact spelling, the order of the checks, any number */
    {"sched_fifo", "10", "policy", "must be SCHED_FIFO or SCHED_RR", 0},
    {"SCHED_OTHER", "100", "policy", "must be SCHED_FIFO or SCHED_RR", 0},
    {"", "-1", "priority", "is empty", 0},
    {"SCHED_RR", "99999999999999999999", "priority", "must be between 1 and 99",
     0},
    {"SCHED_RR", "5.5", "priority", "must be a whole number", 0},
};

static void assert_pair(const struct config_rig *s, size_t i, const char *key)
{
    char begin[200];

    if (pairs[i].about == NULL) {
        assert_int_equal(s->rep.errors.n, 0);
        assert_int_equal(s->cfg.reader_policy, pairs[i].want);
        assert_int_equal(s->cfg.reader_priority,
                         (int)strtol(pairs[i].priority, NULL, 10));
        return;
    }
    (void)snprintf(begin, sizeof(begin), ": %s%s: ", key, pairs[i].about);
    config_rig_assert_line(&s->rep.errors, begin);
    config_rig_assert_line(&s->rep.errors, pairs[i].says);
    assert_int_equal(s->cfg.reader_policy, SCHED_OTHER);
    assert_int_equal(s->cfg.reader_priority, 0);
}

static void policy_and_priority_are_checked_together(void **state)
{
    struct config_rig *s = *state;
    char text[512];

    for (size_t k = 0; k < sizeof(spellings) / sizeof(spellings[0]); k++) {
        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
            char policy[64];

            (void)snprintf(policy, sizeof(policy), "\"%s\"", pairs[i].policy);
            (void)snprintf(text, sizeof(text), spellings[k].yaml, policy,
                           pairs[i].priority);
            config_rig_load_text(s, text);
            assert_pair(s, i, spellings[k].key);
            if (pairs[i].about != NULL && i < 9)
                assert_int_equal(s->rep.errors.n, 1);
        }
    }
}

static void each_spelling_has_its_variable(void **state)
{
    struct config_rig *s = *state;
    char policy[128], priority[128];

    s->env[1] = policy;
    s->env[2] = priority;
    for (size_t k = 0; k < sizeof(spellings) / sizeof(spellings[0]); k++) {
        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
            (void)snprintf(policy, sizeof(policy), "DD_%sPOLICY=%s",
                           spellings[k].env, pairs[i].policy);
            (void)snprintf(priority, sizeof(priority), "DD_%sPRIORITY=%s",
                           spellings[k].env, pairs[i].priority);
            config_rig_load(s);
            assert_pair(s, i, spellings[k].key);
        }
    }
}

static void spellings_must_agree(void **state)
{
    struct config_rig *s = *state;

    config_rig_load_text(
        s, "ebpf: {scheduling_policy: SCHED_RR, scheduling_priority: 3}\n"
           "dogstatsd_scheduling_policy: SCHED_RR\n");
    config_rig_assert_clean(s);
    config_rig_load_text(
        s, "ebpf: {scheduling_policy: SCHED_RR, scheduling_priority: 3}\n"
           "dogstatsd_scheduling_policy: SCHED_FIFO\n");
    config_rig_assert_line(&s->rep.errors,
                           ":2:30: dogstatsd_scheduling_policy: given "
                           "twice with different values (the other: "
                           "ebpf.scheduling_policy, ");
    s->src.file = NULL;
    s->env[1] = "DD_EBPF_READER_SCHEDULING_POLICY=SCHED_FIFO";
    s->env[2] = "DD_DOGSTATSD_SCHEDULING_POLICY=SCHED_RR";
    s->env[3] = "DD_EBPF_SCHEDULING_PRIORITY=1";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(
        &s->rep.errors,
        "DD_DOGSTATSD_SCHEDULING_POLICY: "
        "DD_EBPF_READER_SCHEDULING_POLICY is set to another value");
    /* A stronger source wins under any name. */
    s->env[2] = NULL;
    s->sets[0] = "dogstatsd_scheduling_priority=7";
    config_rig_load(s);
    config_rig_assert_clean(s);
    assert_int_equal(s->cfg.reader_priority, 7);
}

static void a_high_priority_is_warned_about(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_EBPF_SCHEDULING_POLICY=SCHED_FIFO";
    s->env[2] = "DD_EBPF_SCHEDULING_PRIORITY=49";
    config_rig_load(s);
    assert_int_equal(s->rep.warnings.n, 0);
    s->env[2] = "DD_EBPF_SCHEDULING_PRIORITY=50";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 0);
    config_rig_assert_line(
        &s->rep.warnings,
        "DD_EBPF_SCHEDULING_PRIORITY: ebpf.scheduling_priority: 50");
    s->env[3] = "DD_EBPF_READER_NICE_FALLBACK=-21";
    s->env[4] = "DD_EBPF_READER_RTTIME_MS=901";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors,
                           "ebpf.reader.nice_fallback: -21 is below");
    config_rig_assert_line(&s->rep.errors,
                           "ebpf.reader.rttime_ms: 901 is above");
    assert_int_equal(s->cfg.nice_fallback, -20);
    assert_int_equal(s->cfg.rttime_ms, 200);
}

int main(void)
{
#define T(f)                                                                   \
    cmocka_unit_test_setup_teardown(f, config_rig_setup, config_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(policy_and_priority_are_checked_together),
        T(each_spelling_has_its_variable),
        T(spellings_must_agree),
        T(a_high_priority_is_warned_about),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
