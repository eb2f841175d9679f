/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/encode_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- A part made of an array of items ----------------------------------- */

int part_iter_open(struct part_iter **out, const struct agg *a, uint64_t seq)
{
    (void)out;
    (void)a;
    (void)seq;
    return -ENOENT;
}

void part_iter_info(const struct part_iter *it, struct part_info *out)
{
    *out = (struct part_info){.n_items = it->n};
}

int part_iter_next(struct part_iter *it, struct flush_item *out)
{
    if (it->enomem_at > 0 && it->at + 1 == it->enomem_at)
        return -ENOMEM;
    if (it->at == it->n)
        return 0;
    *out = it->items[it->at++];
    return 1;
}

void part_iter_close(struct part_iter *it)
{
    (void)it;
}

/* ---- Encoding ----------------------------------------------------------- */

void encode_rig_open(struct encode_rig *f, size_t max_bytes)
{
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test-encode",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};

    memset(f, 0, sizeof(*f));
    opts.budget_bytes = store_reserve(reserve, max_bytes);
    assert_int_equal(region_create(&f->r, &opts), 0);
    assert_int_equal(store_open(&f->s, &f->r,
                                &(struct store_opts){.max_bytes = max_bytes}),
                     0);
    f->cfg = (struct encode_config){
        .encoding = ENCODING_NONE,
        .level = 1,
        .stop_level = 1,
        .limits = {[PAYLOAD_SERIES] = {512000, 5242880, 10000},
                   [PAYLOAD_SKETCHES] = {2621440, 4194304, 0},
                   [PAYLOAD_EVENTS] = {2621440, 4194304, 0},
                   [PAYLOAD_CHECKS] = {2621440, 4194304, 0}},
        .internal_hostname = "h1",
        .have_endpoint = true,
    };
}

int encode_rig_run(struct encode_rig *f, const struct flush_item *items,
                   size_t n)
{
    struct part_iter it = {.items = items, .n = n};

    encoder_close(f->e);
    f->e = NULL;
    assert_int_equal(encoder_create(&f->e, f->s, &f->cfg), 0);
    return encoder_run(f->e, &it, false, &f->result);
}

void encode_rig_close(struct encode_rig *f)
{
    encoder_close(f->e);
    store_close(f->s);
    region_close(&f->r);
}

const unsigned char *encode_rig_body(struct encode_rig *f, size_t i)
{
    return store_block_bytes(f->s, f->result.drafts[i].block);
}

uint64_t encode_rig_samples(const struct encode_result *r)
{
    uint64_t n = 0;

    for (size_t i = 0; i < r->n_drafts; i++)
        n += r->drafts[i].load.n_samples;
    for (size_t i = 0; i < r->n_losses; i++)
        n += r->losses[i].load.n_samples;
    return n;
}

/* ---- The independent decoder -------------------------------------------- */

static const char *const kind_names[] = {"series", "sketches", "events",
                                         "checks"};
static const char *const encoding_names[] = {"none", "deflate", "gzip", "zstd"};

static void write_file(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    close(fd);
}

void encode_rig_decode(struct encode_rig *f, size_t i, struct buf *out)
{
    const struct payload_draft *d = &f->result.drafts[i];
    char path[] = "/tmp/retriever-body-XXXXXX";
    int fd = mkstemp(path);
    char chunk[4096];
    int pipe_fds[2];
    int status;
    pid_t pid;
    ssize_t n;

    assert_true(fd >= 0);
    close(fd);
    write_file(path, encode_rig_body(f, i), d->n_bytes);
    assert_int_equal(pipe(pipe_fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipe_fds[1], 1);
        close(pipe_fds[0]);
        execl("/usr/bin/python3", "python3",
              TESTS_DIR "/support/decode_payload.py", kind_names[d->kind],
              encoding_names[d->encoding], path, (char *)NULL);
        _exit(127);
    }
    close(pipe_fds[1]);
    while ((n = read(pipe_fds[0], chunk, sizeof(chunk))) > 0)
        assert_int_equal(buf_append(out, chunk, (size_t)n), 0);
    close(pipe_fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    unlink(path);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- Items -------------------------------------------------------------- */

struct flush_item encode_rig_rate(const struct view *tags, uint32_t n_tags,
                                  const struct flush_point *points, uint32_t n)
{
    return (struct flush_item){
        .kind = FLUSH_SERIES,
        .n_samples = 1,
        .name = V("a.b"),
        .host = V("h1"),
        .tags = tags,
        .n_tags = n_tags,
        .interval_s = 10,
        .series = {{"", SERIES_RATE, "", points, n}},
        .n_series = 1,
    };
}
