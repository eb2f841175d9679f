/* SPDX-License-Identifier: Apache-2.0 */
/* Records of the event ring: which lengths go with which type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "bpf/event_check.h"

static union {
    struct event_hdr hdr;
    struct event_env env;
    unsigned char bytes[EVENT_MAX_BYTES + 64];
} r;

static bool is_whole(uint32_t type, uint32_t says, uint32_t n)
{
    memset(&r.hdr, 0, sizeof(r.hdr));
    r.hdr.type = (uint16_t)type;
    r.hdr.len = (uint16_t)says;
    return event_is_whole(r.bytes, n);
}

static void each_type_has_one_length(void **state)
{
    (void)state;
    memset(&r, 0, sizeof(r));
    for (uint32_t type = 0; type < EVENT_N_TYPES + 2; type++) {
        unsigned n_whole = 0;

        for (uint32_t n = 0; n < sizeof(r); n++) {
            n_whole += is_whole(type, n, n);
            assert_false(is_whole(type, n + 8, n));
        }
        assert_int_equal(n_whole, type > 0 && type < EVENT_N_TYPES ? 1 : 0);
        assert_true(type == 0 || type >= EVENT_N_TYPES ||
                    is_whole(type, event_bytes(type), event_bytes(type)));
    }
}

static void an_environment_record_is_as_long_as_its_value(void **state)
{
    const uint32_t head = sizeof(struct event_env);

    (void)state;
    memset(&r, 0, sizeof(r));
    for (uint32_t n_val = 0; n_val < 2 * ENV_MAX_VALUE; n_val++) {
        uint32_t n = head + (n_val + 7) / 8 * 8;

        if (n > sizeof(r))
            break;
        r.env.val_len = n_val;
        assert_int_equal(is_whole(EVENT_ENV, n, n), n_val <= ENV_MAX_VALUE);
        assert_false(is_whole(EVENT_ENV, n, n - 8));
        assert_false(is_whole(EVENT_ENV, n - 8, n));
    }
    r.env.val_len = UINT32_MAX; /* rounded up it is 0 */
    assert_false(is_whole(EVENT_ENV, head, head));
}

static void a_path_ends(void **state)
{
    const uint32_t n = sizeof(struct event_cgroup);

    (void)state;
    memset(&r, 0, sizeof(r));
    assert_true(is_whole(EVENT_CGROUP, n, n));
    memset(r.bytes + sizeof(r.hdr), 'x', sizeof(r) - sizeof(r.hdr));
    assert_false(is_whole(EVENT_CGROUP, n, n));
}

static void names_are_the_ones_of_the_tags(void **state)
{
    (void)state;
    assert_string_equal(event_type_name(EVENT_EXEC), "exec");
    assert_string_equal(event_type_name(EVENT_RUNQ), "runq");
    assert_string_equal(event_type_name(EVENT_N_TYPES), "?");
    for (uint32_t i = 1; i < EVENT_N_TYPES; i++)
        assert_non_null(event_type_name(i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_has_one_length),
        cmocka_unit_test(an_environment_record_is_as_long_as_its_value),
        cmocka_unit_test(a_path_ends),
        cmocka_unit_test(names_are_the_ones_of_the_tags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
