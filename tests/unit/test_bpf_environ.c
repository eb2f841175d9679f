/* SPDX-License-Identifier: Apache-2.0 */
/* Environments of this process and of others, and the texts of /proc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/environ.h"
#include "bpf/procfs.h"

static struct environ_values values;

static const struct watch *watched(void)
{
    static struct watch w;

    watch_init(&w);
    assert_int_equal(watch_add(&w, "RETRIEVER_A", "a"), 0);
    return &w;
}

static void expect(uint32_t i, const char *value)
{
    assert_int_equal(values.v[i].is_set, value != NULL);
    if (value == NULL)
        return;
    assert_int_equal(values.v[i].n, strlen(value));
    assert_true(values.v[i].n == 0 ||
                memcmp(values.v[i].text, value, values.v[i].n) == 0);
}

/* As getenv() does: the first wins, names are whole; in pieces of any length. */
static void entries_are_found_in_pieces(void **state)
{
    static const char text[] = "X=1\0RETRIEVER_A=first\0RETRIEVER_A=second\0"
                               "RETRIEVER_AB=3\0CUDA_VISIBLE_DEVICES=\0=\0\0"
                               "CUDA_DEVICE_ORDER";
    struct environ_scan s;

    (void)state;
    for (size_t piece = 1; piece < sizeof(text); piece++) {
        environ_scan_init(&s, watched(), &values);
        for (size_t at = 0; at < sizeof(text); at += piece)
            environ_scan_bytes(&s, text + at,
                               sizeof(text) - at < piece ? sizeof(text) - at
                                                         : piece);
        expect(WATCH_FIRST_OWN, "first");
        expect(WATCH_CUDA, "");
        expect(WATCH_CUDA_ORDER, NULL);
    }
}

static void long_values_are_cut(void **state)
{
    struct environ_scan s;
    char big[ENVIRON_MAX_VALUE + 100];

    (void)state;
    memset(big, 'x', sizeof(big));
    environ_scan_init(&s, watched(), &values);
    environ_scan_bytes(&s, "RETRIEVER_A=", 12);
    environ_scan_bytes(&s, big, sizeof(big));
    environ_scan_bytes(&s, "", 1);
    environ_scan_bytes(&s, "CUDA_VISIBLE_DEVICES=1", 23);
    assert_true(values.v[WATCH_FIRST_OWN].is_cut);
    assert_int_equal(values.v[WATCH_FIRST_OWN].n, ENVIRON_MAX_VALUE);
    expect(WATCH_CUDA, "1");
}

static void our_own_changes_are_seen(void **state)
{
    struct images *images;
    int fd = procfs_open((uint32_t)getpid());
    char big[3001];

    (void)state;
    memset(big, 'y', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    assert_true(fd >= 0);
    assert_int_equal(images_create(&images), 0);
    assert_int_equal(unsetenv("RETRIEVER_A"), 0);
    assert_int_equal(environ_read_live(images, fd, watched(), &values), 0);
    expect(WATCH_FIRST_OWN, NULL);
    assert_int_equal(setenv("RETRIEVER_A", big, 1), 0);
    assert_int_equal(environ_read_live(images, fd, watched(), &values), 0);
    expect(WATCH_FIRST_OWN, big);
    assert_int_equal(environ_read_start(fd, watched(), &values), 0);
    expect(WATCH_FIRST_OWN, NULL);
    assert_int_equal(unsetenv("RETRIEVER_A"), 0);
    images_close(images);
    (void)close(fd);
}

extern char **environ;

/* A process may point its environment anywhere. */
static void a_damaged_environment_is_an_error(void **state)
{
    char *wild[] = {(char *)(uintptr_t)0x1000, (char *)(uintptr_t)1,
                    (char *)(uintptr_t)~UINT64_C(0) - 3,
                    (char *)(uintptr_t) "RETRIEVER_A=1", NULL};
    char **places[] = {(char **)(uintptr_t)3, (char **)(uintptr_t)0x1000,
                       (char **)(uintptr_t)(~UINT64_C(0) & ~UINT64_C(7))};
    char **ours = environ;
    struct images *images;
    int fd = procfs_open((uint32_t)getpid());

    (void)state;
    assert_int_equal(images_create(&images), 0);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int rc;

        environ = places[i];
        rc = environ_read_live(images, fd, watched(), &values);
        environ = ours;
        assert_true(rc < 0);
    }
    environ = wild;
    assert_int_equal(environ_read_live(images, fd, watched(), &values), 0);
    environ = ours;
    expect(WATCH_FIRST_OWN, "1");
    environ = NULL;
    assert_int_equal(environ_read_live(images, fd, watched(), &values), 0);
    environ = ours;
    expect(WATCH_FIRST_OWN, NULL);
    images_close(images);
    (void)close(fd);
}

static void lines_of_maps_are_read(void **state)
{
    static const struct {
        const char *line;
        bool ok;
    } rows[] = {
        {"7f00a000-7f00b000 r-xp 0001a000 fd:01 4711    /lib/libc.so.6\n", 1},
        {"7f00a000-7f00b000 r-xp 00000000 00:00 0 \n", 0},
        {"7f00a000-7f00b000 rw-p 00000000 00:00 0    [heap]\n", 0},
        {"7f00a000-7f00b000 r--p 0 8:1 1 /a b (deleted)\n", 1},
        {"7f00a000", 0},
        {"", 0},
        {"-", 0},
        {"1-2 ", 0},
        {"1-2 r", 0},
        {"1-2 r-xp", 0},
        {"1-2 r-xp 0", 0},
        {"1-2 r-xp 0 ", 0},
        {"1-2 r-xp 0 8:1", 0},
        {"1-2 r-xp 0 8:1 5", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *line = test_malloc(strlen(rows[i].line) + 1);
        struct procfs_map m;

        memcpy(line, rows[i].line, strlen(rows[i].line) + 1);
        assert_int_equal(procfs_parse_map(line, &m), rows[i].ok);
        if (i == 0) {
            assert_true(m.start == 0x7f00a000 && m.end == 0x7f00b000);
            assert_true(m.offset == 0x1a000 && m.ino == 4711 && m.may_run);
            assert_string_equal(m.path, "/lib/libc.so.6");
        }
        test_free(line);
    }
}

static void a_start_is_read_behind_any_name(void **state)
{
    uint64_t ticks = 0;

    (void)state;
    assert_true(procfs_parse_start("5 (a) b) (c) S 1 5 5 0 -1 4194304 1 2 3 4 "
                                   "5 6 7 8 20 0 1 0 987 1000 2 3",
                                   &ticks));
    assert_int_equal(ticks, 987);
    assert_false(procfs_parse_start("5 (a) S 1 2 3", &ticks));
    assert_false(procfs_parse_start("", &ticks));
    assert_false(procfs_parse_start(")", &ticks));
}

static void names_of_libraries(void **state)
{
    (void)state;
    assert_true(procfs_is_libc("/usr/lib/libc.so.6"));
    assert_true(procfs_is_libc("/usr/lib/libc-2.31.so"));
    assert_true(procfs_is_libc("/lib/ld-musl-x86_64.so.1"));
    assert_false(procfs_is_libc("/usr/lib/libcap.so.2"));
    assert_false(procfs_is_libc("/libc.so.6/libm.so.6"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_found_in_pieces),
        cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(our_own_changes_are_seen),
        cmocka_unit_test(a_damaged_environment_is_an_error),
        cmocka_unit_test(lines_of_maps_are_read),
        cmocka_unit_test(a_start_is_read_behind_any_name),
        cmocka_unit_test(names_of_libraries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
