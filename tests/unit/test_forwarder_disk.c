/* SPDX-License-Identifier: Apache-2.0 */
/* The payload store with a disk: lives, kills, limits and faults. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "forwarder/segment.h"
#include "forwarder/split.h"
#include "forwarder/store.h"

#define KIB 1024u
#define NOW_S INT64_C(1700000000)

struct fixture {
    char path[64]; /* run_path */
    int run_dir;
    struct region r;
    struct store *s;
    size_t max_bytes;
    uint64_t life;
    double max_ratio;
    struct test_clock clock;
};

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

/* ---- Lives -------------------------------------------------------------- */

static void attach(struct fixture *f)
{
    const struct store_disk_opts disk = {.run_dir = f->run_dir,
                                         .max_ratio = f->max_ratio,
                                         .outdated_s = 10 * 86400};
    const struct store_opts opts = {.max_bytes = f->max_bytes,
                                    .disk = &disk,
                                    .life = f->life,
                                    .clock = &f->clock.clock};

    assert_int_equal(store_open(&f->s, &f->r, &opts), 0);
}

static void make_region(struct fixture *f)
{
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test-store",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};

    opts.budget_bytes = store_reserve(reserve, STORE_DISK_MEMORY_BYTES);
    assert_int_equal(region_create(&f->r, &opts), 0);
}

/* All that is on disk is looked through. */
static void look(struct fixture *f)
{
    bool more;

    assert_int_equal(store_list(f->s), 0);
    store_restore(f->s);
    do {
        more = store_read_some(f->s);
        store_restore(f->s);
    } while (more);
}

static void begin_at(struct fixture *f, const char *path, size_t max_bytes)
{
    memset(f, 0, sizeof(*f));
    f->max_bytes = max_bytes;
    f->max_ratio = 1;
    f->life = 1;
    test_clock_init(&f->clock, 1000, NOW_S * CLOCK_NS_PER_S);
    snprintf(f->path, sizeof(f->path), "%s", path);
    f->run_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->run_dir >= 0);
    make_region(f);
    if (max_bytes <= 1024 * KIB) /* it copies all there is at each commit */
        region_prove(&f->r);
    attach(f);
    look(f);
}

static void begin(struct fixture *f, size_t max_bytes)
{
    char path[] = "/tmp/retriever-disk-XXXXXX";

    assert_non_null(mkdtemp(path));
    begin_at(f, path, max_bytes);
}

/* Keeper and worker are killed: what is left is the disk. */
static void kill_both(struct fixture *f)
{
    store_close(f->s);
    region_close(&f->r);
    f->life++;
    make_region(f);
    attach(f);
}

static void next_life(struct fixture *f)
{
    kill_both(f);
    look(f);
}

/* The worker is killed. */
static void successor(struct fixture *f)
{
    store_close(f->s);
    (void)region_rollback(&f->r);
    attach(f);
}

static void remove_all(const char *path)
{
    char sub[400];
    struct dirent *e;
    DIR *dir = opendir(path);

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
        if (unlink(sub) != 0)
            remove_all(sub);
    }
    if (dir != NULL)
        closedir(dir);
    (void)rmdir(path);
}

static void end(struct fixture *f)
{
    store_close(f->s);
    region_close(&f->r);
    close(f->run_dir);
    remove_all(f->path);
}

/* ---- Helpers ------------------------------------------------------------ */

static struct payload_draft draft(struct fixture *f, enum payload_kind kind,
                                  size_t n, char fill, uint64_t n_samples)
{
    struct payload_draft d = {.kind = kind,
                              .encoding = ENCODING_NONE,
                              .n_bytes = (uint32_t)n,
                              .n_raw_bytes = (uint32_t)n,
                              .load = {n_samples, n_samples, 0, 0},
                              .newest_s = clock_wall_ns(&f->clock.clock) /
                                          CLOCK_NS_PER_S};

    while (store_block_alloc(f->s, n, &d.block) != 0)
        assert_int_equal(store_evict(f->s, n), 0);
    memset(store_block_bytes(f->s, d.block), fill, n);
    return d;
}

static void write_drafts(struct fixture *f, struct payload_draft *d, size_t n)
{
    uint64_t need = 0;

    while (store_write_drafts(f->s, d, n, &need) != 0) {
        if (store_make_disk_room(f->s, need) != 0)
            break;
    }
}

static void put(struct fixture *f, enum payload_kind kind, size_t n, char fill,
                uint64_t n_samples)
{
    struct payload_draft d = draft(f, kind, n, fill, n_samples);

    write_drafts(f, &d, 1);
    store_commit_part(f->s, store_encoded_seq(f->s) + 1, &d, 1, NULL, 0);
}

static struct store_stats stats(struct fixture *f)
{
    struct store_stats st;

    store_stats(f->s, &st);
    return st;
}

static uint64_t dropped(const struct delivery_counts *c)
{
    uint64_t n = 0;

    for (int i = 0; i < DROP_N; i++)
        n += c->dropped[i];
    return n;
}

static void assert_balanced(struct fixture *f)
{
    const struct store_books *own = store_own(f->s);
    const struct store_books *old = store_restored(f->s);
    struct store_stats st = stats(f);

    assert_int_equal(own->accepted.n_samples,
                     own->counts.delivered + own->counts.saved +
                         dropped(&own->counts) + st.load.n_samples);
    assert_int_equal(old->accepted.n_samples,
                     old->counts.delivered + old->counts.saved +
                         dropped(&old->counts) + st.restored_load.n_samples);
}

/* The next payload is this one. */
static struct payload *take(struct fixture *f, size_t n, char fill,
                            uint64_t n_samples)
{
    struct payload *p = store_take(f->s);

    assert_non_null(p);
    assert_int_equal(p->n_bytes, n);
    assert_int_equal(p->load.n_samples, n_samples);
    assert_int_equal(((const char *)p->body)[0], fill);
    assert_memory_equal(p->body, (const char *)p->body + 1, n - 1);
    return p;
}

static void deliver(struct fixture *f, size_t n, char fill, uint64_t n_samples)
{
    store_settle_delivered(f->s, take(f, n, fill, n_samples));
}

/* Files in payloads/; *name is the last one's. */
static unsigned n_files(struct fixture *f, char name[400])
{
    char path[128];
    struct dirent *e;
    unsigned n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/payloads", f->path);
    dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        n++;
        if (name != NULL)
            snprintf(name, 400, "%s/%s", path, e->d_name);
    }
    closedir(dir);
    return n;
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_true(fd >= 0);
    assert_int_equal(__real_pread(fd, &c, 1, at), 1);
    c ^= 0x40;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

/* ---- Lives -------------------------------------------------------------- */

static void frozen_payloads_outlive_keeper_and_worker(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    put(&f, PAYLOAD_EVENTS, 5000, 'b', 2);
    put(&f, PAYLOAD_SERIES, 300, 'c', 4);
    deliver(&f, 300, 'c', 4);
    next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 2);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, 3);
    assert_int_equal(stats(&f).restored_load.n_samples, 3);
    assert_int_equal(stats(&f).load.n_samples, 0);
    /* What is new goes before the backlog. */
    put(&f, PAYLOAD_SERIES, 10, 'n', 8);
    deliver(&f, 10, 'n', 8);
    deliver(&f, 5000, 'b', 2);
    deliver(&f, 100, 'a', 1);
    assert_null(store_take(f.s));
    assert_int_equal(store_counts(f.s)->delivered, 8);
    assert_int_equal(store_counts(f.s)->payloads_sent, 3);
    assert_int_equal(store_restored(f.s)->counts.delivered, 3);
    assert_balanced(&f);
    next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 0);
    assert_int_equal(n_files(&f, NULL), 0);
    end(&f);
}

static void a_body_that_may_have_left_is_remembered(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SKETCHES, 100, 'a', 1);
    put(&f, PAYLOAD_SKETCHES, 100, 'b', 2);
    p = take(&f, 100, 'b', 2);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    next_life(&f);
    p = take(&f, 100, 'b', 2);
    store_count_attempt(f.s, p);
    store_settle_delivered(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 1);
    p = take(&f, 100, 'a', 1);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    store_mark_refused(f.s, p);
    next_life(&f);
    p = take(&f, 100, 'a', 1);
    store_count_attempt(f.s, p);
    assert_int_equal(store_counts(f.s)->payloads_ambiguous, 0);
    end(&f);
}

static void what_was_never_committed_is_settled_by_the_successor(void **state)
{
    struct fixture f;
    struct payload_draft d;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    d = draft(&f, PAYLOAD_SERIES, 100, 'x', 100);
    write_drafts(&f, &d, 1);
    successor(&f);
    /* The reader serves before the disk is looked at: nothing is written. */
    d = draft(&f, PAYLOAD_SERIES, 100, 'x', 100);
    write_drafts(&f, &d, 1);
    assert_int_equal(d.place.segment, 0);
    look(&f);
    write_drafts(&f, &d, 1);
    assert_int_not_equal(d.place.segment, 0);
    store_commit_part(f.s, 2, &d, 1, NULL, 0);
    assert_int_equal(store_restored(f.s)->n_payloads, 0);
    next_life(&f);
    deliver(&f, 100, 'x', 100);
    deliver(&f, 100, 'a', 1);
    assert_null(store_take(f.s));
    end(&f);
}

static void a_stop_saves_and_the_next_life_delivers(void **state)
{
    struct fixture f;
    struct payload *p;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    put(&f, PAYLOAD_CHECKS, 100, 'b', 2);
    p = take(&f, 100, 'b', 2);
    assert_int_equal(store_sync(f.s, 0), 0);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 3);
    assert_int_equal(stats(&f).load.n_samples, 0);
    assert_null(store_take(f.s));
    store_settle_delivered(f.s, p); /* too late */
    assert_int_equal(store_counts(f.s)->delivered, 0);
    /* Killed behind it: what is saved is not what nobody committed. */
    successor(&f);
    look(&f);
    assert_int_equal(store_counts(f.s)->saved, 3);
    assert_balanced(&f);
    next_life(&f);
    deliver(&f, 100, 'b', 2);
    deliver(&f, 100, 'a', 1);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_restored(f.s)->counts.saved, 0);
    assert_balanced(&f);
    end(&f);
}

static void payloads_of_two_weeks_ago_are_dropped(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    test_clock_advance(&f.clock, UINT64_C(14) * 86400 * CLOCK_NS_PER_S);
    next_life(&f);
    assert_null(store_take(f.s));
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_EVICTED], 1);
    assert_balanced(&f);
    assert_int_equal(n_files(&f, NULL), 0);
    end(&f);
}

static void points_that_waited_over_an_hour_count_as_old(void **state)
{
    struct fixture f;
    struct payload_draft d;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    d = draft(&f, PAYLOAD_SERIES, 100, 'o', 100);
    d.newest_s -= STORE_OLD_S + 1; /* counted when it was received */
    store_commit_part(f.s, 2, &d, 1, NULL, 0);
    test_clock_advance(&f.clock, (uint64_t)(STORE_OLD_S + 1) * CLOCK_NS_PER_S);
    put(&f, PAYLOAD_SERIES, 100, 'b', 10);
    deliver(&f, 100, 'b', 10);
    assert_int_equal(store_counts(f.s)->delivered_old, 0);
    deliver(&f, 100, 'o', 100);
    assert_int_equal(store_counts(f.s)->delivered_old, 0);
    deliver(&f, 100, 'a', 1);
    assert_int_equal(store_counts(f.s)->delivered_old, 1);
    end(&f);
}

/* ---- Memory and limits -------------------------------------------------- */

static void old_bodies_leave_memory_and_are_read_back(void **state)
{
    enum { N = 40 };
    struct fixture f;

    (void)state;
    begin(&f, 64u << 20);
    for (int i = 0; i < N; i++)
        put(&f, PAYLOAD_SERIES, 1024 * KIB, (char)('A' + i), (uint64_t)i);
    assert_true(stats(&f).bytes <= STORE_DISK_MEMORY_BYTES);
    assert_int_equal(stats(&f).n_payloads, N);
    assert_int_equal(dropped(store_counts(f.s)), 0);
    successor(&f);
    look(&f);
    assert_int_equal(stats(&f).n_payloads, N);
    for (int i = N; i-- > 0;)
        deliver(&f, 1024 * KIB, (char)('A' + i), (uint64_t)i);
    assert_int_equal(stats(&f).bytes, 0);
    assert_balanced(&f);
    end(&f);
}

static void the_oldest_go_when_the_disk_may_hold_no_more(void **state)
{
    struct fixture f;
    uint64_t n_in = 0;

    (void)state;
    begin(&f, 2048 * KIB);
    for (int i = 0; i < 100; i++) {
        put(&f, PAYLOAD_SERIES, 100 * KIB, 'x', 1);
        n_in++;
        assert_true(stats(&f).disk.n_bytes <= 2048 * KIB);
        assert_balanced(&f);
    }
    assert_true(stats(&f).n_payloads >= 15);
    assert_int_equal(store_counts(f.s)->dropped[DROP_EVICTED],
                     n_in - stats(&f).n_payloads);
    /* With a smaller limit at the next start the oldest go, too. */
    f.max_bytes = 1024 * KIB;
    next_life(&f);
    assert_true(stats(&f).disk.n_bytes <= 1024 * KIB);
    assert_true(store_restored(f.s)->counts.dropped[DROP_EVICTED] > 0);
    assert_balanced(&f);
    end(&f);
}

static void a_healthy_store_keeps_one_short_file(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 64u << 20);
    for (int i = 0; i < 50; i++) {
        put(&f, PAYLOAD_SERIES, 100 * KIB, 'x', 1);
        put(&f, PAYLOAD_SERIES, 100 * KIB, 'y', 1);
        deliver(&f, 100 * KIB, 'y', 1);
        deliver(&f, 100 * KIB, 'x', 1);
        assert_int_equal(n_files(&f, NULL), 1);
        assert_int_equal(stats(&f).disk.n_bytes, SEGMENT_HEAD_BYTES);
    }
    end(&f);
}

/* "<i>," each with one sample, in brackets. */
static struct payload_draft items_draft(struct fixture *f, int n)
{
    static unsigned char bytes[64 * KIB];
    struct split_index *x = malloc(sizeof(*x));
    struct payload_draft d = {.kind = PAYLOAD_EVENTS};
    size_t at = 0;

    assert_non_null(x);
    bytes[at++] = '[';
    split_index_init(x, 1, 1, 1);
    for (int i = 0; i < n; i++) {
        int len = snprintf((char *)bytes + at, 20, "%s%d", i > 0 ? "," : "", i);

        split_index_add(x, (size_t)len, 1, 1);
        at += (size_t)len;
    }
    bytes[at++] = ']';
    d.n_bytes = d.n_raw_bytes = (uint32_t)at;
    d.n_index_bytes = (uint32_t)split_index_write(x, bytes + at);
    d.load = (struct payload_load){(uint64_t)n, (uint64_t)n, (uint64_t)n, 0};
    at += d.n_index_bytes;
    assert_int_equal(store_block_alloc(f->s, at, &d.block), 0);
    memcpy(store_block_bytes(f->s, d.block), bytes, at);
    free(x);
    return d;
}

static void halves_of_a_split_are_on_disk(void **state)
{
    struct fixture f;
    struct payload_draft d;

    (void)state;
    begin(&f, 1024 * KIB);
    d = items_draft(&f, 5);
    write_drafts(&f, &d, 1);
    store_commit_part(f.s, 1, &d, 1, NULL, 0);
    next_life(&f); /* it is split from its copy on disk */
    assert_int_equal(store_split(f.s, store_take(f.s)), 0);
    next_life(&f);
    assert_int_equal(store_restored(f.s)->n_payloads, 2);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, 5);
    assert_int_equal(store_split(f.s, store_take(f.s)), 0);
    assert_balanced(&f);
    end(&f);
}

/* ---- Damage ------------------------------------------------------------- */

static void a_torn_end_costs_what_was_never_frozen(void **state)
{
    struct fixture f;
    char name[400];

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
    put(&f, PAYLOAD_SERIES, 1000, 'b', 2);
    assert_int_equal(n_files(&f, name), 1);
    kill_both(&f);
    assert_int_equal(truncate(name, 40 + 2 * 1080 - 8), 0);
    look(&f);
    assert_int_equal(stats(&f).disk.n_damaged_bytes, 0);
    deliver(&f, 1000, 'a', 1);
    assert_null(store_take(f.s));
    assert_int_equal(n_files(&f, NULL), 0);
    end(&f);
}

static void damage_costs_what_is_behind_it(void **state)
{
    struct fixture f;
    char name[400];

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
    put(&f, PAYLOAD_SERIES, 1000, 'b', 2);
    put(&f, PAYLOAD_SERIES, 1000, 'c', 4);
    assert_int_equal(n_files(&f, name), 1);
    kill_both(&f);
    flip(name, 40 + 1080 + 500);
    look(&f);
    assert_int_equal(stats(&f).disk.n_damaged_bytes, 2 * 1080);
    assert_int_equal(store_restored(f.s)->accepted.n_samples, 1);
    assert_int_equal(n_files(&f, NULL), 1);
    deliver(&f, 1000, 'a', 1);
    assert_int_equal(n_files(&f, name), 1);
    assert_non_null(strstr(name, ".damaged"));
    next_life(&f);
    assert_null(store_take(f.s));
    assert_int_equal(n_files(&f, NULL), 1);
    end(&f);
}

static void bytes_that_changed_after_they_were_found_are_not_sent(void **state)
{
    struct fixture f;
    char name[400];

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 1000, 'a', 1);
    put(&f, PAYLOAD_SERIES, 1000, 'b', 2);
    assert_int_equal(n_files(&f, name), 1);
    next_life(&f);
    flip(name, 40 + 1080 + 500);
    deliver(&f, 1000, 'a', 1);
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_DISK], 2);
    assert_balanced(&f);
    end(&f);
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
    struct fixture f;
    char name[128];
    char got[4096];

    (void)state;
    begin(&f, 1024 * KIB);
    for (size_t i = 0; i < 5; i++) {
        int fd;

        snprintf(name, sizeof(name), "%s/payloads/%s", f.path, others[i].name);
        fd = open(name, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(write(fd, others[i].bytes, others[i].n), others[i].n);
        close(fd);
    }
    for (int life = 0; life < 3; life++) {
        next_life(&f);
        put(&f, PAYLOAD_SERIES, 100, 'a', 1);
        deliver(&f, 100, 'a', 1);
        assert_null(store_take(f.s));
    }
    for (size_t i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "%s/payloads/%s", f.path, others[i].name);
        assert_int_equal(read_file(name, got), others[i].n);
        assert_memory_equal(got, others[i].bytes, others[i].n);
    }
    end(&f);
}

/* ---- Faults of the disk ------------------------------------------------- */

static void pass_seconds(struct fixture *f, unsigned n)
{
    test_clock_advance(&f->clock, (uint64_t)n * CLOCK_NS_PER_S);
}

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

static void unmount(struct fixture *f)
{
    end(f);
    assert_int_equal(umount2(f->path, MNT_DETACH), 0);
    (void)rmdir(f->path);
}

static void a_full_disk_is_said_and_used_again_when_it_is_not(void **state)
{
    struct fixture f;
    char path[64];
    char ballast[128];
    int fd;

    (void)state;
    if (!mount_tmpfs(path, "size=512k"))
        skip();
    begin_at(&f, path, 64u << 20);
    snprintf(ballast, sizeof(ballast), "%s/ballast", path);
    fd = open(ballast, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(fallocate(fd, 0, 0, 400 * KIB), 0);
    put(&f, PAYLOAD_SERIES, 10 * KIB, 'a', 1);
    assert_true(store_is_on_disk(f.s));
    put(&f, PAYLOAD_SERIES, 300 * KIB, 'b', 2);
    assert_false(store_is_on_disk(f.s));
    assert_true(stats(&f).disk.failing);
    assert_int_equal(ftruncate(fd, 0), 0);
    put(&f, PAYLOAD_SERIES, 1 * KIB, 'c', 4); /* not asked again yet */
    assert_true(stats(&f).disk.failing);
    pass_seconds(&f, 10);
    put(&f, PAYLOAD_SERIES, 1 * KIB, 'd', 8);
    assert_false(stats(&f).disk.failing);
    assert_true(store_is_on_disk(f.s)); /* what had to wait, too */
    next_life(&f);
    assert_int_equal(stats(&f).restored_load.n_samples, 15);
    deliver(&f, 1 * KIB, 'd', 8);
    deliver(&f, 1 * KIB, 'c', 4);
    deliver(&f, 300 * KIB, 'b', 2);
    deliver(&f, 10 * KIB, 'a', 1);
    assert_balanced(&f);
    close(fd);
    unmount(&f);
}

static void a_stop_on_a_full_disk_names_what_it_lost(void **state)
{
    struct fixture f;
    char path[64];

    (void)state;
    if (!mount_tmpfs(path, "size=512k"))
        skip();
    begin_at(&f, path, 64u << 20);
    put(&f, PAYLOAD_SERIES, 300 * KIB, 'a', 1);
    put(&f, PAYLOAD_SERIES, 300 * KIB, 'b', 2);
    assert_int_equal(store_sync(f.s, 0), 0);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 1);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 2);
    assert_balanced(&f);
    next_life(&f);
    deliver(&f, 300 * KIB, 'a', 1);
    assert_null(store_take(f.s));
    unmount(&f);
}

static void a_read_only_disk_delivers_and_ends_nothing(void **state)
{
    struct fixture f;
    char path[64];
    int rc;

    (void)state;
    if (!mount_tmpfs(path, "size=4m"))
        skip();
    begin_at(&f, path, 64u << 20);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    kill_both(&f); /* no file is open for writing */
    rc = mount("none", path, NULL, MS_REMOUNT | MS_RDONLY, "size=4m");
    assert_int_equal(rc, 0);
    look(&f);
    put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    assert_true(stats(&f).disk.failing);
    deliver(&f, 100, 'b', 2);
    deliver(&f, 100, 'a', 1);
    put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 4);
    assert_balanced(&f);
    assert_int_equal(mount("none", path, NULL, MS_REMOUNT, "size=4m"), 0);
    next_life(&f);
    /* Its mark was not taken: it is there once more. */
    deliver(&f, 100, 'a', 1);
    unmount(&f);
}

static void a_folder_that_was_removed_is_made_again(void **state)
{
    struct fixture f;
    char path[128];

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    snprintf(path, sizeof(path), "%s/payloads", f.path);
    remove_all(path);
    put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    assert_int_equal(n_files(&f, NULL), 1);
    put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    deliver(&f, 100, 'c', 4); /* a state that is written */
    assert_int_equal(store_sync(f.s, 0) <= 0, 1);
    assert_true(store_save_rest(f.s));
    /* The first one had its body in memory, but its file is gone. */
    assert_int_equal(store_counts(f.s)->saved, 2);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 1);
    next_life(&f);
    deliver(&f, 100, 'b', 2);
    assert_null(store_take(f.s));
    end(&f);
}

static void without_a_descriptor_payloads_wait_in_memory(void **state)
{
    struct fixture f;
    struct rlimit was, none;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 200 * KIB, 'a', 1); /* the next needs a new file */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    put(&f, PAYLOAD_SERIES, 200 * KIB, 'b', 2);
    assert_true(stats(&f).disk.failing);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    pass_seconds(&f, 10);
    put(&f, PAYLOAD_SERIES, 100, 'c', 4);
    assert_true(store_is_on_disk(f.s));
    assert_int_equal(dropped(store_counts(f.s)), 0);
    end(&f);
}

static void what_did_not_sync_does_not_count_as_saved(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 0), -EIO);
    assert_true(stats(&f).disk.failing);
    assert_true(store_save_rest(f.s));
    assert_int_equal(store_counts(f.s)->saved, 0);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DISK], 1);
    assert_balanced(&f);
    end(&f);
}

static void nothing_is_synced_that_leaves_within_its_flush(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 5000), 0); /* not asked */
    deliver(&f, 100, 'a', 1);
    pass_seconds(&f, 10);
    assert_int_equal(store_sync(f.s, 5000), 0);
    put(&f, PAYLOAD_SERIES, 100, 'b', 1);
    pass_seconds(&f, 10);
    assert_int_equal(fail_fdatasync, 1);
    fail_fdatasync = 0;
    assert_int_equal(store_sync(f.s, 5000), 0);
    fail_fdatasync = 1;
    assert_int_equal(store_sync(f.s, 0), 0); /* it is synced */
    assert_int_equal(fail_fdatasync, 1);
    fail_fdatasync = 0;
    end(&f);
}

static void a_disk_that_cannot_read_loses_one_payload(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    next_life(&f);
    fail_pread = 1;
    deliver(&f, 100, 'a', 1);
    assert_int_equal(store_restored(f.s)->counts.dropped[DROP_DISK], 2);
    assert_balanced(&f);
    end(&f);
}

static void a_filesystem_that_is_full_enough_is_not_filled(void **state)
{
    struct fixture f;
    char path[64];
    int fd;

    (void)state;
    if (!mount_tmpfs(path, "size=1m"))
        skip();
    begin_at(&f, path, 64u << 20);
    f.max_ratio = 0.5;
    successor(&f);
    look(&f);
    put(&f, PAYLOAD_SERIES, 10 * KIB, 'a', 1);
    assert_true(store_is_on_disk(f.s));
    fd = openat(f.run_dir, "ballast", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(fallocate(fd, 0, 0, 600 * KIB), 0);
    put(&f, PAYLOAD_SERIES, 10 * KIB, 'b', 2);
    assert_false(store_is_on_disk(f.s));
    assert_int_equal(dropped(store_counts(f.s)), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    pass_seconds(&f, 10);
    put(&f, PAYLOAD_SERIES, 10 * KIB, 'c', 4);
    assert_true(store_is_on_disk(f.s));
    unmount(&f);
}

/* ---- Another image of the program --------------------------------------- */

/* The same life in a fresh region. */
static void next_image(struct fixture *f, int fd)
{
    struct store_books own = *store_own(f->s);
    struct store_books restored = *store_restored(f->s);

    store_close(f->s);
    region_close(&f->r);
    make_region(f);
    attach(f);
    store_adopt_counts(f->s, &own, &restored);
    assert_balanced(f);
    assert_int_equal(store_import(f->s, fd), 0);
    assert_balanced(f);
}

static void an_image_hands_over_what_it_has(void **state)
{
    struct fixture f;
    struct payload_draft d;
    struct payload *p;
    int fd = memfd_create("handover", MFD_CLOEXEC);

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'r', 1000);
    next_life(&f);
    put(&f, PAYLOAD_SKETCHES, 100, 'a', 1); /* on disk */
    d = draft(&f, PAYLOAD_SKETCHES, 200, 'b', 2);
    store_commit_part(f.s, 2, &d, 1, NULL, 0); /* in memory alone */
    assert_true(store_is_on_disk(f.s));        /* it was written back */
    successor(&f);
    d = draft(&f, PAYLOAD_SKETCHES, 300, 'c', 4);
    store_commit_part(f.s, 3, &d, 1, NULL, 0);
    assert_false(store_is_on_disk(f.s));
    p = take(&f, 300, 'c', 4);
    store_count_attempt(f.s, p);
    store_mark_maybe_sent(f.s, p);
    store_put_back(f.s, p);
    assert_int_equal(store_export(f.s, fd), 0);
    next_image(&f, fd);
    /* Those on disk are in flight before they are found. */
    assert_int_equal(stats(&f).load.n_samples, 7);
    assert_int_equal(stats(&f).restored_load.n_samples, 1000);
    successor(&f); /* a kill before that changes nothing */
    assert_int_equal(stats(&f).load.n_samples, 7);
    look(&f);
    assert_balanced(&f);
    assert_int_equal(stats(&f).load.n_samples, 7);
    assert_int_equal(store_restored(f.s)->n_payloads, 1);
    put(&f, PAYLOAD_SERIES, 400, 'n', 8);
    deliver(&f, 400, 'n', 8);
    p = take(&f, 300, 'c', 4);
    assert_int_equal(p->state, PAYLOAD_MAYBE_SENT);
    store_settle_delivered(f.s, p);
    deliver(&f, 200, 'b', 2);
    deliver(&f, 100, 'a', 1);
    deliver(&f, 100, 'r', 1000);
    assert_null(store_take(f.s));
    assert_int_equal(store_counts(f.s)->delivered, 15);
    assert_int_equal(store_restored(f.s)->counts.delivered, 1000);
    assert_balanced(&f);
    close(fd);
    end(&f);
}

static void what_a_hand_over_lost_is_named(void **state)
{
    struct fixture f;
    char name[400];
    int fd = memfd_create("handover", MFD_CLOEXEC);

    (void)state;
    begin(&f, 1024 * KIB);
    put(&f, PAYLOAD_SERIES, 100, 'a', 1);
    put(&f, PAYLOAD_SERIES, 100, 'b', 2);
    assert_int_equal(n_files(&f, name), 1);
    assert_int_equal(store_export(f.s, fd), 0);
    assert_int_equal(unlink(name), 0);
    next_image(&f, fd);
    assert_int_equal(stats(&f).load.n_samples, 3);
    look(&f);
    assert_int_equal(stats(&f).load.n_samples, 0);
    assert_int_equal(store_counts(f.s)->dropped[DROP_DAMAGED], 3);
    assert_balanced(&f);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_int_equal(store_import(f.s, fd), -EBADMSG);
    close(fd);
    end(&f);
}

/* ---- Kills -------------------------------------------------------------- */

enum { MAX_PAYLOADS = 4096 };

/* What the killed process had done for certain. */
struct witness {
    _Atomic uint64_t n_frozen; /* payload i has 1 << 20 | i samples */
    _Atomic unsigned char over[MAX_PAYLOADS]; /* 1: settling, 2: settled */
};

static uint64_t number_of(const struct payload *p)
{
    return p->load.n_samples & 0xfffff;
}

static void work_for_ever(struct fixture *f, struct witness *w, unsigned x)
{
    for (;;) {
        struct payload *p = NULL;
        uint64_t n = atomic_load(&w->n_frozen);

        x = x * 1103515245u + 12345u;
        if (n < MAX_PAYLOADS && (x >> 16) % 3 != 0) {
            put(f, (x >> 24) % 4, (x >> 8) % (40 * KIB) + 1, 'k', 1u << 20 | n);
            atomic_store(&w->n_frozen, n + 1);
        } else if ((p = store_take(f->s)) != NULL) {
            store_count_attempt(f->s, p);
            store_mark_maybe_sent(f->s, p);
            n = number_of(p);
            atomic_store(&w->over[n], 1);
            store_settle_delivered(f->s, p);
            atomic_store(&w->over[n], 2);
        }
    }
}

static void assert_all_there(struct fixture *f, struct witness *w)
{
    unsigned char *seen = calloc(MAX_PAYLOADS, 1);
    struct payload *p;

    while ((p = store_take(f->s)) != NULL) {
        uint64_t n = number_of(p);

        assert_true(n < MAX_PAYLOADS);
        assert_int_equal(seen[n]++, 0);
        assert_int_not_equal(atomic_load(&w->over[n]), 2);
        store_settle_delivered(f->s, p);
    }
    for (uint64_t n = 0; n < atomic_load(&w->n_frozen); n++)
        assert_true(seen[n] || atomic_load(&w->over[n]) > 0);
    free(seen);
}

static void nothing_frozen_is_lost_in_kills_of_all_processes(void **state)
{
    struct witness *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *text = getenv("RETRIEVER_TEST_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 0;
    struct fixture f;

    (void)state;
    if (seed == 0)
        assert_int_equal(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
    print_message("seed %u (RETRIEVER_TEST_SEED)\n", seed);
    assert_ptr_not_equal(w, MAP_FAILED);
    begin(&f, 64u << 20);
    for (unsigned round = 0; round < 60; round++) {
        struct timespec pause = {0, 1000 * (200 + seed % 6000)};
        bool whole = round % 2 == 0;
        int status;
        pid_t pid;

        seed = seed * 1103515245u + 12345u;
        memset((void *)w, 0, sizeof(*w));
        next_life(&f);
        assert_null(store_take(f.s));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            successor(&f);
            look(&f);
            work_for_ever(&f, w, seed);
        }
        nanosleep(&pause, NULL); /* the instant of the kill, not a wait */
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (whole)
            next_life(&f);
        else {
            successor(&f);
            look(&f);
            assert_int_equal(store_restored(f.s)->n_payloads, 0);
        }
        assert_balanced(&f);
        assert_int_equal(dropped(store_counts(f.s)), 0);
        assert_all_there(&f, w);
    }
    munmap(w, sizeof(*w));
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frozen_payloads_outlive_keeper_and_worker),
        cmocka_unit_test(a_body_that_may_have_left_is_remembered),
        cmocka_unit_test(what_was_never_committed_is_settled_by_the_successor),
        cmocka_unit_test(a_stop_saves_and_the_next_life_delivers),
        cmocka_unit_test(payloads_of_two_weeks_ago_are_dropped),
        cmocka_unit_test(points_that_waited_over_an_hour_count_as_old),
        cmocka_unit_test(old_bodies_leave_memory_and_are_read_back),
        cmocka_unit_test(the_oldest_go_when_the_disk_may_hold_no_more),
        cmocka_unit_test(a_healthy_store_keeps_one_short_file),
        cmocka_unit_test(halves_of_a_split_are_on_disk),
        cmocka_unit_test(a_torn_end_costs_what_was_never_frozen),
        cmocka_unit_test(damage_costs_what_is_behind_it),
        cmocka_unit_test(bytes_that_changed_after_they_were_found_are_not_sent),
        cmocka_unit_test(files_that_are_not_ours_stay_byte_for_byte),
        cmocka_unit_test(a_full_disk_is_said_and_used_again_when_it_is_not),
        cmocka_unit_test(a_stop_on_a_full_disk_names_what_it_lost),
        cmocka_unit_test(a_read_only_disk_delivers_and_ends_nothing),
        cmocka_unit_test(a_folder_that_was_removed_is_made_again),
        cmocka_unit_test(without_a_descriptor_payloads_wait_in_memory),
        cmocka_unit_test(what_did_not_sync_does_not_count_as_saved),
        cmocka_unit_test(nothing_is_synced_that_leaves_within_its_flush),
        cmocka_unit_test(a_disk_that_cannot_read_loses_one_payload),
        cmocka_unit_test(a_filesystem_that_is_full_enough_is_not_filled),
        cmocka_unit_test(an_image_hands_over_what_it_has),
        cmocka_unit_test(what_a_hand_over_lost_is_named),
        cmocka_unit_test(nothing_frozen_is_lost_in_kills_of_all_processes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
