/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of what the helper thread has found out and what the kernel has seen, a datagram
 * gets the newer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/origin.h"
#include "bpf/env_table.h"

#define NUMBER 70000u

struct fixture {
    struct proctags *tags;
    struct origin origin;
    int fd;
    struct env_place *places;
};

static int open_all(void **state)
{
    const size_t n = ENV_TABLE_PLACES * sizeof(struct env_place);
    struct fixture *f = calloc(1, sizeof(*f));
    struct env_rules *rules = calloc(1, sizeof(*rules));

    assert_int_equal(proctags_create(&f->tags), 0);
    assert_int_equal(origin_init(&f->origin, f->tags), 0);
    f->fd = memfd_create("table", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->fd, (off_t)n), 0);
    f->places = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    assert_true(f->places != MAP_FAILED);
    assert_int_equal(env_table_map(proctags_env(f->tags), f->fd, -1), 0);
    watch_init(&rules->watch);
    assert_null(watch_item(&rules->watch, "A:a"));
    env_table_set_rules(proctags_env(f->tags), rules);
    free(rules);
    *state = f;
    return 0;
}

static int close_all(void **state)
{
    struct fixture *f = *state;

    (void)munmap(f->places, ENV_TABLE_PLACES * sizeof(struct env_place));
    (void)close(f->fd);
    origin_fini(&f->origin);
    proctags_close(f->tags);
    free(f);
    return 0;
}

/* A program began at @ts_ns with A=@value. */
static void begin(struct fixture *f, uint64_t ts_ns, const char *value,
                  uint32_t flags)
{
    struct env_place *p = &f->places[NUMBER % ENV_TABLE_PLACES];

    p->sequence += 2;
    p->ts_ns = ts_ns;
    p->tgid = p->ns_tgid = NUMBER;
    p->flags = flags;
    p->n_text = (uint32_t)strlen(value) + 1;
    p->values[WATCH_FIRST_OWN].n = (uint16_t)p->n_text;
    memcpy(p->text, value, p->n_text);
}

static void found(struct fixture *f, uint64_t as_of_ns, const char *tags)
{
    assert_int_equal(proctags_set(f->tags, NUMBER, NUMBER, tags, strlen(tags),
                                  as_of_ns),
                     0);
}

static void count(void *arg, enum proctags_space space, uint32_t number)
{
    (void)space;
    assert_int_equal(number, NUMBER);
    ++*(uint32_t *)arg;
}

/* And was it asked for? */
static void expect(struct fixture *f, const char *tags, bool is_asked)
{
    struct view v = origin_tags(&f->origin, PROCTAGS_TGID, NUMBER);
    uint32_t n = 0;

    assert_int_equal(v.n, strlen(tags));
    assert_memory_equal(v.p, tags, v.n);
    assert_int_equal(f->origin.asked, is_asked);
    f->origin.asked = false;
    proctags_asked(f->tags, count, &n);
    assert_int_equal(n, is_asked);
}

static void who_is_not_known_has_what_the_kernel_saw(void **state)
{
    struct fixture *f = *state;

    begin(f, 10, "1", 0);
    expect(f, "a:1", true);
    expect(f, "a:1", false);
    found(f, 11, "a:1");
    expect(f, "a:1", false);
}

static void a_new_program_is_newer_than_what_was_found(void **state)
{
    struct fixture *f = *state;

    found(f, 10, "a:old");
    expect(f, "a:old", false);
    begin(f, 11, "new", 0);
    expect(f, "a:new", true);
    found(f, 12, "a:newest");
    expect(f, "a:newest", false);
}

static void what_is_older_than_what_was_found_is_nothing(void **state)
{
    struct fixture *f = *state;

    begin(f, 10, "old", 0);
    found(f, 10, "");
    expect(f, "", false);
    begin(f, 9, "older", 0);
    expect(f, "", false);
}

static void who_is_unsure_has_no_tags_of_before(void **state)
{
    struct fixture *f = *state;

    found(f, 10, "a:old");
    begin(f, 9, "", ENV_PLACE_UNSURE);
    expect(f, "a:old", false);
    begin(f, 11, "", ENV_PLACE_UNSURE);
    expect(f, "", true);
    found(f, 12, "a:new");
    expect(f, "a:new", false);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)
    const struct CMUnitTest tests[] = {
        CASE(who_is_not_known_has_what_the_kernel_saw),
        CASE(a_new_program_is_newer_than_what_was_found),
        CASE(what_is_older_than_what_was_found_is_nothing),
        CASE(who_is_unsure_has_no_tags_of_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
