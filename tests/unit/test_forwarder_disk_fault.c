/* SPDX-License-Identifier: Apache-2.0 */
/* The payload store with a disk that is damaged, full or failing. */
#include "tests/support/disk_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Faults: the system call of this name fails so often ---------------- */

static int fail_fdatasync;
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    if (fail_fdatasync == 0)
        return __real_fdatasync(fd);
    fail_fdatasync--;
    errno = EIO;
    return -1;
}

static int fail_pread;
ssize_t __real_pread(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *p, size_t n, off_t at)
{
    if (fail_pread == 0)
        return __real_pread(fd, p, n, at);
    fail_pread--;
    errno = EIO;
    return -1;
}

/* ---- Damage ------------------------------------------------------------- */

static void a_torn_end_costs_what_was_never_frozen(void **state)
{
    struct disk_rig f;
    char name[400];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'b', 2);
    assert_int_equal(rig_n_files(&f, name), 1);
    rig_kill_both(&f);
    assert_int_equal(truncate(name, 40 + 2 * 1080 - 8), 0);
    rig_look(&f);
    assert_int_equal(rig_stats(&f).disk.n_damaged_bytes, 0);
    rig_deliver(&f, 1000, 'a', 1);
    assert_null(store_take(f.s));
    assert_int_equal(rig_n_files(&f, NULL), 0);
    rig_end(&f);
}

static void damage_costs_what_is_behind_it(void **state)
{
    struct disk_rig f;
    char name[400];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'b', 2);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'c', 4);
    assert_int_equal(rig_n_files(&f, name), 1);
    rig_kill_both(&f);
    rig_flip(name, 40 + 1080 + 500);
    rig_look(&f);
    assert_int_equal(rig_stats(&f).disk.n_damaged_bytes, 2 * 1080);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, 1);
    assert_int_equal(rig_n_files(&f, NULL), 1);
    rig_deliver(&f, 1000, 'a', 1);
    assert_int_equal(rig_n_files(&f, name), 1);
    assert_non_null(strstr(name, ".damaged"));
    rig_next_life(&f);
    assert_null(store_take(f.s));
    assert_int_equal(rig_n_files(&f, NULL), 1);
    rig_end(&f);
}

/* Numbers begin again when the folder was emptied. */
static void a_damaged_file_does_not_replace_an_older_one(void **state)
{
    struct disk_rig f;
    char name[500];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    for (unsigned k = 0; k < 3; k++) {
        rig_put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
        rig_kill_both(&f);
        snprintf(name, sizeof(name), "%s/payloads/segment-%016x", f.path, 1);
        rig_flip(name, 40 + 500);
        rig_look(&f);
        assert_int_equal(rig_n_files(&f, NULL), k + 1);
        rig_next_life(&f);
    }
    assert_int_equal(rig_n_files(&f, NULL), 3);
    rig_end(&f);
}

static void bytes_that_changed_after_they_were_found_are_not_sent(void **state)
{
    struct disk_rig f;
    char name[400];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 1000, 'b', 2);
    assert_int_equal(rig_n_files(&f, name), 1);
    rig_next_life(&f);
    rig_flip(name, 40 + 1080 + 500);
    rig_deliver(&f, 1000, 'a', 1);
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_DISK], 2);
    rig_assert_balanced(&f);
    rig_end(&f);
}

static size_t read_file(const char *name, char bytes[4096])
{
    int fd = open(name, O_RDONLY);
    ssize_t n = read(fd, bytes, 4096);

    assert_true(n >= 0);
    close(fd);
    return (size_t)n;
}

static void files_that_are_not_ours_stay_byte_for_byte(void **state)
{
    static const struct {
        const char *name;
        const char *bytes;
        size_t n;
    } others[] = {
        {"segment-0000000000000007", "rtvseg\r\n\x02\0\0\0from tomorrow", 25},
        {"segment-0000000000000008", "something else altogether......", 31},
        {"segment-000000000000000A", "rtvseg\r\n", 8},
        {"segment-1", "", 0},
        {"notes.txt", "hello", 5},
    };
    struct disk_rig f;
    char name[128];
    char got[4096];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    for (size_t i = 0; i < 5; i++) {
        int fd;

        snprintf(name, sizeof(name), "%s/payloads/%s", f.path, others[i].name);
        fd = open(name, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(write(fd, others[i].bytes, others[i].n), others[i].n);
        close(fd);
    }
    for (int life = 0; life < 3; life++) {
        rig_next_life(&f);
        rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
        rig_deliver(&f, 100, 'a', 1);
        assert_null(store_take(f.s));
    }
    for (size_t i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "%s/payloads/%s", f.path, others[i].name);
        assert_int_equal(read_file(name, got), others[i].n);
        assert_memory_equal(got, others[i].bytes, others[i].n);
    }
    rig_end(&f);
}

/* ---- Faults of the disk ------------------------------------------------- */

/* A filesystem of our own; false: not allowed here. */
static bool mount_tmpfs(char path[64], const char *options)
{
    snprintf(path, 64, "/tmp/retriever-disk-XXXXXX");
    assert_non_null(mkdtemp(path));
    if (mount("retriever-test", path, "tmpfs", MS_NOSUID | MS_NODEV, options) ==
        0)
        return true;
    (void)rmdir(path);
    return false;
}

static void unmount(struct disk_rig *f)
{
    rig_end(f);
    assert_int_equal(umount2(f->path, MNT_DETACH), 0);
    (void)rmdir(f->path);
}

static void a_full_disk_is_said_and_used_again_when_it_is_not(void **state)
{
    struct disk_rig f;
    char path[64];
    char ballast[128];
    int fd;

    (void)state;
    if (!mount_tmpfs(path, "size=512k"))
        skip();
    rig_begin_at(&f, path, 64u << 20);
    snprintf(ballast, sizeof(ballast), "%s/ballast", path);
    fd = open(ballast, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(fallocate(fd, 0, 0, 400 * KIB), 0);
    rig_put(&f, PAYLOAD_SERIES, 10 * KIB, 'a', 1);
    assert_true(store_is_on_disk(f.s));
    rig_put(&f, PAYLOAD_SERIES, 300 * KIB, 'b', 2);
    assert_false(store_is_on_disk(f.s));
    assert_true(rig_stats(&f).disk.failing);
    assert_int_equal(ftruncate(fd, 0), 0);
    rig_put(&f, PAYLOAD_SERIES, 1 * KIB, 'c', 4); /* not asked again yet */
    assert_true(rig_stats(&f).disk.failing);
    rig_pass_seconds(&f, 10);
    rig_put(&f, PAYLOAD_SERIES, 1 * KIB, 'd', 8);
    assert_false(rig_stats(&f).disk.failing);
    assert_true(store_is_on_disk(f.s)); /* what had to wait, too */
    rig_next_life(&f);
    assert_int_equal(rig_stats(&f).restored_load.n_samples, 15);
    rig_deliver(&f, 1 * KIB, 'd', 8);
    rig_deliver(&f, 1 * KIB, 'c', 4);
    rig_deliver(&f, 300 * KIB, 'b', 2);
    rig_deliver(&f, 10 * KIB, 'a', 1);
    rig_assert_balanced(&f);
    close(fd);
    unmount(&f);
}

static void a_stop_on_a_full_disk_names_what_it_lost(void **state)
{
    struct disk_rig f;
    char path[64];

    (void)state;
    if (!mount_tmpfs(path, "size=512k"))
        skip();
    rig_begin_at(&f, path, 64u << 20);
    rig_put(&f, PAYLOAD_SERIES, 300 * KIB, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 300 * KIB, 'b', 2);
    assert_int_equal(store_sync(f.s, 0), 0);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 1);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 2);
    rig_assert_balanced(&f);
    rig_next_life(&f);
    rig_deliver(&f, 300 * KIB, 'a', 1);
    assert_null(store_take(f.s));
    unmount(&f);
}

static void a_read_only_disk_delivers_and_ends_nothing(void **state)
{
    struct disk_rig f;
    char path[64];
    int rc;

    (void)state;
    if (!mount_tmpfs(path, "size=4m"))
        skip();
    rig_begin_at(&f, path, 64u << 20);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    rig_kill_both(&f); /* no file is open for writing */
    rc = mount("none", path, NULL, MS_REMOUNT | MS_RDONLY, "size=4m");
    assert_int_equal(rc, 0);
    rig_look(&f);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    assert_true(rig_stats(&f).disk.failing);
    rig_deliver(&f, 100, 'b', 2);
    rig_deliver(&f, 100, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 4);
    rig_assert_balanced(&f);
    assert_int_equal(mount("none", path, NULL, MS_REMOUNT, "size=4m"), 0);
    rig_next_life(&f);
    /* Its mark was not taken: it is there once more. */
    rig_deliver(&f, 100, 'a', 1);
    unmount(&f);
}

static void a_folder_that_was_removed_is_made_again(void **state)
{
    struct disk_rig f;
    char path[128];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    snprintf(path, sizeof(path), "%s/payloads", f.path);
    rig_remove_all(path);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    assert_int_equal(rig_n_files(&f, NULL), 1);
    rig_put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    rig_deliver(&f, 100, 'c', 4); /* a state that is written */
    /* The first one's file is gone, but its body is in memory. */
    rig_save(&f);
    assert_int_equal(store_counts(f.s)->saved, 3);
    assert_int_equal(rig_dropped(store_counts(f.s)), 0);
    rig_next_life(&f);
    rig_deliver(&f, 100, 'a', 1); /* written last */
    rig_deliver(&f, 100, 'b', 2);
    assert_null(store_take(f.s));
    rig_end(&f);
}

static void without_a_descriptor_payloads_wait_in_memory(void **state)
{
    struct disk_rig f;
    struct rlimit was, none;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 200 * KIB, 'a',
            1); /* the next needs a new file */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rig_put(&f, PAYLOAD_SERIES, 200 * KIB, 'b', 2);
    assert_true(rig_stats(&f).disk.failing);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    rig_pass_seconds(&f, 10);
    rig_put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    assert_true(store_is_on_disk(f.s));
    assert_int_equal(rig_dropped(store_counts(f.s)), 0);
    rig_end(&f);
}

static void what_did_not_sync_does_not_count_as_saved(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 0), -EIO);
    assert_true(rig_stats(&f).disk.failing);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 0);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 1);
    rig_assert_balanced(&f);
    rig_end(&f);
}

/* Linux reports what it could not write once: the next sync is well. */
static void a_failed_sync_is_not_forgotten(void **state)
{
    struct disk_rig f;
    char name[400];
    char again[400];

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    assert_int_equal(rig_n_files(&f, name), 1);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 0), -EIO);
    assert_int_equal(store_sync(f.s, 0), -EIO); /* not asked */
    rig_pass_seconds(&f, 10);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 2); /* not to that file */
    assert_int_equal(rig_n_files(&f, NULL), 2);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 2);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 1);
    rig_assert_balanced(&f);
    /* It may be there all the same. */
    rig_next_life(&f);
    assert_int_equal(rig_stats(&f).restored_load.n_samples, 3);
    rig_deliver(&f, 100, 'b', 2);
    rig_deliver(&f, 100, 'a', 1);
    /* What is in memory, too, is written to another file. */
    rig_put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    assert_int_equal(rig_n_files(&f, name), 1);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 0), -EIO);
    rig_save(&f);
    assert_int_equal(store_counts(f.s)->saved, 4);
    assert_int_equal(rig_n_files(&f, again), 1);
    assert_string_not_equal(name, again);
    rig_end(&f);
}

/* Not offered to the disk when it was frozen, and on its way since. */
static void what_is_in_flight_is_saved_too(void **state)
{
    struct disk_rig f;
    struct payload *p;
    struct rlimit was, none;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_false(store_is_on_disk(f.s));
    p = rig_take(&f, 100, 'a', 1);
    rig_save(&f);
    assert_int_equal(store_counts(f.s)->saved, 1);
    store_put_back(f.s, p);
    rig_next_life(&f);
    rig_deliver(&f, 100, 'a', 1);
    rig_end(&f);
}

/* A copy is written while the loop goes on with the payload. */
static void a_payload_may_leave_while_it_is_written(void **state)
{
    struct disk_rig f;
    struct store_rewrite *w;
    struct payload *p;
    struct payload_draft d;
    uint64_t need;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    for (int k = 0; k < 2; k++) {
        rig_fresh_region(&f); /* not looked at: the disk is not used yet */
        rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
        assert_false(store_is_on_disk(f.s));
        rig_look(&f);
        p = rig_take(&f, 100, 'a', 1);
        w = store_rewrite_begin(f.s);
        assert_non_null(w);
        if (k == 0) {
            store_settle_delivered(f.s, p);
            d = rig_draft(&f, PAYLOAD_SERIES, 100, 'b', 2);
            store_commit_part(f.s, 2, &d, 1, NULL, 0); /* in its slot */
        } else {
            store_mark_maybe_sent(f.s, p);
            store_put_back(f.s, p);
        }
        assert_int_equal(store_rewrite_write(f.s, w, &need), 0);
        assert_true(store_rewrite_end(f.s, w));
        rig_next_life(&f);
        p = store_take(f.s);
        assert_non_null(p);
        assert_int_equal(p->load.n_samples, k == 0 ? 2 : 1);
        assert_int_equal(p->state,
                         k == 0 ? PAYLOAD_FROZEN : PAYLOAD_MAYBE_SENT);
        store_settle_delivered(f.s, p);
        assert_null(store_take(f.s));
    }
    rig_end(&f);
}

static void nothing_is_synced_that_leaves_within_its_flush(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 5000), 0); /* not asked */
    rig_deliver(&f, 100, 'a', 1);
    rig_pass_seconds(&f, 10);
    assert_int_equal(store_sync(f.s, 5000), 0);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 1);
    rig_pass_seconds(&f, 10);
    assert_int_equal(fail_fdatasync, 1);
    fail_fdatasync = 0;
    assert_int_equal(store_sync(f.s, 5000), 0);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 0), 0); /* it is synced */
    assert_int_equal(fail_fdatasync, 1);
    fail_fdatasync = 0;
    rig_end(&f);
}

static void a_disk_that_cannot_read_loses_one_payload(void **state)
{
    struct disk_rig f;

    (void)state;
    rig_begin(&f, 1024 * KIB);
    rig_put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    rig_put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    rig_next_life(&f);
    fail_pread = 1;
    rig_deliver(&f, 100, 'a', 1);
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_DISK], 2);
    rig_assert_balanced(&f);
    rig_end(&f);
}

static void a_filesystem_that_is_full_enough_is_not_filled(void **state)
{
    struct disk_rig f;
    char path[64];
    int fd;

    (void)state;
    if (!mount_tmpfs(path, "size=1m"))
        skip();
    rig_begin_at(&f, path, 64u << 20);
    f.max_ratio = 0.5;
    rig_successor(&f);
    rig_look(&f);
    rig_put(&f, PAYLOAD_SERIES, 10 * KIB, 'a', 1);
    assert_true(store_is_on_disk(f.s));
    fd = openat(f.run_dir, "ballast", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(fallocate(fd, 0, 0, 600 * KIB), 0);
    rig_put(&f, PAYLOAD_SERIES, 10 * KIB, 'b', 2);
    assert_false(store_is_on_disk(f.s));
    assert_int_equal(rig_dropped(store_counts(f.s)), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    rig_pass_seconds(&f, 10);
    rig_put(&f, PAYLOAD_SERIES, 10 * KIB, 'c', 4);
    assert_true(store_is_on_disk(f.s));
    unmount(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_torn_end_costs_what_was_never_frozen),
        cmocka_unit_test(damage_costs_what_is_behind_it),
        cmocka_unit_test(a_damaged_file_does_not_replace_an_older_one),
        cmocka_unit_test(bytes_that_changed_after_they_were_found_are_not_sent),
        cmocka_unit_test(files_that_are_not_ours_stay_byte_for_byte),
        cmocka_unit_test(a_full_disk_is_said_and_used_again_when_it_is_not),
        cmocka_unit_test(a_stop_on_a_full_disk_names_what_it_lost),
        cmocka_unit_test(a_read_only_disk_delivers_and_ends_nothing),
        cmocka_unit_test(a_folder_that_was_removed_is_made_again),
        cmocka_unit_test(without_a_descriptor_payloads_wait_in_memory),
        cmocka_unit_test(what_did_not_sync_does_not_count_as_saved),
        cmocka_unit_test(a_failed_sync_is_not_forgotten),
        cmocka_unit_test(what_is_in_flight_is_saved_too),
        cmocka_unit_test(a_payload_may_leave_while_it_is_written),
        cmocka_unit_test(nothing_is_synced_that_leaves_within_its_flush),
        cmocka_unit_test(a_disk_that_cannot_read_loses_one_payload),
        cmocka_unit_test(a_filesystem_that_is_full_enough_is_not_filled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
