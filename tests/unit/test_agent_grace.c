/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's answer comes when the test lets it. */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/grace.h"

#define MS UINT64_C(1000000)

static sem_t asked, go;
static int answer;

long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    assert_int_equal(number, SYS_membarrier);
    (void)sem_post(&asked);
    while (sem_wait(&go) != 0)
        ;
    errno = EPERM;
    return answer;
}

static uint64_t in_ms(unsigned ms)
{
    return clock_mono_ns(&clock_real) + ms * MS;
}

static void it_is_over_when_the_kernel_says_so(void **state)
{
    struct grace g = {0};

    (void)state;
    answer = 0;
    (void)sem_post(&go);
    grace_begin(&g);
    assert_int_equal(grace_await(&g, in_ms(20000)), 0);
    assert_int_equal(sem_wait(&asked), 0);
    grace_fini(&g);
}

static void a_kernel_that_does_not_answer_is_not_waited_for(void **state)
{
    struct grace g = {0};
    uint64_t begin_ns = in_ms(0);

    (void)state;
    answer = 0;
    grace_begin(&g);
    assert_int_equal(sem_wait(&asked), 0);
    assert_int_equal(grace_await(&g, in_ms(30)), GRACE_LATE);
    assert_true(in_ms(0) - begin_ns >= 30 * MS);
    assert_int_equal(grace_await(&g, 0), GRACE_LATE); /* it is over already */
    (void)sem_post(&go);
    assert_int_equal(grace_await(&g, in_ms(20000)), 0);
    grace_fini(&g);
}

static void a_refusal_is_told(void **state)
{
    struct grace g = {0};

    (void)state;
    answer = -1;
    (void)sem_post(&go);
    grace_begin(&g);
    assert_int_equal(grace_await(&g, in_ms(20000)), GRACE_REFUSED);
    assert_int_equal(sem_wait(&asked), 0);
    grace_fini(&g);
}

static void the_end_joins_what_still_waits(void **state)
{
    struct grace g = {0};

    (void)state;
    answer = 0;
    grace_begin(&g);
    assert_int_equal(sem_wait(&asked), 0);
    assert_int_equal(grace_await(&g, in_ms(1)), GRACE_LATE);
    (void)sem_post(&go);
    grace_fini(&g);
    grace_fini(&g);
    assert_false(g.running);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_over_when_the_kernel_says_so),
        cmocka_unit_test(a_kernel_that_does_not_answer_is_not_waited_for),
        cmocka_unit_test(a_refusal_is_told),
        cmocka_unit_test(the_end_joins_what_still_waits),
    };

    (void)sem_init(&asked, 0, 0);
    (void)sem_init(&go, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
