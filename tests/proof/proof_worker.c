/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker killed behind each instruction of its way from sockets to the intake:
 * its successor ends with the same series, bodies, events, checks and counts as
 * an undisturbed run. RETRIEVER_TEST_LONG=1 tries every instruction; otherwise a
 * random sample, by the seed that is printed (RETRIEVER_TEST_SEED repeats it).
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/num.h"
#include "tests/support/lives.h"

#define EVERY 1200 /* instructions between two that are judged, short run */
#define N_REAL 15  /* runs with real kills */
#define MAX_KILLS 8

static uint64_t rng;
static bool is_long;

#define TEN ":1:2:3:4:5:6:7:8:9:10"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

/* Every kind, twice, so that cells are made and changed. */
static const struct lives_script all_kinds = {
    .udp = {"hits:3|c|#a:b\nhits:4|c|@0.5|#a:b\ntemp:21.5|g\ntemp:22|g\n",
            "users:u1|s\nusers:u2|s\nusers:u1|s\nlat:12|h\nlat:30|h|@0.5\n"
            "req:250|ms\nreq:260|ms\n",
            "size:9|d\nsize:10|d|#z:1\nsize:11|d\nbad line\nhits:1|x\n",
            "pack:1:2:3:4|c\npackd:1:2:3|d\nsets:a:b:a|s"},
    .gram = {"old:5|c|T1699999900\nold:6|c|T1699999900\ngt:7|g|T1699999901\n"
             "far:1|c|T1800000000\n",
             "_e{5,4}:title|text|#x:y\n_e{5,4}:other|more|t:warning|s:src\n",
             "_sc|svc.up|0|#q:r|m:all well\n_sc|svc.up|2|m:down\n",
             "uds.hits:1|c|#b,a\nuds.hits:1|c|#a,b\n"},
    .frames = {"s.hits:1|c\ns.lat:5|h\n", "s.hits:10|c\ns.dist:3|d\n",
               "s.hits:100|c\nold:7|c|T1699999900\n_sc|s.check|1\n"},
    .n_first_bytes = 40, /* behind the second length: the frame is cut */
    .copy_histograms = true,
};

/* A line with more values than one transaction takes. */
static const struct lives_script packed = {
    .udp = {"p" HUNDRED HUNDRED HUNDRED ":1|c"},
    .gram = {"pd" HUNDRED HUNDRED TEN ":1|d"},
    .frames = {"ps:1:2:3|c", "x:1|c"},
    .n_first_bytes = 7,
};

/* A table of names is full: it is built anew beside the old one. */
static const struct lives_script table_grows = {
    .udp = {"new.1:1|c|#new:1\nnew.2:1|c|#new:2\n", "new.3:1|d|#new:3\n",
            "new.4:1|h|#new:4\nnew.5:a|s|#new:5,other:5\n"},
    .gram = {"known.7:8|g|#n:7\nnew.6:1|c|#new:6\n"},
    .frames = {"new.7:1|c|#new:7\n", "new.8:1|g|#new:8\n"},
    .n_first_bytes = 27,
    .n_contexts = 340,
};

/* The pool of contexts is full. */
static const struct lives_script pool_grows = {
    .udp = {"new.1:1|c|#new:1\nnew.2:1|c|#new:2\n"},
    .gram = {"known.7:8|g|#n:7\n"},
    .frames = {"new.7:1|c|#new:7\n", "new.8:1|g|#new:8\n"},
    .n_first_bytes = 27,
    .n_contexts = 760,
};

/* Buckets end: zeros for live counters, and contexts that expire. */
static const struct lives_script buckets_end = {
    .udp = {"hits:3|c|#a:b\nother:4|c\ntemp:21.5|g\nlat:12|h\nsize:9|d\n"},
    .gram = {"old:5|c|T1700000001\nold:6|c|T1700000030\n"},
    .frames = {"s.hits:1|c\ntemp:3|g\n", "s.hits:10|c\nhits:5|c|#a:b\n"},
    .n_first_bytes = 27,
    .later_s = 65,
};

/* Every sort of record, in groups and alone. */
static const struct lives_record tapped[] = {
    {LIVES_UDP, "hits:3|c|#a:b", 0},
    {LIVES_UDP, "hits:4|c|#a:b\n", 2},
    {LIVES_FOREIGN, "nobody:1|c", 0},
    {LIVES_GRAM, "users:u1|s\nusers:u2|s\nlat:12|h\n", 0},
    {LIVES_WITHDRAWN, "gone:1|c", 1},
    {LIVES_UDP, "temp:21.5|g", 0},
    {LIVES_UDP, "pack:1:2:3:4|c\nbad line\n_sc|svc.up|0\n", 0},
    {LIVES_GRAM, "size:9|d", 1},
    {LIVES_WITHDRAWN, "gone:2|c", 0},
    {0},
};

static const struct lives_record tapped_later[] = {
    {LIVES_GRAM, "hits:1|c", 0},        {LIVES_UNFINISHED, "stuck:1|c", 0},
    {LIVES_UDP, "hits:10|c|#a:b", 0},   {LIVES_WITHDRAWN, "gone:3|c", 0},
    {LIVES_UNFINISHED, "stuck:2|c", 0}, {LIVES_UDP, "hits:100|c", 0},
    {LIVES_UNFINISHED, "stuck:3|c", 0}, {0},
};

static const struct lives_script through_the_ring = {
    .udp = {"full:1|c\nhits:5|c|#a:b"},
    .gram = {"full:2|c"},
    .frames = {"s.hits:1|c", "s.hits:10|c"},
    .ring = tapped,
    .ring_later = tapped_later,
    .n_first_bytes = 7,
};

/* More than the reader gives back at once, then a line of two transactions that is
 * not the first of its datagram. */
static const struct lives_record many_tapped[] = {
    {LIVES_UDP, "n:1|c", 134},
    {LIVES_GRAM, "g:1|c\npd" HUNDRED HUNDRED HUNDRED ":1|d\ng:1|c", 0},
    {LIVES_GRAM, "n:1|c", 0},
    {0},
};

static const struct lives_script much_through_the_ring = {
    .udp = {"full:1|c"},
    .gram = {"full:2|c"},
    .frames = {"s.hits:1|c", "s.hits:10|c"},
    .ring = many_tapped,
    .n_first_bytes = 7,
};

/* ---- Judging ------------------------------------------------------------- */

struct proof {
    struct lives lives;
    char *want; /* outcome of the undisturbed run */
    struct stepper stepper;
    uint64_t n_instructions;
    uint64_t life_ns;
    unsigned n_killed;
};

/* The first line that differs. */
static bool is_same(const char *got, const char *want, char *why, size_t room)
{
    while (*got != '\0' || *want != '\0') {
        size_t n = strcspn(got, "\n");
        size_t m = strcspn(want, "\n");

        if (n != m || memcmp(got, want, n) != 0 ||
            strncmp(got, "BAD", 3) == 0) {
            (void)snprintf(why, room, "got '%.*s', not '%.*s'", (int)n, got,
                           (int)m, want);
            return false;
        }
        got += n + (got[n] == '\n');
        want += m + (want[m] == '\n');
    }
    return true;
}

static bool judge(void *arg, char *why, size_t room)
{
    struct lives *v = arg;
    const struct proof *p = (const struct proof *)v;

    if (!lives_enter_copy(v)) {
        (void)snprintf(why, room, "the sockets could not be copied");
        return false;
    }
    lives_after_kill(v);
    lives_live(v);
    return is_same(lives_outcome(v), p->want, why, room);
}

static void set_up(struct proof *p, const struct lives_script *script)
{
    assert_true(lives_open(&p->lives, script));
    p->stepper = (struct stepper){.work = lives_live,
                                  .judge = judge,
                                  .between = lives_between,
                                  .fork = lives_fork,
                                  .arg = &p->lives,
                                  .rng = rng};
    lives_maps(&p->lives, &p->stepper);
}

/* A life in a process of its own, killed after @ns (0 = never). Returns true when
 * it was. */
static bool live(struct lives *v, uint64_t ns)
{
    uint64_t end_ns = lives_real_ns() + ns;
    pid_t pid = lives_fork(v);
    int status;

    if (pid == 0) {
        lives_live(v);
        _exit(0);
    }
    assert_true(pid > 0);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        lives_between(v);
        if (ns > 0 && lives_real_ns() >= end_ns)
            (void)kill(pid, SIGKILL);
    }
    assert_true(ns > 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSIGNALED(status);
}

static void range_sizes(const struct proof *p, size_t n_bytes[AGG_N_RANGES])
{
    for (unsigned i = 0; i < AGG_N_RANGES; i++)
        n_bytes[i] = region_committed(&p->lives.k.ingest, i);
}

static bool have_changed(const struct proof *p, const size_t *n_bytes)
{
    size_t now[AGG_N_RANGES];

    range_sizes(p, now);
    return memcmp(now, n_bytes, sizeof(now)) != 0;
}

/* What is wanted, and how long it takes. */
static void run_undisturbed(struct proof *p, const struct lives_script *script)
{
    size_t n_bytes[AGG_N_RANGES];
    uint64_t start_ns;

    set_up(p, script);
    range_sizes(p, n_bytes);
    start_ns = lives_real_ns();
    (void)live(&p->lives, 0);
    p->life_ns = lives_real_ns() - start_ns;
    p->want = lives_outcome(&p->lives);
    assert_true(script->n_contexts == 0 || have_changed(p, n_bytes));
    lives_close(&p->lives);
    assert_null(strstr(p->want, "BAD"));
}

/* ---- The proofs ---------------------------------------------------------- */

static void step_through(struct proof *p, const struct lives_script *script)
{
    struct stepper_result done;
    char *got;
    int rc;

    set_up(p, script);
    p->stepper.every = is_long ? 1 : EVERY;
    rc = stepper_run(&p->stepper, &done);
    if (rc == STEPPER_REFUSED) {
        print_message("ptrace is refused here\n");
        skip();
    }
    assert_int_equal(rc, 0);
    got = lives_outcome(&p->lives);
    assert_string_equal(got, p->want);
    free(got);
    lives_close(&p->lives);
    p->n_instructions = done.n_instructions;
    print_message("%lu instructions, %lu judged\n",
                  (unsigned long)done.n_instructions,
                  (unsigned long)done.n_judged);
    assert_true(done.n_judged > 0);
}

static void finish(struct proof *p)
{
    char why[400];
    char *got;

    (void)live(&p->lives, 0);
    got = lives_outcome(&p->lives);
    if (!is_same(got, p->want, why, sizeof(why)))
        fail_msg("%s", why);
    free(got);
    lives_close(&p->lives);
}

/* Real kills at random instants, one life after the other. */
static void kill_for_real(struct proof *p, const struct lives_script *script)
{
    set_up(p, script);
    for (int i = 0; i < MAX_KILLS; i++) {
        if (!live(&p->lives, 1 + stepper_random(&rng) % p->life_ns)) {
            if (p->n_killed == 0) /* a life took long only when it was timed */
                p->life_ns = p->life_ns / 2 + 1;
            break;
        }
        lives_after_kill(&p->lives);
        p->n_killed++;
    }
    finish(p);
}

/* A killed worker's successor is stepped through, and killed itself. */
static void step_successor(struct proof *p, const struct lives_script *script)
{
    struct stepper_result done;

    set_up(p, script);
    if (live(&p->lives, 1 + stepper_random(&rng) % p->life_ns))
        lives_after_kill(&p->lives);
    p->stepper.every = is_long ? 100 : EVERY;
    p->stepper.kill_at = 1 + stepper_random(&rng) % p->n_instructions;
    assert_in_range(stepper_run(&p->stepper, &done), 0, STEPPER_ENDED);
    if (done.was_killed)
        lives_after_kill(&p->lives);
    finish(p);
}

static void prove(const struct lives_script *script)
{
    static struct proof p;
    unsigned times = is_long ? 50 : 1;

    p = (struct proof){0};
    run_undisturbed(&p, script);
    step_through(&p, script);
    for (unsigned i = 0; i < times && (is_long || script == &all_kinds); i++)
        step_successor(&p, script);
    for (unsigned i = 0; i < N_REAL * times; i++)
        kill_for_real(&p, script);
    print_message("killed for real %u times\n", p.n_killed);
    assert_true(p.n_killed > 0);
    free(p.want);
}

static void every_kind_survives_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&all_kinds);
}

static void a_packed_line_survives_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&packed);
}

static void the_ends_of_buckets_survive_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&buckets_end);
}

static void a_growing_table_survives_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&table_grows);
}

static void a_growing_pool_survives_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&pool_grows);
}

static void tapped_datagrams_survive_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&through_the_ring);
}

static void a_full_ring_survives_a_kill_anywhere(void **state)
{
    (void)state;
    prove(&much_through_the_ring);
}

/* proof_worker [SHARE SHARES]: of the cases each SHARES-th, from the SHARE-th on. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_survives_a_kill_anywhere),
        cmocka_unit_test(a_packed_line_survives_a_kill_anywhere),
        cmocka_unit_test(the_ends_of_buckets_survive_a_kill_anywhere),
        cmocka_unit_test(a_growing_table_survives_a_kill_anywhere),
        cmocka_unit_test(a_growing_pool_survives_a_kill_anywhere),
        cmocka_unit_test(tapped_datagrams_survive_a_kill_anywhere),
        cmocka_unit_test(a_full_ring_survives_a_kill_anywhere),
    };
    struct CMUnitTest mine[sizeof(tests) / sizeof(tests[0])];
    const char *s = getenv("RETRIEVER_TEST_SEED");
    const char *l = getenv("RETRIEVER_TEST_LONG");
    uint64_t share = 1, shares = 1;
    size_t n = 0;

    rng = s != NULL ? strtoull(s, NULL, 10)
                    : (uint64_t)time(NULL) ^ (uint64_t)getpid() << 20;
    is_long = l != NULL && strcmp(l, "1") == 0;
    printf("seed %lu (RETRIEVER_TEST_SEED)%s\n", (unsigned long)rng,
           is_long ? ", every instruction" : "");
    rng += rng == 0;
    if (argc == 3 &&
        (num_parse_u64(argv[1], &share) != 0 ||
         num_parse_u64(argv[2], &shares) != 0 || share < 1 || share > shares))
        return EXIT_FAILURE;
    for (size_t i = share - 1; i < sizeof(tests) / sizeof(tests[0]);
         i += shares)
        mine[n++] = tests[i];
    return _cmocka_run_group_tests("proof_worker", mine, n, NULL, NULL);
}
