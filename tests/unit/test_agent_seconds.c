/* SPDX-License-Identifier: Apache-2.0 */
/* The seconds that lives of one identity share: who gets which, and what becomes of
 * files, folders and links that somebody else put there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/seconds.h"

#define NOW_S 1700000000
#define HASH UINT64_C(0x0123456789abcdef)
#define NAME "seconds-1-0123456789abcdef"
#define SLOT_BYTES 16

static char place[64];
static char folder[128]; /* in it */
static char file[256];   /* in that */

/* ---- Fixture -------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(place, sizeof(place), "/tmp/retriever-seconds-XXXXXX");
    if (mkdtemp(place) == NULL)
        return -1;
    (void)snprintf(folder, sizeof(folder), "%s/retriever-%u", place,
                   (unsigned)geteuid());
    (void)snprintf(file, sizeof(file), "%s/" NAME, folder);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(place, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int open_it(struct seconds *s, uint64_t life)
{
    const char *const places[] = {place};

    return seconds_open_in(s, places, 1, HASH, life, NOW_S);
}

static void open_ok(struct seconds *s, uint64_t life)
{
    assert_int_equal(open_it(s, life), 0);
    assert_true(s->fd >= 0);
}

/* Nothing is kept, and everything goes on. */
static void assert_none(int want)
{
    struct seconds s;

    assert_int_equal(open_it(&s, 1), want);
    assert_int_equal(s.fd, -1);
    assert_false(seconds_is_shared(&s));
    assert_int_equal(seconds_claim(&s, NOW_S, false), AGG_OURS);
    seconds_close(&s);
}

static void make_folder(void)
{
    assert_int_equal(mkdir(folder, 0700), 0);
}

static int make_file(void)
{
    int fd;

    make_folder();
    fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

/* ---- Who gets which ------------------------------------------------------- */

static void a_second_is_one_lifes(void **state)
{
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    assert_int_equal(seconds_claim(&a, NOW_S, false), AGG_OURS);
    assert_int_equal(seconds_claim(&a, NOW_S, false), AGG_OURS);
    assert_int_equal(seconds_claim(&b, NOW_S, false), AGG_TAKEN);
    assert_int_equal(seconds_claim(&b, NOW_S + 1, true), AGG_OURS);
    assert_int_equal(seconds_claim(&a, NOW_S + 1, false), AGG_TAKEN_STEADILY);
    seconds_close(&a);
    seconds_close(&b);
}

static void it_outlives_that_life(void **state)
{
    struct seconds s;

    (void)state;
    open_ok(&s, 1);
    assert_int_equal(seconds_claim(&s, NOW_S, false), AGG_OURS);
    seconds_close(&s);
    open_ok(&s, 2);
    assert_int_equal(seconds_claim(&s, NOW_S, false), AGG_TAKEN);
    assert_int_equal(seconds_claim(&s, NOW_S + 1, false), AGG_OURS);
    seconds_close(&s);
    open_ok(&s, 1); /* a worker's successor, or the next image */
    assert_int_equal(seconds_claim(&s, NOW_S, false), AGG_OURS);
    seconds_close(&s);
}

static void another_identity_has_seconds_of_its_own(void **state)
{
    const char *const places[] = {place};
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    assert_int_equal(seconds_open_in(&b, places, 1, HASH + 1, 2, NOW_S), 0);
    assert_int_equal(seconds_claim(&a, NOW_S, false), AGG_OURS);
    assert_int_equal(seconds_claim(&b, NOW_S, false), AGG_OURS);
    assert_false(seconds_is_shared(&a));
    seconds_close(&a);
    seconds_close(&b);
}

static void who_has_it_open_is_seen(void **state)
{
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    assert_false(seconds_is_shared(&a));
    open_ok(&b, 2);
    assert_true(seconds_is_shared(&a));
    assert_true(seconds_is_shared(&b));
    seconds_close(&a);
    assert_false(seconds_is_shared(&b));
    seconds_close(&b);
}

/* A clock that was far ahead: its second says nothing about now. */
static void a_second_far_ahead_counts_for_itself_alone(void **state)
{
    const int64_t ahead_s = NOW_S + (int64_t)SECONDS_SLOTS * 10000;
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seconds_claim(&a, ahead_s + i, false), AGG_OURS);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seconds_claim(&b, NOW_S + i, false), AGG_OURS);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seconds_claim(&a, NOW_S + i, false), AGG_TAKEN);
    seconds_close(&a);
    seconds_close(&b);
}

static void more_than_an_hour_is_remembered(void **state)
{
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    for (int i = 0; i < 3900; i++)
        assert_int_equal(seconds_claim(&a, NOW_S + i, false), AGG_OURS);
    for (int i = 0; i < 3900; i++)
        assert_int_equal(seconds_claim(&b, NOW_S + i, false), AGG_TAKEN);
    seconds_close(&a);
    seconds_close(&b);
}

static void times_that_are_none_are_left_alone(void **state)
{
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(seconds_claim(i ? &a : &b, 0, false), AGG_OURS);
        assert_int_equal(seconds_claim(i ? &a : &b, -5, false), AGG_OURS);
        assert_int_equal(seconds_claim(i ? &a : &b, INT64_C(1) << 40, false),
                         AGG_OURS);
    }
    seconds_close(&a);
    seconds_close(&b);
}

#define N_PROCESSES 8
#define N_EACH 200

/* Each wants the first second that it can have; all together have each one once. */
static void many_at_once_share_none(void **state)
{
    static unsigned char n_had[N_PROCESSES * N_EACH + 1];
    uint32_t got_s;
    size_t n = 0;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    for (uint64_t i = 0; i < N_PROCESSES; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            struct seconds s;
            uint32_t t_s = NOW_S;

            if (open_it(&s, i + 1) != 0)
                _exit(1);
            for (int k = 0; k < N_EACH; k++) {
                while (seconds_claim(&s, ++t_s, false) != AGG_OURS)
                    ;
                if (write(ends[1], &t_s, sizeof(t_s)) != sizeof(t_s))
                    _exit(1);
            }
            _exit(0);
        }
    }
    (void)close(ends[1]);
    while (read(ends[0], &got_s, sizeof(got_s)) == sizeof(got_s)) {
        n++;
        /* A place that another was looking at counts as taken: gaps there may be. */
        if (got_s - NOW_S <= N_PROCESSES * N_EACH)
            assert_int_equal(n_had[got_s - NOW_S]++, 0);
    }
    assert_int_equal(n, N_PROCESSES * N_EACH);
    (void)close(ends[0]);
    for (int i = 0; i < N_PROCESSES; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}

static void a_place_that_is_locked_is_not_waited_for(void **state)
{
    struct flock l = {.l_type = F_WRLCK,
                      .l_whence = SEEK_SET,
                      .l_start = NOW_S % SECONDS_SLOTS * SLOT_BYTES,
                      .l_len = SLOT_BYTES};
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    assert_int_equal(fcntl(a.fd, F_OFD_SETLK, &l), 0);
    assert_int_equal(seconds_claim(&b, NOW_S, false), AGG_TAKEN);
    assert_int_equal(seconds_claim(&b, NOW_S + 1, false), AGG_OURS);
    seconds_close(&a);
    assert_int_equal(seconds_claim(&b, NOW_S, false), AGG_OURS);
    seconds_close(&b);
}

/* ---- Where ---------------------------------------------------------------- */

static void the_first_place_that_can_be_used_is(void **state)
{
    char bad[128];
    const char *const places[] = {"/nonexistent", NULL, "relative", bad, place};
    struct seconds s;

    (void)state;
    (void)snprintf(bad, sizeof(bad), "%s/file", place);
    assert_true(close(open(bad, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) == 0);
    assert_int_equal(seconds_open_in(&s, places, 5, HASH, 1, NOW_S), 0);
    assert_int_equal(access(file, F_OK), 0);
    seconds_close(&s);
    assert_int_equal(seconds_open_in(&s, places, 4, HASH, 1, NOW_S), -ENOTDIR);
    assert_int_equal(s.fd, -1);
    assert_int_equal(seconds_claim(&s, NOW_S, false), AGG_OURS);
    assert_int_equal(seconds_open_in(&s, places, 2, HASH, 1, NOW_S), -ENOENT);
    assert_int_equal(seconds_open_in(&s, places, 0, HASH, 1, NOW_S), -ENOENT);
}

static void only_this_user_can_look(void **state)
{
    struct seconds s;
    struct stat st;

    (void)state;
    open_ok(&s, 1);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(fstat(s.fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    seconds_close(&s);
}

static void a_place_like_tmp_will_do(void **state)
{
    struct seconds s;

    (void)state;
    assert_int_equal(chmod(place, 01777), 0);
    open_ok(&s, 1);
    seconds_close(&s);
}

static void a_place_where_others_may_rename_will_not(void **state)
{
    (void)state;
    assert_int_equal(chmod(place, 0777), 0);
    assert_none(-EPERM);
    assert_int_equal(chmod(place, 0770), 0);
    assert_none(-EPERM);
}

static void a_folder_that_others_may_enter_will_not(void **state)
{
    (void)state;
    make_folder();
    assert_int_equal(chmod(folder, 0711), 0);
    assert_none(-EPERM);
}

static void what_belongs_to_others_is_left_alone(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_true(close(make_file()) == 0);
    assert_int_equal(chown(file, 1234, 1234), 0);
    assert_none(-EPERM);
    assert_int_equal(chown(file, 0, 0), 0);
    assert_int_equal(chown(folder, 1234, 1234), 0);
    assert_none(-EPERM);
    assert_int_equal(chown(folder, 0, 0), 0);
    assert_int_equal(chown(place, 1234, 1234), 0);
    assert_none(-EPERM);
}

static void a_file_that_others_may_write_is_left_alone(void **state)
{
    (void)state;
    assert_true(close(make_file()) == 0);
    assert_int_equal(chmod(file, 0622), 0);
    assert_none(-EPERM);
}

static void links_are_not_followed(void **state)
{
    char target[128];
    struct stat st;

    (void)state;
    (void)snprintf(target, sizeof(target), "%s/target", place);
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(symlink(target, folder), 0);
    assert_none(-ENOTDIR);
    assert_int_equal(unlink(folder), 0);
    make_folder();
    (void)snprintf(target, sizeof(target), "%s/other", place);
    assert_int_equal(symlink(target, file), 0);
    assert_none(-ELOOP);
    assert_int_equal(stat(target, &st), -1); /* not made either */
}

static void what_is_no_file_is_not_waited_for(void **state)
{
    (void)state;
    make_folder();
    assert_int_equal(mkfifo(file, 0600), 0);
    assert_none(-EPERM);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkdir(file, 0700), 0);
    assert_none(-EISDIR);
}

/* ---- What it says --------------------------------------------------------- */

/* All claims come to an end, and what two lives get is not the same. */
static void assert_sane(void)
{
    struct seconds a, b;
    unsigned n_taken = 0;

    open_ok(&a, 1);
    open_ok(&b, 2);
    for (int i = -2000; i < 400; i++) {
        enum agg_claim x = seconds_claim(&a, NOW_S + i, i % 2 != 0);
        enum agg_claim y = seconds_claim(&b, NOW_S + i, false);

        assert_true(x != AGG_OURS || y != AGG_OURS);
        n_taken += x != AGG_OURS;
    }
    assert_true(n_taken <= 1); /* one by chance */
    seconds_close(&a);
    seconds_close(&b);
}

static void a_torn_or_foreign_content_takes_no_seconds(void **state)
{
    static const size_t lengths[] = {1, 5, 16, 1000, 65535, 65536, 100000};
    static unsigned char bytes[100000];

    (void)state;
    srandom(20);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        int fd = make_file();

        for (size_t k = 0; k < lengths[i]; k++)
            bytes[k] = (unsigned char)random();
        assert_int_equal(write(fd, bytes, lengths[i]), lengths[i]);
        (void)close(fd);
        assert_sane();
        assert_int_equal(unlink(file), 0);
        assert_int_equal(rmdir(folder), 0);
    }
}

static void a_huge_file_is_no_more_than_one(void **state)
{
    int fd = make_file();

    (void)state;
    if (ftruncate(fd, (off_t)1 << 40) != 0)
        (void)ftruncate(fd, (off_t)1 << 32);
    (void)close(fd);
    assert_sane();
}

static void a_file_truncated_meanwhile_costs_its_memory(void **state)
{
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    assert_int_equal(seconds_claim(&a, NOW_S, false), AGG_OURS);
    assert_int_equal(truncate(file, 0), 0);
    assert_int_equal(seconds_claim(&b, NOW_S, false), AGG_OURS);
    assert_int_equal(seconds_claim(&a, NOW_S + 1, false), AGG_OURS);
    assert_int_equal(seconds_claim(&b, NOW_S + 1, false), AGG_TAKEN);
    seconds_close(&a);
    seconds_close(&b);
}

static void where_nothing_can_be_written_nothing_is_kept(void **state)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
    struct rlimit was;
    struct seconds a, b;

    (void)state;
    open_ok(&a, 1);
    open_ok(&b, 2);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    none.rlim_max = was.rlim_max;
    assert_int_equal(sigaction(SIGXFSZ, &ignore, NULL), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(seconds_claim(&a, NOW_S, false), AGG_OURS);
    assert_int_equal(seconds_claim(&b, NOW_S, false), AGG_OURS);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    seconds_close(&a);
    seconds_close(&b);
}

/* ---- Old ones ------------------------------------------------------------- */

static void make_old(uint64_t hash, int64_t age_s, bool keep_open,
                     struct seconds *s)
{
    const struct timespec then[2] = {{.tv_sec = NOW_S - age_s},
                                     {.tv_sec = NOW_S - age_s}};
    const char *const places[] = {place};

    assert_int_equal(seconds_open_in(s, places, 1, hash, 1, NOW_S), 0);
    assert_int_equal(seconds_claim(s, NOW_S, false), AGG_OURS);
    assert_int_equal(futimens(s->fd, then), 0);
    if (!keep_open)
        seconds_close(s);
}

static unsigned n_files(void)
{
    DIR *d = opendir(folder);
    const struct dirent *e;
    unsigned n = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void old_files_that_nobody_has_are_removed(void **state)
{
    struct seconds old, used, young, s;
    char other[256];

    (void)state;
    make_old(1, 8000, false, &old);
    make_old(2, 8000, true, &used);
    make_old(3, 7000, false, &young);
    (void)snprintf(other, sizeof(other), "%s/foreign", folder);
    assert_int_equal(close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)),
                     0);
    open_ok(&s, 1);
    assert_int_equal(n_files(), 4); /* two, the foreign one and ours */
    (void)snprintf(other, sizeof(other), "%s/seconds-1-0000000000000001",
                   folder);
    assert_int_equal(access(other, F_OK), -1);
    seconds_close(&s);
    seconds_close(&used);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_second_is_one_lifes),
        TEST(it_outlives_that_life),
        TEST(another_identity_has_seconds_of_its_own),
        TEST(who_has_it_open_is_seen),
        TEST(a_second_far_ahead_counts_for_itself_alone),
        TEST(more_than_an_hour_is_remembered),
        TEST(times_that_are_none_are_left_alone),
        TEST(many_at_once_share_none),
        TEST(a_place_that_is_locked_is_not_waited_for),
        TEST(the_first_place_that_can_be_used_is),
        TEST(only_this_user_can_look),
        TEST(a_place_like_tmp_will_do),
        TEST(a_place_where_others_may_rename_will_not),
        TEST(a_folder_that_others_may_enter_will_not),
        TEST(what_belongs_to_others_is_left_alone),
        TEST(a_file_that_others_may_write_is_left_alone),
        TEST(links_are_not_followed),
        TEST(what_is_no_file_is_not_waited_for),
        TEST(a_torn_or_foreign_content_takes_no_seconds),
        TEST(a_huge_file_is_no_more_than_one),
        TEST(a_file_truncated_meanwhile_costs_its_memory),
        TEST(where_nothing_can_be_written_nothing_is_kept),
        TEST(old_files_that_nobody_has_are_removed),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
