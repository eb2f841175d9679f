/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that give up capabilities; as root they have some. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/privilege.h"

#define BPF_AND_NICE (PRIVILEGE(CAP_BPF) | PRIVILEGE(CAP_SYS_NICE))

/* A row of this thread's status. */
static uint64_t row(const char *name)
{
    unsigned long long v = 0;
    char line[256];
    FILE *f = fopen("/proc/thread-self/status", "r");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            (void)sscanf(line + strlen(name), ":%llx", &v);
    }
    assert_int_equal(fclose(f), 0);
    return v;
}

struct result {
    int rc;
    uint64_t keep[2];
    uint64_t permitted[2], effective[2];
};

static void *gives_up(void *arg)
{
    struct result *r = arg;

    for (int i = 0; i < 2; i++) {
        r->rc |= privilege_keep(r->keep[i]);
        r->permitted[i] = row("CapPrm");
        r->effective[i] = row("CapEff");
    }
    return NULL;
}

static struct result in_a_thread(uint64_t first, uint64_t then)
{
    struct result r = {.keep = {first, then}};
    pthread_t t;

    assert_int_equal(pthread_create(&t, NULL, gives_up, &r), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(r.rc, 0);
    return r;
}

static void what_is_kept_stays_and_the_rest_goes(void **state)
{
    uint64_t had = row("CapPrm");
    struct result r = in_a_thread(BPF_AND_NICE, PRIVILEGE(CAP_SYS_NICE));

    (void)state;
    if ((had & BPF_AND_NICE) != BPF_AND_NICE) {
        print_message("has not all of them: nothing to be kept\n");
        skip();
    }
    assert_int_equal(r.permitted[0], BPF_AND_NICE);
    assert_int_equal(r.permitted[1], PRIVILEGE(CAP_SYS_NICE));
    assert_int_equal(r.effective[0] & ~r.permitted[0], 0);
    assert_int_equal(r.effective[1] & ~r.permitted[1], 0);
}

static void nothing_comes_back(void **state)
{
    struct result r = in_a_thread(0, ~UINT64_C(0));

    (void)state;
    assert_int_equal(r.permitted[1], 0);
    assert_int_equal(r.effective[1], 0);
}

static void others_keep_theirs(void **state)
{
    uint64_t had = row("CapEff");

    (void)state;
    (void)in_a_thread(0, 0);
    assert_int_equal(row("CapEff"), had);
}

static void the_wide_one_stands_for_the_narrow_ones(void **state)
{
    struct result r = in_a_thread(PRIVILEGE(CAP_SYS_ADMIN), PRIVILEGE(CAP_BPF));

    (void)state;
    if ((row("CapPrm") & PRIVILEGE(CAP_SYS_ADMIN)) == 0) {
        print_message("has not CAP_SYS_ADMIN: nothing to be kept\n");
        skip();
    }
    assert_int_equal(r.permitted[1], PRIVILEGE(CAP_SYS_ADMIN));
    r = in_a_thread(PRIVILEGE(CAP_SYS_ADMIN), PRIVILEGE(CAP_SYS_NICE));
    assert_int_equal(r.permitted[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_stays_and_the_rest_goes),
        cmocka_unit_test(nothing_comes_back),
        cmocka_unit_test(others_keep_theirs),
        cmocka_unit_test(the_wide_one_stands_for_the_narrow_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
