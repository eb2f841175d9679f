/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/activity_bucket.h"
#include "bpf/activity_exits.h"
#include "bpf/activity_report.h"

#define THRESHOLD UINT64_C(50000) /* ticks, 51 ms */
#define MS_PER_TICK (1024.0 / 1e6)

/* The kernel's side, as activity.bpf.c has it, under a clock of our own. */
struct model {
    struct activity_family f;
    uint64_t now; /* ticks */
};

static void up(struct model *m)
{
    uint64_t slept = m->f.word >> ACTIVITY_COUNT_BITS;
    uint64_t idle = (m->now - slept) & ACTIVITY_TICKS_MASK;
    uint64_t burst = (slept - m->f.active_since_ticks) & ACTIVITY_TICKS_MASK;

    if ((m->f.word++ & ACTIVITY_COUNT_MASK) != 0 || idle < THRESHOLD)
        return;
    m->f.active_since_ticks = m->now;
    m->f.active_ticks += burst;
    m->f.idle_ticks += idle;
    m->f.bursts[activity_bucket(burst)]++;
    m->f.idles[activity_bucket(idle)]++;
    m->f.n_idle++;
}

static void down(struct model *m)
{
    m->f.word = (m->f.word & ACTIVITY_COUNT_MASK) == 1
                    ? m->now << ACTIVITY_COUNT_BITS
                    : m->f.word - 1;
}

static void begin(struct model *m, uint64_t now)
{
    memset(m, 0, sizeof(*m));
    m->now = now & ACTIVITY_TICKS_MASK;
    m->f.word = m->now << ACTIVITY_COUNT_BITS;
    m->f.active_since_ticks = m->now;
    m->f.n_threads = 1;
}

static void pass(struct model *m, uint64_t ticks)
{
    m->now = (m->now + ticks) & ACTIVITY_TICKS_MASK;
}

/* What the lines added up to. */
struct sums {
    double to_active, to_idle, active, idle, bursts, idles, burst_ms;
    bool state;
};

static void take(void *arg, const char *packet, size_t n)
{
    struct sums *s = arg;
    const struct {
        const char *name;
        double *sum;
        bool counts;
    } rows[] = {
        {"activity.idle_to_active", &s->to_active, false},
        {"activity.active_to_idle", &s->to_idle, false},
        {"activity.active.time", &s->active, false},
        {"activity.idle.time", &s->idle, false},
        {"activity.burst.duration", &s->bursts, true},
        {"activity.idle.duration", &s->idles, true},
    };
    const char *end = packet + n;

    while (packet < end) {
        const char *colon = strchr(packet, ':');
        const char *next = memchr(packet, '\n', (size_t)(end - packet));
        const char *rate = strstr(packet, "|@");
        double value = strtod(colon + 1, NULL);
        double weight = rate != NULL && rate < next
                            ? (double)(long)(1 / strtod(rate + 2, NULL))
                            : 1;

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            if (strncmp(packet, rows[i].name, (size_t)(colon - packet)) == 0 &&
                rows[i].name[colon - packet] == '\0')
                *rows[i].sum += rows[i].counts ? weight : value;
        }
        if (strncmp(packet, "activity.burst", 14) == 0)
            s->burst_ms += value * weight;
        packet = next + 1;
    }
}

static void report(struct activity_shadow *shadow, const struct model *m,
                   bool last, struct sums *s)
{
    struct lines lines;

    lines_init(&lines, take, s);
    s->state = activity_report(shadow, &m->f, m->now << ACTIVITY_TICK_SHIFT,
                               THRESHOLD, last, &lines, "family:a");
    lines_flush(&lines);
}

static void buckets_follow_each_other(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < ACTIVITY_BUCKETS; i++) {
        uint64_t at = activity_bucket_at(i), next = activity_bucket_at(i + 1);

        assert_true(at < next);
        assert_int_equal(activity_bucket(at), i);
        assert_int_equal(activity_bucket(next - 1), i);
        assert_true(i < 4 || (double)(next - at) / (double)at <= 0.25);
    }
    assert_int_equal(activity_bucket(UINT64_MAX), ACTIVITY_BUCKETS - 1);
    assert_int_equal(activity_bucket(ACTIVITY_TICKS_MASK),
                     ACTIVITY_BUCKETS - 1);
}

static void a_pending_idleness_is_told_once(void **state)
{
    struct activity_shadow shadow = {0};
    struct sums s = {0};
    struct model m;

    (void)state;
    begin(&m, 1000);
    up(&m);
    pass(&m, 10000);
    report(&shadow, &m, false, &s);
    assert_true(s.state && s.to_idle == 0 && s.bursts == 0);
    assert_true(s.active == 10000 * MS_PER_TICK);
    pass(&m, 10000);
    down(&m);
    pass(&m, THRESHOLD - 1);
    report(&shadow, &m, false, &s);
    assert_true(s.state && s.to_idle == 0 && s.idle == 0);
    pass(&m, 1);
    report(&shadow, &m, false, &s);
    assert_false(s.state);
    assert_true(s.to_idle == 1 && s.to_active == 0 && s.bursts == 1);
    assert_true(s.burst_ms == 20000 * MS_PER_TICK);
    assert_true(s.active == 20000 * MS_PER_TICK);
    pass(&m, 100);
    report(&shadow, &m, false, &s);
    assert_true(s.to_idle == 1 && s.bursts == 1);
    assert_true(s.idle == (double)(THRESHOLD + 100) * MS_PER_TICK);
    up(&m); /* the kernel books both now */
    report(&shadow, &m, false, &s);
    assert_true(s.state && s.to_idle == 1 && s.to_active == 1);
    assert_true(s.bursts == 1 && s.idles == 1);
    assert_true(s.active == 20000 * MS_PER_TICK);
    assert_true(s.idle == (double)(THRESHOLD + 100) * MS_PER_TICK);
}

static void an_open_burst_and_idleness_end_with_the_last_report(void **state)
{
    struct activity_shadow a = {0}, b = {0};
    struct sums s = {0}, t = {0};
    struct model m;

    (void)state;
    begin(&m, 0);
    up(&m);
    pass(&m, 500);
    report(&a, &m, true, &s);
    assert_true(s.bursts == 1 && s.burst_ms == 500 * MS_PER_TICK);
    assert_true(s.to_idle == 0);
    down(&m);
    pass(&m, THRESHOLD);
    report(&b, &m, true, &t);
    assert_true(t.bursts == 1 && t.idles == 1 && t.to_idle == 1);
}

static void a_dead_family_is_neither_active_nor_idle(void **state)
{
    struct activity_shadow shadow = {0};
    struct sums s = {0};
    struct model m;

    (void)state;
    begin(&m, 0);
    up(&m);
    pass(&m, 500);
    m.f.n_threads = 0; /* it ends, and is still on its CPU */
    report(&shadow, &m, false, &s);
    assert_true(s.state && s.bursts == 0);
    pass(&m, 100);
    down(&m);
    for (int i = 0; i < 3; i++) {
        pass(&m, THRESHOLD);
        report(&shadow, &m, i == 2, &s);
        assert_false(s.state);
        assert_true(s.bursts == 1 && s.burst_ms == 600 * MS_PER_TICK);
        assert_true(fabs(s.active - 600 * MS_PER_TICK) < 1e-6);
        assert_true(s.to_idle == 0 && s.idle == 0 && s.idles == 0);
    }
}

/* It died before anybody could count its threads. */
static void of_a_family_without_a_thread_nothing_is_told(void **state)
{
    struct activity_shadow shadow = {0};
    struct sums s = {0};
    struct model m;

    (void)state;
    begin(&m, 0);
    m.f.n_threads = 0;
    pass(&m, 2 * THRESHOLD);
    report(&shadow, &m, true, &s);
    assert_false(s.state);
    assert_true(s.bursts == 0 && s.idles == 0 && s.to_idle == 0);
    assert_true(s.active == 0 && s.idle == 0);
}

/* However often it is asked, over a wrap of the ticks, the sums are the same. */
static void sums_do_not_depend_on_when_one_asks(void **state)
{
    (void)state;
    for (uint32_t every = 1; every < 40; every += 3) {
        struct activity_shadow often = {0}, once = {0};
        struct sums s = {0}, t = {0};
        struct model m;
        uint32_t seed = 99;

        begin(&m, ACTIVITY_TICKS_MASK - 3000000);
        for (uint32_t i = 0; i < 1000; i++) {
            seed = seed * 1664525u + 1013904223u;
            if ((seed >> 16) % 2 == 0 && (m.f.word & ACTIVITY_COUNT_MASK) < 3)
                up(&m);
            else if ((m.f.word & ACTIVITY_COUNT_MASK) != 0)
                down(&m);
            pass(&m, (seed >> 8) % (2 * THRESHOLD));
            if (i % every == 0)
                report(&often, &m, false, &s);
        }
        report(&often, &m, true, &s);
        report(&once, &m, true, &t);
        assert_true(t.to_active > 50 && t.to_active == s.to_active);
        assert_true(t.to_idle == s.to_idle);
        assert_true(t.bursts == s.bursts && t.idles == s.idles);
        assert_true(s.active - t.active < 1e-3 && t.active - s.active < 1e-3);
        assert_true(s.idle - t.idle < 1e-3 && t.idle - s.idle < 1e-3);
    }
}

struct text {
    char bytes[2000];
    size_t n;
};

static void collect_text(void *arg, const char *packet, size_t n)
{
    struct text *t = arg;

    assert_true(t->n + n < sizeof(t->bytes));
    memcpy(t->bytes + t->n, packet, n);
    t->n += n;
    t->bytes[t->n] = '\0';
}

static void ends_are_told_by_status(void **state)
{
    static struct activity_exits e;
    struct text text = {0};
    struct lines lines;

    (void)state;
    activity_exits_add(&e, 1, FAMILY_AGENT, 0, 0);
    activity_exits_add(&e, 1, FAMILY_TOOL, 3 << 8, 0);
    activity_exits_add(&e, 1, FAMILY_TOOL, 3 << 8, 0);
    activity_exits_add(&e, 1, FAMILY_TOOL, 9, EXIT_OOM_KILLED);
    activity_exits_add(&e, 1, FAMILY_SKILL, 11 | 0x80, 0); /* a core */
    activity_exits_add(&e, 2, FAMILY_TOOL, 0, 0);
    lines_init(&lines, collect_text, &text);
    activity_exits_report(&e, 1, &lines, "family:a");
    lines_flush(&lines);
    assert_string_equal(
        text.bytes,
        "process.exit:1|c|#family:a,process_type:agent,exit_code:0\n"
        "process.exit:2|c|#family:a,process_type:tool,exit_code:3\n"
        "process.exit:1|c|#family:a,process_type:tool,signal:9,"
        "oom_killed:true\n"
        "process.exit:1|c|#family:a,process_type:skill,signal:11\n");
}

static void ends_beyond_the_bound_are_counted(void **state)
{
    static struct activity_exits e;
    struct text text = {0};
    struct lines lines;

    (void)state;
    for (uint32_t i = 0; i < ACTIVITY_MAX_EXITS; i++)
        activity_exits_add(&e, 1, FAMILY_TOOL, (uint16_t)i, 0);
    for (uint32_t i = 0; i < 5; i++)
        activity_exits_add(&e, 2, FAMILY_TOOL, (uint16_t)(i << 8), 0);
    lines_init(&lines, collect_text, &text);
    activity_exits_report(&e, 2, &lines, "family:b");
    lines_flush(&lines);
    assert_string_equal(
        text.bytes,
        "process.exit:5|c|#family:b,process_type:unknown,exit_code:other\n");
    activity_exits_clear(&e);
    activity_exits_report(&e, 2, &lines, "family:b");
    assert_int_equal(lines.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_follow_each_other),
        cmocka_unit_test(a_pending_idleness_is_told_once),
        cmocka_unit_test(an_open_burst_and_idleness_end_with_the_last_report),
        cmocka_unit_test(a_dead_family_is_neither_active_nor_idle),
        cmocka_unit_test(of_a_family_without_a_thread_nothing_is_told),
        cmocka_unit_test(sums_do_not_depend_on_when_one_asks),
        cmocka_unit_test(ends_are_told_by_status),
        cmocka_unit_test(ends_beyond_the_bound_are_counted),
    };

    return cmocka_run_group_tests_name("bpf_activity_report", tests, NULL,
                                       NULL);
}
