/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/buf.h"

static void text_is_terminated_after_each_call(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 100);
    assert_string_equal(buf_cstr(&b), "");
    assert_int_equal(buf_puts(&b, "ab"), 0);
    assert_int_equal(buf_putc(&b, 'c'), 0);
    assert_int_equal(buf_printf(&b, "%d-%s", 7, "x"), 0);
    assert_int_equal(buf_append(&b, NULL, 0), 0);
    assert_string_equal(buf_cstr(&b), "abc7-x");
    buf_consume(&b, 3);
    assert_string_equal(buf_cstr(&b), "7-x");
    assert_int_equal(b.n, 3);
    buf_fini(&b);
}

static void append_beyond_the_maximum_changes_nothing(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 5);
    assert_int_equal(buf_puts(&b, "1234"), 0);
    assert_int_equal(buf_puts(&b, "56"), -ENOMEM);
    assert_int_equal(buf_printf(&b, "%s", "56"), -ENOMEM);
    assert_string_equal(buf_cstr(&b), "1234");
    assert_true(b.failed);
    assert_int_equal(buf_puts(&b, "5"), 0);
    assert_string_equal(buf_cstr(&b), "12345");
    assert_true(b.failed); /* what was refused stays known */
    buf_clear(&b);
    assert_false(b.failed);
    assert_int_equal(b.n, 0);
    buf_fini(&b);
}

static void size_that_overflows_is_refused(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, SIZE_MAX - 1);
    assert_int_equal(buf_puts(&b, "abc"), 0);
    assert_int_equal(buf_reserve(&b, SIZE_MAX - 2), -ENOMEM);
    assert_string_equal(buf_cstr(&b), "abc");
    buf_fini(&b);
}

static void memory_never_exceeds_the_maximum(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(buf_putc(&b, 'x'), 0);
    assert_int_equal(b.n, 1000);
    assert_int_equal(b.cap_bytes, 1001);
    assert_int_equal(buf_putc(&b, 'x'), -ENOMEM);
    buf_fini(&b);
    assert_int_equal(buf_puts(&b, "again"), 0);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_terminated_after_each_call),
        cmocka_unit_test(append_beyond_the_maximum_changes_nothing),
        cmocka_unit_test(size_that_overflows_is_refused),
        cmocka_unit_test(memory_never_exceeds_the_maximum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
