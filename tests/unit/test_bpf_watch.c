/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "bpf/watch.h"

static void two_are_always_watched(void **state)
{
    struct watch w;

    (void)state;
    watch_init(&w);
    assert_int_equal(w.n, WATCH_FIRST_OWN);
    assert_string_equal(w.v[WATCH_CUDA].name, "CUDA_VISIBLE_DEVICES");
    assert_string_equal(w.v[WATCH_CUDA_ORDER].name, "CUDA_DEVICE_ORDER");
}

static void bad_names_and_tags_are_refused(void **state)
{
    static const struct {
        const char *name, *tag;
        int rc;
    } rows[] = {
        {"", "t", WATCH_NAME_EMPTY},
        {"A2345678901234567890123456789012", "t", WATCH_NAME_LONG},
        {"A234567890123456789012345678901", "t", 0},
        {"A=B", "t", WATCH_NAME_EQUALS},
        {"A B", "t", WATCH_NAME_EQUALS},
        {"A\n", "t", WATCH_NAME_EQUALS},
        {"A", "", WATCH_TAG_BAD},
        {"A", "t:u", WATCH_TAG_BAD},
        {"A", "t,u", WATCH_TAG_BAD},
        {"A", "t|u", WATCH_TAG_BAD},
        {"A",
         "t234567890123456789012345678901234567890123456789012345678901234",
         WATCH_TAG_BAD},
        {"CUDA_VISIBLE_DEVICES", "t", WATCH_TWICE},
        {"DD_SERVICE", "service", 0},
    };
    struct watch w;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        watch_init(&w);
        assert_int_equal(watch_add(&w, rows[i].name, rows[i].tag), rows[i].rc);
        assert_int_equal(w.n, WATCH_FIRST_OWN + (rows[i].rc == 0));
        assert_true((watch_words(rows[i].rc)[0] != '\0') == (rows[i].rc != 0));
    }
}

static void eight_are_enough(void **state)
{
    struct watch w;
    char name[8];

    (void)state;
    watch_init(&w);
    for (int i = 0; i < 8; i++) {
        (void)snprintf(name, sizeof(name), "V%d", i);
        assert_int_equal(watch_add(&w, name, "t"), 0);
    }
    assert_int_equal(watch_add(&w, "V7", "t"), WATCH_TWICE);
    assert_int_equal(watch_add(&w, "V8", "t"), WATCH_FULL);
}

static void an_entry_is_found_by_its_whole_name(void **state)
{
    struct watch w;

    (void)state;
    watch_init(&w);
    assert_int_equal(watch_find(&w, "CUDA_VISIBLE_DEVICES=", 21), WATCH_CUDA);
    assert_int_equal(watch_find(&w, "CUDA_VISIBLE_DEVICES=1", 22), WATCH_CUDA);
    assert_int_equal(watch_find(&w, "CUDA_VISIBLE_DEVICES", 20), -1);
    assert_int_equal(watch_find(&w, "CUDA_VISIBLE_DEVICESX=1", 23), -1);
    assert_int_equal(watch_find(&w, "CUDA_VISIBLE=1", 14), -1);
    assert_int_equal(watch_find(&w, "", 0), -1);
}

static void items_of_a_list_are_names_with_tags(void **state)
{
    struct watch w;

    (void)state;
    watch_init(&w);
    assert_null(watch_item(&w, "DD_SERVICE:service"));
    assert_null(watch_item(&w, "HIP_VISIBLE_DEVICES"));
    assert_string_equal(w.v[WATCH_FIRST_OWN].name, "DD_SERVICE");
    assert_string_equal(w.v[WATCH_FIRST_OWN].tag, "service");
    assert_string_equal(w.v[WATCH_FIRST_OWN + 1].tag, "hip_visible_devices");
    assert_non_null(watch_item(&w, ""));
    assert_non_null(watch_item(&w, ":x"));
    assert_non_null(watch_item(&w, "X:"));
    assert_non_null(watch_item(&w, "X:a:b"));
    assert_non_null(watch_item(&w, "A2345678901234567890123456789012:x"));
    assert_non_null(watch_item(&w, "DD_SERVICE:other"));
    assert_int_equal(w.n, WATCH_FIRST_OWN + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_are_always_watched),
        cmocka_unit_test(bad_names_and_tags_are_refused),
        cmocka_unit_test(eight_are_enough),
        cmocka_unit_test(an_entry_is_found_by_its_whole_name),
        cmocka_unit_test(items_of_a_list_are_names_with_tags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
