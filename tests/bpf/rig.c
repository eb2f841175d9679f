/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/rig.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void take(void *arg, const char *packet, size_t n)
{
    struct rig *r = arg;

    assert_true(r->n_text + n < sizeof(r->text));
    memcpy(r->text + r->n_text, packet, n);
    r->n_text += n;
    r->text[r->n_text] = '\0';
}

void rig_open(struct rig *r, uint32_t ring_bytes)
{
    struct loader_cause cause = {0};

    memset(r, 0, sizeof(*r));
    assert_int_equal(ring_create(&r->ring, ring_bytes, &cause), 0);
    r->stats_fd =
        bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "event_stats", 4,
                       sizeof(struct event_stats), EVENT_N_TYPES, NULL);
    assert_true(r->stats_fd >= 0);
    r->env.opts = &r->opts;
    r->env.events_fd = r->ring.ring_fd;
    r->env.events_control_fd = r->ring.control_fd;
    r->env.events_stats_fd = r->stats_fd;
    r->env.watched_fd = life_watched_create();
    r->env.own_tgid = 0; /* a test is a parent of what it watches */
    assert_true(r->env.watched_fd >= 0);
    lines_init(&r->lines, take, r);
}

void rig_add(struct rig *r, const struct feature *f)
{
    struct loader_cause cause = {0};
    int rc;

    assert_true(r->n_features < RIG_MAX_FEATURES);
    rc = f->open(&r->selves[r->n_features], &r->env, &cause);
    if (rc != 0)
        (void)fprintf(stderr, "%s: %d: %s (%s)\n", f->name, rc, cause.why,
                      cause.remedy);
    assert_int_equal(rc, 0);
    r->features[r->n_features++] = f;
}

static void pass(struct rig *r, const struct event_hdr *ev)
{
    r->n_events[ev->type]++;
    if (r->look != NULL)
        r->look(r->arg, ev);
    for (size_t i = 0; i < r->n_features; i++) {
        if (r->features[i]->event != NULL)
            r->features[i]->event(r->selves[i], ev);
    }
}

uint64_t rig_drain(struct rig *r)
{
    uint64_t pos = ring_begin(&r->ring);
    uint64_t next, n_passed = 0;
    const void *record;
    uint32_t n;

    while (ring_at(&r->ring, pos, &record, &n, &next) == RING_RECORD) {
        const struct event_hdr *ev = record;

        assert_true(n >= sizeof(*ev) && ev->len == n);
        assert_true(ev->type > EVENT_NONE && ev->type < EVENT_N_TYPES);
        pass(r, ev);
        pos = next;
        ring_consumed(&r->ring, pos);
        n_passed++;
    }
    return n_passed;
}

bool rig_until(struct rig *r, bool (*done)(void *arg), void *arg,
               int timeout_ms)
{
    uint64_t end_ms = now_ms() + (uint64_t)timeout_ms;

    for (;;) {
        struct pollfd p = {.fd = r->ring.wait_fd, .events = POLLIN};
        uint64_t now;

        (void)rig_drain(r);
        if (done(arg))
            return true;
        now = now_ms();
        if (now >= end_ms)
            return false;
        (void)poll(&p, 1, end_ms - now < 20 ? (int)(end_ms - now) : 20);
        ring_awake(&r->ring);
    }
}

void rig_collect(struct rig *r, bool last)
{
    r->n_text = 0;
    r->text[0] = '\0';
    (void)rig_drain(r);
    for (size_t i = 0; i < r->n_features; i++)
        r->features[i]->collect(r->selves[i], &r->lines, last);
    lines_flush(&r->lines);
    assert_int_equal(r->lines.n_left_out, 0);
}

struct event_stats rig_stats(const struct rig *r, enum event_type type)
{
    int n_cpus = libbpf_num_possible_cpus();
    struct event_stats *all = calloc((size_t)n_cpus, sizeof(*all));
    struct event_stats sum = {0};
    uint32_t key = type;

    assert_non_null(all);
    assert_int_equal(bpf_map_lookup_elem(r->stats_fd, &key, all), 0);
    for (int i = 0; i < n_cpus; i++) {
        sum.sent += all[i].sent;
        sum.lost += all[i].lost;
        sum.bytes += all[i].bytes;
    }
    free(all);
    return sum;
}

/* One tag of @tags ends at a comma. */
static bool has_tags(const char *line, const char *tags)
{
    const char *have = strstr(line, "|#");

    while (tags != NULL && *tags != '\0') {
        size_t n = strcspn(tags, ",");
        const char *p = have;
        bool found = false;

        while (p != NULL && !found) {
            p += p == have ? 2 : 1;
            found = strncmp(p, tags, n) == 0 && (p[n] == ',' || p[n] == '\0');
            p = strchr(p, ',');
        }
        if (!found)
            return false;
        tags += n;
        if (*tags == ',')
            tags++;
    }
    return true;
}

double rig_sum(const struct rig *r, const char *name, const char *tags,
               unsigned int *n)
{
    size_t n_name = strlen(name);
    double sum = 0;

    *n = 0;
    for (const char *p = r->text; *p != '\0';) {
        size_t n_line = strcspn(p, "\n");
        char line[4096];
        const char *rate;

        assert_true(n_line < sizeof(line) && p[n_line] == '\n');
        memcpy(line, p, n_line);
        line[n_line] = '\0';
        p += n_line + 1;
        if (strncmp(line, name, n_name) != 0 || line[n_name] != ':' ||
            !has_tags(line, tags))
            continue;
        rate = strstr(line, "|@");
        sum += strtod(line + n_name + 1, NULL) /
               (rate != NULL ? strtod(rate + 2, NULL) : 1);
        ++*n;
    }
    return sum;
}

void rig_close(struct rig *r)
{
    for (size_t i = r->n_features; i-- > 0;)
        r->features[i]->close(r->selves[i]);
    ring_close(&r->ring, false);
    (void)close(r->stats_fd);
    (void)close(r->env.watched_fd);
}
