/* SPDX-License-Identifier: Apache-2.0 */
/* The file of used seconds: what it keeps, and what it makes of other bytes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/stamps.h"
#include "aggregator/agg.h"
#include "aggregator/used_walk.h"

/* ---- Parts of n_points points each --------------------------------------- */

static uint32_t n_points;
static uint32_t first_second_s;

int used_walk_part(struct used_walk *w, const struct agg *a, uint64_t seq)
{
    (void)a;
    (void)seq;
    w->at = 0;
    return 0;
}

bool used_walk_next(struct used_walk *w, struct used_point *out)
{
    if (w->at == n_points)
        return false;
    *out = (struct used_point){.id = {w->at, 7},
                               .second_s = first_second_s + w->at};
    w->at++;
    return true;
}

void used_walk_region(struct used_walk *w, const struct agg *a)
{
    (void)a;
    w->at = 0;
}

size_t used_region_spans(const struct agg *a, struct used_span *out)
{
    (void)a;
    out[0] = (struct used_span){.stamp_s = 776, .max_shift = 1};
    out[1] = (struct used_span){.stamp_s = 770};
    return 2;
}

/* ---- Fixture ------------------------------------------------------------ */

static char dir[64];
static int run_dir;

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/retriever-stamps-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    run_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    n_points = 0;
    first_second_s = 5000;
    return run_dir < 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlinkat(run_dir, STAMPS_FILE, 0);
    close(run_dir);
    return rmdir(dir);
}

static void put_file(const void *bytes, size_t n)
{
    int fd = openat(run_dir, STAMPS_FILE,
                    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static off_t file_bytes(void)
{
    struct stat st;

    assert_int_equal(fstatat(run_dir, STAMPS_FILE, &st, 0), 0);
    return st.st_size;
}

static void cut_file(int n)
{
    int fd = openat(run_dir, STAMPS_FILE, O_WRONLY | O_CLOEXEC);

    assert_int_equal(ftruncate(fd, file_bytes() - n), 0);
    close(fd);
}

static void add(struct stamps_file *f, uint64_t seq, int64_t stamp_s,
                uint32_t max_shift)
{
    assert_int_equal(stamps_file_add(f, NULL, seq, stamp_s, max_shift), 0);
}

/* ---- Tests -------------------------------------------------------------- */

static void nothing_there_is_nothing_used(void **state)
{
    struct used_seconds u;
    struct stamps s;

    (void)state;
    stamps_load(&s, run_dir, 1000);
    stamps_used(&s, &u);
    assert_int_equal(s.last_s, 0);
    assert_false(s.foreign);
    assert_false(used_has_stamp(&u, 1000));
    assert_false(used_has_series(&u, (struct used_id){0}));
    stamps_fini(&s);
}

static void what_parts_used_is_known_to_the_next_life(void **state)
{
    struct stamps_file f = {.run_dir = run_dir};
    struct used_seconds u;
    struct stamps s;

    (void)state;
    n_points = 1000;
    add(&f, 1, 1000, 0);
    add(&f, 2, 1010, 2);
    add(&f, 3, 1010, 2); /* a further piece of the chain */
    stamps_file_close(&f);
    stamps_load(&s, run_dir, 5000);
    stamps_used(&s, &u);
    assert_int_equal(s.last_s, 1012);
    assert_int_equal(s.n_seconds, 4);
    assert_int_equal(s.n_points, 1000);
    assert_true(used_has_stamp(&u, 1000));
    assert_false(used_has_stamp(&u, 1001));
    assert_true(used_has_stamp(&u, 1011));
    assert_true(used_has_point(&u, (struct used_id){999, 7}, 5999));
    assert_false(used_has_point(&u, (struct used_id){999, 7}, 5998));
    assert_false(used_has_point(&u, (struct used_id){7, 999}, 5999));
    assert_true(used_has_series(&u, (struct used_id){0, 7}));
    assert_false(used_has_series(&u, (struct used_id){1000, 7}));
    stamps_fini(&s);
}

static void a_successor_goes_on_behind_a_torn_record(void **state)
{
    struct stamps_file f = {.run_dir = run_dir};
    struct stamps s;

    (void)state;
    add(&f, 1, 1000, 0);
    for (int cut = 1; cut < 32; cut++) {
        stamps_file_close(&f);
        add(&f, 2, 2000 + cut, 0);
        stamps_file_close(&f);
        cut_file(cut);
        add(&f, 3, 3000 + cut, 0);
    }
    stamps_file_close(&f);
    stamps_load(&s, run_dir, 0);
    assert_int_equal(s.n_seconds, 1 + 31);
    assert_int_equal(s.last_s, 3031);
    stamps_fini(&s);
}

static void a_damaged_record_costs_itself_only(void **state)
{
    struct stamps_file f = {.run_dir = run_dir};
    struct stamps s;
    int fd;

    (void)state;
    for (int i = 0; i < 10; i++)
        add(&f, 1, 1000 + i, 0);
    stamps_file_close(&f);
    fd = openat(run_dir, STAMPS_FILE, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 16 + 3 * 32 + 5), 1);
    close(fd);
    stamps_load(&s, run_dir, 0);
    assert_int_equal(s.n_seconds, 9);
    stamps_fini(&s);
}

static void the_oldest_format_is_read_and_written_anew(void **state)
{
    struct {
        char magic[8];
        int64_t stamp_s;
    } old = {.stamp_s = time(NULL) - 20};
    struct stamps_file f = {.run_dir = run_dir};
    struct stamps s;

    (void)state;
    memcpy(old.magic, "rtvstmp1", 8);
    put_file(&old, sizeof(old));
    stamps_load(&s, run_dir, old.stamp_s + 10);
    assert_int_equal(s.last_s, old.stamp_s);
    stamps_fini(&s);
    add(&f, 1, old.stamp_s + 10, 0);
    stamps_file_close(&f);
    stamps_load(&s, run_dir, old.stamp_s + 20);
    assert_int_equal(s.n_seconds, 2);
    assert_int_equal(s.last_s, old.stamp_s + 10);
    stamps_fini(&s);
}

static void a_newer_format_is_left_alone(void **state)
{
    static const char newer[] = "rtvstmp3 whatever comes behind it";
    char bytes[sizeof(newer)] = {0};
    struct stamps_file f = {.run_dir = run_dir};
    struct stamps s;
    int fd;

    (void)state;
    put_file(newer, sizeof(newer));
    stamps_load(&s, run_dir, 0);
    assert_true(s.foreign);
    assert_int_equal(s.n_seconds, 0);
    stamps_fini(&s);
    assert_int_equal(stamps_file_add(&f, NULL, 1, 1000, 0), -EPROTONOSUPPORT);
    fd = openat(run_dir, STAMPS_FILE, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, bytes, sizeof(bytes)), sizeof(newer));
    assert_memory_equal(bytes, newer, sizeof(newer));
    close(fd);
}

static void a_file_that_is_not_ours_begins_anew(void **state)
{
    static const char *const others[] = {"", "rtvstmp", "sixteen bytes ok",
                                         "and more than that, as it may be"};

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct stamps_file f = {.run_dir = run_dir};
        struct stamps s;

        put_file(others[i], strlen(others[i]));
        stamps_load(&s, run_dir, 0);
        assert_int_equal(s.n_seconds + s.n_points, 0);
        stamps_fini(&s);
        add(&f, 1, 1000, 0);
        stamps_file_close(&f);
        stamps_load(&s, run_dir, 0);
        assert_int_equal(s.last_s, 1000);
        stamps_fini(&s);
    }
}

/* The names may have been taken by somebody else. */
static void what_is_no_file_is_neither_written_nor_waited_for(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct stamps_file f = {.run_dir = run_dir};
        const char *name = kind < 2 ? STAMPS_FILE : STAMPS_FILE ".new";
        struct stat st;
        struct stamps s;
        int fd = openat(run_dir, "victim", O_RDWR | O_CREAT | O_TRUNC, 0600);

        assert_int_equal(write(fd, "precious", 8), 8);
        (void)unlinkat(run_dir, STAMPS_FILE, 0);
        if (kind % 2 == 0)
            assert_int_equal(symlinkat("victim", run_dir, name), 0);
        else
            assert_int_equal(mkfifoat(run_dir, name, 0600), 0);
        alarm(10); /* not for ever */
        stamps_load(&s, run_dir, 0);
        assert_int_equal(s.n_seconds, 0);
        stamps_fini(&s);
        add(&f, 1, 1000, 0);
        stamps_file_close(&f);
        alarm(0);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, 8);
        close(fd);
        assert_int_equal(fstatat(run_dir, STAMPS_FILE, &st,
                                 AT_SYMLINK_NOFOLLOW),
                         0);
        assert_true(S_ISREG(st.st_mode));
        stamps_load(&s, run_dir, 0);
        assert_int_equal(s.last_s, 1000);
        stamps_fini(&s);
        assert_int_equal(unlinkat(run_dir, "victim", 0), 0);
    }
}

static void the_file_stays_bounded_and_keeps_the_newest(void **state)
{
    struct stamps_file f = {.run_dir = run_dir};
    struct used_seconds u;
    struct stamps s;

    (void)state;
    n_points = 5000;
    for (uint32_t i = 0; i < 60; i++) {
        first_second_s = 2000000000 + i * n_points;
        add(&f, i + 1, 2000000000 + i, 0);
        assert_true(file_bytes() <
                    (off_t)(3 * (STAMPS_MAX_POINTS + STAMPS_MAX_SECONDS) * 32));
    }
    stamps_file_close(&f);
    stamps_load(&s, run_dir, 0);
    stamps_used(&s, &u);
    assert_int_equal(s.n_points, STAMPS_MAX_POINTS);
    assert_true(
        used_has_point(&u, (struct used_id){4999, 7}, first_second_s + 4999));
    assert_true(used_has_point(&u, (struct used_id){0, 7}, first_second_s));
    stamps_fini(&s);
}

static void what_is_too_old_is_left_out(void **state)
{
    struct stamps_file f = {.run_dir = run_dir};
    struct stamps s;

    (void)state;
    n_points = 2;
    add(&f, 1, 5000, 0);
    stamps_file_close(&f);
    stamps_load(&s, run_dir, 5001 + STAMPS_LOOK_BACK_S);
    assert_int_equal(s.n_seconds, 0);
    assert_int_equal(s.n_points, 1);
    stamps_fini(&s);
}

static void a_memfd_hands_all_of_it_over(void **state)
{
    int fd = memfd_create("stamps", MFD_CLOEXEC);
    const struct stamps none = {0};
    struct stamps first, from, to;

    (void)state;
    assert_true(fd >= 0);
    n_points = 3000;
    assert_int_equal(stamps_join(&first, &none, NULL), 0);
    n_points = 3010; /* most of it is known already */
    assert_int_equal(stamps_join(&from, &first, NULL), 0);
    assert_int_equal(stamps_write(&from, fd), 0);
    assert_int_equal(stamps_read(&to, fd, 0), 0);
    assert_int_equal(to.n_seconds, 3);
    assert_int_equal(to.last_s, 777);
    assert_int_equal(to.n_points, 3010);
    assert_memory_equal(to.points, from.points,
                        from.n_points * sizeof(*from.points));
    stamps_fini(&first);
    stamps_fini(&from);
    stamps_fini(&to);
    close(fd);
}

int main(void)
{
#define WITH_DIR(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_DIR(nothing_there_is_nothing_used),
        WITH_DIR(what_parts_used_is_known_to_the_next_life),
        WITH_DIR(a_successor_goes_on_behind_a_torn_record),
        WITH_DIR(a_damaged_record_costs_itself_only),
        WITH_DIR(the_oldest_format_is_read_and_written_anew),
        WITH_DIR(a_newer_format_is_left_alone),
        WITH_DIR(a_file_that_is_not_ours_begins_anew),
        WITH_DIR(what_is_no_file_is_neither_written_nor_waited_for),
        WITH_DIR(the_file_stays_bounded_and_keeps_the_newest),
        WITH_DIR(what_is_too_old_is_left_out),
        WITH_DIR(a_memfd_hands_all_of_it_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
