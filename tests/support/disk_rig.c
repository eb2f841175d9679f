/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/disk_rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void attach(struct disk_rig *f)
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

static void make_region(struct disk_rig *f)
{
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test-store",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};

    opts.budget_bytes = store_reserve(reserve, STORE_DISK_MEMORY_BYTES);
    assert_int_equal(region_create(&f->r, &opts), 0);
}

/* All that is on disk is looked through. */
void rig_look(struct disk_rig *f)
{
    bool more;

    assert_int_equal(store_list(f->s), 0);
    store_restore(f->s);
    do {
        more = store_read_some(f->s);
        store_restore(f->s);
    } while (more);
}

void rig_begin_at(struct disk_rig *f, const char *path, size_t max_bytes)
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
    rig_look(f);
}

void rig_begin(struct disk_rig *f, size_t max_bytes)
{
    char path[] = "/tmp/retriever-disk-XXXXXX";

    assert_non_null(mkdtemp(path));
    rig_begin_at(f, path, max_bytes);
}

void rig_fresh_region(struct disk_rig *f)
{
    store_close(f->s);
    region_close(&f->r);
    make_region(f);
    attach(f);
}

void rig_kill_both(struct disk_rig *f)
{
    f->life++;
    rig_fresh_region(f);
}

void rig_next_life(struct disk_rig *f)
{
    rig_kill_both(f);
    rig_look(f);
}

/* The worker is killed. */
void rig_successor(struct disk_rig *f)
{
    store_close(f->s);
    (void)region_rollback(&f->r);
    attach(f);
}

void rig_remove_all(const char *path)
{
    char sub[400];
    struct dirent *e;
    DIR *dir = opendir(path);

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
        if (unlink(sub) != 0)
            rig_remove_all(sub);
    }
    if (dir != NULL)
        closedir(dir);
    (void)rmdir(path);
}

void rig_end(struct disk_rig *f)
{
    store_close(f->s);
    region_close(&f->r);
    close(f->run_dir);
    rig_remove_all(f->path);
}

/* ---- Helpers ------------------------------------------------------------ */

struct payload_draft rig_draft(struct disk_rig *f, enum payload_kind kind,
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

void rig_write_drafts(struct disk_rig *f, struct payload_draft *d, size_t n)
{
    uint64_t need = 0;

    while (store_write_drafts(f->s, d, n, &need) != 0) {
        if (store_make_disk_room(f->s, need) != 0)
            break;
    }
}

void rig_put(struct disk_rig *f, enum payload_kind kind, size_t n, char fill,
             uint64_t n_samples)
{
    struct payload_draft d = rig_draft(f, kind, n, fill, n_samples);

    rig_write_drafts(f, &d, 1);
    store_commit_part(f->s, store_encoded_seq(f->s) + 1, &d, 1, NULL, 0);
}

void rig_save(struct disk_rig *f)
{
    store_write_rest(f->s);
    (void)store_sync(f->s, 0);
    assert_true(store_save_rest(f->s));
    rig_assert_balanced(f);
}

struct store_stats rig_stats(struct disk_rig *f)
{
    struct store_stats st;

    store_stats(f->s, &st);
    return st;
}

uint64_t rig_dropped(const struct delivery_counts *c)
{
    uint64_t n = 0;

    for (int i = 0; i < DROP_N; i++)
        n += c->dropped[i];
    return n;
}

void rig_assert_balanced(struct disk_rig *f)
{
    const struct store_books *own = store_own(f->s);
    const struct store_books *old = store_restored(f->s);
    struct store_stats st = rig_stats(f);

    assert_int_equal(own->accepted.n_samples,
                     own->counts.delivered + own->counts.saved +
                         rig_dropped(&own->counts) + st.load.n_samples);
    assert_int_equal(old->accepted.n_samples, old->counts.delivered +
                                                  old->counts.saved +
                                                  rig_dropped(&old->counts) +
                                                  st.restored_load.n_samples);
}

/* The next payload is this one. */
struct payload *rig_take(struct disk_rig *f, size_t n, char fill,
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

void rig_deliver(struct disk_rig *f, size_t n, char fill, uint64_t n_samples)
{
    store_settle_delivered(f->s, rig_take(f, n, fill, n_samples));
}

/* Files in payloads/; *name is the last one's. */
unsigned rig_n_files(struct disk_rig *f, char name[400])
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

void rig_flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 0x40;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

void rig_pass_seconds(struct disk_rig *f, unsigned n)
{
    test_clock_advance(&f->clock, (uint64_t)n * CLOCK_NS_PER_S);
}
