/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder against golden bytes, and against an independent decoder
 * (tests/support/decode_payload.py, run as a process of its own).
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/buf.h"
#include "forwarder/compress.h"
#include "forwarder/encode.h"
#include "forwarder/encode_items.h"
#include "forwarder/split.h"

#define V(s) ((struct view){s, sizeof(s) - 1})
#define TS 1600000000

/* ---- A part made of an array of items ----------------------------------- */

struct part_iter {
    const struct flush_item *items;
    size_t n, at;
    size_t enomem_at; /* 1-based; 0 = never */
};

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

/* ---- Fixture ------------------------------------------------------------ */

struct fixture {
    struct region r;
    struct store *s;
    struct encoder *e;
    struct encode_config cfg;
    struct encode_result result;
};

static void open_store(struct fixture *f, size_t max_bytes)
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

static int encode(struct fixture *f, const struct flush_item *items, size_t n)
{
    struct part_iter it = {.items = items, .n = n};

    encoder_close(f->e);
    f->e = NULL;
    assert_int_equal(encoder_create(&f->e, f->s, &f->cfg), 0);
    return encoder_run(f->e, &it, false, &f->result);
}

static void close_all(struct fixture *f)
{
    encoder_close(f->e);
    store_close(f->s);
    region_close(&f->r);
}

static const unsigned char *body_of(struct fixture *f, size_t i)
{
    return store_block_bytes(f->s, f->result.drafts[i].block);
}

static uint64_t samples_of(const struct encode_result *r)
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

/* What the decoder prints about the body of draft @i. */
static void decode_draft(struct fixture *f, size_t i, struct buf *out)
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
    write_file(path, body_of(f, i), d->n_bytes);
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

/* All drafts of the result decode to the text of a golden file. */
static void assert_decodes_to(struct fixture *f, const char *golden)
{
    char path[256];
    struct buf got, want;
    char chunk[4096];
    size_t n;
    FILE *file;

    buf_init(&got, 1u << 24);
    buf_init(&want, 1u << 24);
    for (size_t i = 0; i < f->result.n_drafts; i++)
        decode_draft(f, i, &got);
    snprintf(path, sizeof(path), TESTS_DIR "/golden/payloads/%s", golden);
    file = fopen(path, "r");
    assert_non_null(file);
    while ((n = fread(chunk, 1, sizeof(chunk), file)) > 0)
        assert_int_equal(buf_append(&want, chunk, n), 0);
    fclose(file);
    assert_string_equal(buf_cstr(&got), buf_cstr(&want));
    buf_fini(&got);
    buf_fini(&want);
}

static void assert_hex(const void *p, size_t n, const char *hex)
{
    char got[512];

    assert_true(2 * n < sizeof(got));
    for (size_t i = 0; i < n; i++)
        snprintf(got + 2 * i, 3, "%02x", ((const unsigned char *)p)[i]);
    assert_string_equal(got, hex);
}

/* ---- Items -------------------------------------------------------------- */

static struct flush_item rate_item(const struct view *tags, uint32_t n_tags,
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

static void a_series_has_the_agents_bytes(void **state)
{
    static const struct view tags[] = {{"x:1", 3}};
    static const struct flush_point point = {TS, 2.5, 0};
    struct flush_item item = rate_item(tags, 1, &point, 1);
    struct fixture f;

    (void)state;
    open_store(&f, 1u << 20);
    assert_int_equal(encode(&f, &item, 1), 0);
    assert_int_equal(f.result.n_drafts, 1);
    assert_int_equal(f.result.drafts[0].load.n_points, 1);
    assert_hex(body_of(&f, 0), f.result.drafts[0].n_bytes,
               "0a330a0a0a04686f7374120268311203612e621a03783a312802400a220f10"
               "80a0f8fa050900000000000004404a060a04200a280a");
    close_all(&f);
}

static void a_sketch_has_the_agents_bytes(void **state)
{
    static const struct view tags[] = {{"x:1", 3}};
    static const int32_t k[] = {1338, 1383, 1409};
    static const uint32_t n[] = {1, 1, 1};
    struct flush_item item = {
        .kind = FLUSH_SKETCH,
        .n_samples = 3,
        .name = V("a.d"),
        .host = V("h1"),
        .tags = tags,
        .n_tags = 1,
        .ts_s = TS,
        .cnt = 3,
        .min = 1,
        .max = 3,
        .avg = 2,
        .sum = 6,
        .k = k,
        .n = n,
        .n_bins = 3,
    };
    struct fixture f;

    (void)state;
    open_store(&f, 1u << 20);
    assert_int_equal(encode(&f, &item, 1), 0);
    assert_hex(body_of(&f, 0), f.result.drafts[0].n_bytes,
               "0a510a03612e64120268312203783a313a390880a0f8fa0510031900000000"
               "0000f03f2100000000000008402900000000000000403100000000000018403"
               "a06f414ce158216420301010142060a04200a280a1200");
    assert_int_equal(f.result.drafts[0].load.n_samples, 3);
    close_all(&f);
}

static void the_decoder_reads_series_with_all_they_can_have(void **state)
{
    static const struct view tags[] = {
        {"dd.internal.resource:", 21},
        {"dd.internal.resource:pod:", 25},
        {"dd.internal.resource:pod:a:b", 28},
        {"device:", 7},
        {"device:sda", 10},
        {"device:sdb", 10},
        {"env:prod", 8},
        {"stra\xc3\x9f"
         "e:\xe2\x82\xac",
         11},
    };
    static const struct flush_point points[] = {{TS, 2.5, 0},
                                                {TS + 10, 0, 0},
                                                {TS + 20, -1e300, 0}};
    struct flush_item items[4] = {
        rate_item(tags, 8, points, 3),
        rate_item(NULL, 0, &points[1], 1),
        rate_item(tags + 6, 1, points, 1),
        rate_item(tags + 4, 1, points, 1),
    };
    struct fixture f;

    (void)state;
    items[1].host = (struct view){NULL, 0};
    items[2].n_series = 3;
    items[2].series[0] =
        (struct flush_series){".max", SERIES_GAUGE, "millisecond", points, 1};
    items[2].series[1] = (struct flush_series){".95percentile", SERIES_GAUGE,
                                               "millisecond", points + 2, 1};
    items[2].series[2] =
        (struct flush_series){".count", SERIES_RATE, "", points, 1};
    open_store(&f, 1u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        f.cfg.encoding = (enum payload_encoding)enc;
        assert_int_equal(encode(&f, items, 4), 0);
        assert_int_equal(f.result.n_drafts, 1);
        assert_int_equal(f.result.drafts[0].load.n_points, 8);
        assert_decodes_to(&f, "series.txt");
    }
    close_all(&f);
}

static void the_decoder_reads_sketches(void **state)
{
    static const struct view tags[] = {{"device:sda", 10}, {"env:x", 5}};
    static const int32_t k[] = {-32767, -1338, 0, 1, 1338, 32767, 32767};
    static const uint32_t n[] = {1, 2, 3, 127, 128, 5, 65535};
    struct flush_item items[2] = {{
        .kind = FLUSH_SKETCH,
        .n_samples = 65801,
        .name = V("d.all"),
        .tags = tags,
        .n_tags = 2,
        .ts_s = TS,
        .cnt = 65801,
        .min = -1e9,
        .max = 1e9,
        .avg = 0.1,
        .sum = 6580.1,
        .k = k,
        .n = n,
        .n_bins = 7,
    }};
    struct fixture f;

    (void)state;
    items[1] = items[0];
    items[1].host = V("h2");
    items[1].n_tags = 0;
    items[1].min = items[1].max = items[1].avg = items[1].sum = 0;
    items[1].n_bins = 1;
    open_store(&f, 1u << 20);
    f.cfg.encoding = ENCODING_ZSTD;
    assert_int_equal(encode(&f, items, 2), 0);
    assert_int_equal(f.result.drafts[0].load.n_points, 2);
    assert_decodes_to(&f, "sketches.txt");
    close_all(&f);
}

static void the_decoder_reads_events_one_payload_per_source(void **state)
{
    static const struct view tags[] = {{"a:\"q\"", 5}, {"b", 1}};
    struct flush_item items[4] = {
        {.kind = FLUSH_EVENT,
         .name = V("title \x01 \\ \" / \x7f"),
         .text = V("line\nline\ttab \xe2\x82\xac \xf0\x9f\x90\x95"),
         .host = V("h1"),
         .ts_s = TS},
        {.kind = FLUSH_EVENT,
         .name = V("t2"),
         .text = V(""),
         .host = V(""),
         .ts_s = TS + 1,
         .priority = EVENT_LOW,
         .alert = EVENT_SUCCESS,
         .aggregation_key = V("k"),
         .tags = tags,
         .n_tags = 2},
        {.kind = FLUSH_EVENT,
         .name = V("t3"),
         .text = V("x"),
         .host = V("h"),
         .ts_s = TS,
         .alert = EVENT_ERROR,
         .source_type = V("nagios\"")},
        {.kind = FLUSH_EVENT,
         .name = V("t4"),
         .text = V("x"),
         .host = V("h"),
         .ts_s = TS,
         .alert = EVENT_WARNING,
         .source_type = V("nagios\"")},
    };
    struct fixture f;

    (void)state;
    open_store(&f, 1u << 20);
    f.cfg.encoding = ENCODING_DEFLATE;
    assert_int_equal(encode(&f, items, 4), 0);
    assert_int_equal(f.result.n_drafts, 2);
    assert_int_equal(f.result.drafts[0].load.n_events, 2);
    assert_int_equal(f.result.drafts[1].load.n_events, 2);
    assert_decodes_to(&f, "events.txt");
    close_all(&f);
}

/* Source types come from clients; the limits from the configuration. */
static void an_event_whose_envelope_does_not_fit_is_lost_alone(void **state)
{
    static char source[500];
    struct flush_item items[4];
    struct fixture f;

    (void)state;
    memset(source, 's', sizeof(source));
    for (int i = 0; i < 4; i++)
        items[i] = (struct flush_item){.kind = FLUSH_EVENT,
                                       .name = V("t"),
                                       .text = V("x"),
                                       .host = V("h"),
                                       .ts_s = TS};
    items[1].source_type = items[2].source_type =
        (struct view){source, sizeof(source)};
    items[3].source_type = V("z");
    open_store(&f, 1u << 20);
    f.cfg.limits[PAYLOAD_EVENTS].max_raw_bytes = 400;
    assert_int_equal(encode(&f, items, 4), 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, DROP_TOO_LARGE);
    assert_int_equal(f.result.losses[0].load.n_events, 2);
    assert_int_equal(f.result.n_drafts, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct payload_draft *d = &f.result.drafts[i];

        assert_int_equal(d->load.n_events, 1);
        assert_memory_equal(body_of(&f, i), "{\"apiKey\"", 9);
        assert_int_equal(body_of(&f, i)[d->n_bytes - 1], '}');
    }
    close_all(&f);
}

static void the_decoder_reads_checks(void **state)
{
    static const char first[] =
        "[{\"check\":\"n\",\"host_name\":\"\",\"timestamp\":1,\"status\":0,"
        "\"message\":\"\",\"tags\":null},";
    static const struct view tags[] = {{"x:1", 3}, {"y", 1}};
    struct flush_item items[2] = {
        {.kind = FLUSH_CHECK, .name = V("n"), .ts_s = 1},
        {.kind = FLUSH_CHECK,
         .name = V("app.ok"),
         .host = V("h1"),
         .text = V("it \"works\"\n"),
         .status = 2,
         .ts_s = TS,
         .tags = tags,
         .n_tags = 2},
    };
    struct fixture f;

    (void)state;
    open_store(&f, 1u << 20);
    assert_int_equal(encode(&f, items, 2), 0);
    assert_int_equal(f.result.n_drafts, 1);
    assert_int_equal(f.result.drafts[0].load.n_checks, 2);
    assert_memory_equal(body_of(&f, 0), first, sizeof(first) - 1);
    assert_decodes_to(&f, "checks.txt");
    close_all(&f);
}

/* ---- Limits ------------------------------------------------------------- */

struct crowd {
    struct flush_item *items;
    struct view *tags;
    struct flush_point *points;
    char *text;
    size_t n;
    uint64_t n_samples;
};

/* @n series with two tags each; @noise: tags that do not compress. */
static struct crowd make_crowd(size_t n, bool noise)
{
    struct crowd c = {
        .items = calloc(n, sizeof(*c.items)),
        .tags = calloc(2 * n, sizeof(*c.tags)),
        .points = calloc(n, sizeof(*c.points)),
        .text = calloc(n, 128),
        .n = n,
    };
    uint64_t x = 88172645463325252u;

    for (size_t i = 0; i < n; i++) {
        char *at = c.text + 128 * i;
        int len = snprintf(at, 128, "request_id:");

        for (int k = 0; k < 40; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            at[len++] = noise ? "0123456789abcdefghijklmnopqrstuv"
                                "wxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[x % 64]
                              : 'a';
        }
        len += snprintf(at + len, 128 - (size_t)len, "%zu", i);
        c.tags[2 * i] = V("env:prod");
        c.tags[2 * i + 1] = (struct view){at, (uint32_t)len};
        c.points[i] = (struct flush_point){TS, (double)(x % 1000), 0};
        c.items[i] = rate_item(&c.tags[2 * i], 2, &c.points[i], 1);
        c.items[i].n_samples = x % 50;
        c.n_samples += c.items[i].n_samples;
    }
    return c;
}

static void free_crowd(struct crowd *c)
{
    free(c->items);
    free(c->tags);
    free(c->points);
    free(c->text);
}

static void give_back(struct fixture *f)
{
    for (size_t i = 0; i < f->result.n_drafts; i++) {
        const struct payload_draft *d = &f->result.drafts[i];

        store_block_trim(f->s, d->block, (size_t)d->n_bytes + d->n_index_bytes,
                         0);
    }
    f->result.n_drafts = 0;
}

static void assert_within_limits(struct fixture *f, enum payload_kind kind)
{
    const struct encode_limits *l = &f->cfg.limits[kind];

    for (size_t i = 0; i < f->result.n_drafts; i++) {
        const struct payload_draft *d = &f->result.drafts[i];
        unsigned char *raw = malloc(d->n_raw_bytes + 1u);

        assert_true(d->n_bytes <= l->max_bytes);
        assert_true(d->n_raw_bytes <= l->max_raw_bytes);
        assert_true(l->max_points == 0 || d->load.n_points <= l->max_points);
        assert_int_equal(decompress(d->encoding, body_of(f, i), d->n_bytes, raw,
                                    d->n_raw_bytes),
                         0);
        free(raw);
    }
}

static void no_payload_exceeds_a_limit_and_most_come_near_it(void **state)
{
    static const struct encode_limits limits[] = {
        {20000, 5000000, 0},   /* compressed size */
        {512000, 5242880, 0},  /* as it is by default, without points */
        {512000, 100000, 0},   /* raw size */
        {512000, 5242880, 500} /* points */
    };
    struct crowd noisy = make_crowd(12000, true);
    struct fixture f;

    (void)state;
    open_store(&f, 16u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        for (size_t l = 0; l < 4; l++) {
            uint64_t n_points = 0;
            size_t n_full = 0;

            f.cfg.encoding = (enum payload_encoding)enc;
            f.cfg.limits[PAYLOAD_SERIES] = limits[l];
            assert_int_equal(encode(&f, noisy.items, noisy.n), 0);
            assert_int_equal(f.result.n_losses, 0);
            assert_int_equal(samples_of(&f.result), noisy.n_samples);
            assert_within_limits(&f, PAYLOAD_SERIES);
            for (size_t i = 0; i < f.result.n_drafts; i++) {
                const struct payload_draft *d = &f.result.drafts[i];

                n_points += d->load.n_points;
                n_full += d->n_bytes >= limits[l].max_bytes / 10 * 9 ||
                          d->n_raw_bytes >= limits[l].max_raw_bytes - 200 ||
                          d->load.n_points == limits[l].max_points;
            }
            assert_int_equal(n_points, noisy.n);
            assert_true(n_full + 1 >= f.result.n_drafts);
            give_back(&f);
        }
    }
    free_crowd(&noisy);
    close_all(&f);
}

static void an_item_too_large_for_any_payload_is_lost_alone(void **state)
{
    struct crowd c = make_crowd(3, true);
    char *text = malloc(60000);
    struct view tag = {text, 60000};
    struct fixture f;

    (void)state;
    for (unsigned i = 0; i < 60000; i++)
        text[i] = c.text[(i * i + 7) % 300];
    c.items[1].tags = &tag;
    c.items[1].n_tags = 1;
    c.items[1].n_samples = 7;
    open_store(&f, 1u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        f.cfg.encoding = (enum payload_encoding)enc;
        f.cfg.limits[PAYLOAD_SERIES].max_bytes = 300;
        assert_int_equal(encode(&f, c.items, 3), 0);
        assert_int_equal(f.result.n_losses, 1);
        assert_int_equal(f.result.losses[0].cause, DROP_TOO_LARGE);
        assert_int_equal(f.result.losses[0].load.n_samples, 7);
        assert_int_equal(f.result.losses[0].load.n_points, 1);
        assert_true(f.result.n_drafts >= 1);
        assert_within_limits(&f, PAYLOAD_SERIES);
        give_back(&f);
    }
    /* Above the limit as it is, below it when compressed. */
    memset(text, 'z', 60000);
    assert_int_equal(encode(&f, c.items + 1, 1), 0);
    assert_int_equal(f.result.n_losses, 0);
    assert_int_equal(f.result.n_drafts, 1);
    free(text);
    free_crowd(&c);
    close_all(&f);
}

static void a_series_of_many_points_is_split_by_points(void **state)
{
    enum { N = 25001 };
    struct flush_point *points = calloc(N, sizeof(*points));
    struct flush_item items[2] = {rate_item(NULL, 0, points, N),
                                  rate_item(NULL, 0, points, 1)};
    struct fixture f;
    uint64_t n_points = 0;

    (void)state;
    for (int i = 0; i < N; i++)
        points[i] = (struct flush_point){TS + i, i, 2};
    items[0].n_samples = 2 * N;
    open_store(&f, 8u << 20);
    f.cfg.encoding = ENCODING_ZSTD;
    assert_int_equal(encode(&f, items, 2), 0);
    assert_int_equal(f.result.n_losses, 0);
    assert_int_equal(f.result.n_drafts, 3);
    assert_within_limits(&f, PAYLOAD_SERIES);
    for (size_t i = 0; i < 3; i++)
        n_points += f.result.drafts[i].load.n_points;
    assert_int_equal(n_points, N + 1);
    assert_int_equal(f.result.drafts[0].load.n_samples, 20000);
    assert_int_equal(samples_of(&f.result), 2 * N + 1);
    give_back(&f);
    /* By bytes too, down to what fits. */
    f.cfg.encoding = ENCODING_NONE;
    f.cfg.limits[PAYLOAD_SERIES].max_bytes = 4000;
    assert_int_equal(encode(&f, items, 1), 0);
    assert_int_equal(f.result.n_losses, 0);
    assert_int_equal(samples_of(&f.result), 2 * N);
    assert_within_limits(&f, PAYLOAD_SERIES);
    free(points);
    close_all(&f);
}

static void without_a_key_everything_is_counted_as_that(void **state)
{
    struct crowd c = make_crowd(100, false);
    struct fixture f;

    (void)state;
    open_store(&f, 1u << 20);
    f.cfg.have_endpoint = false;
    assert_int_equal(encode(&f, c.items, c.n), 0);
    assert_int_equal(f.result.n_drafts, 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, DROP_NO_API_KEY);
    assert_int_equal(f.result.losses[0].load.n_samples, c.n_samples);
    free_crowd(&c);
    close_all(&f);
}

static void samples_without_a_series_need_no_payload(void **state)
{
    static const struct flush_point point = {TS, 1, 0};
    struct flush_item item = rate_item(NULL, 0, &point, 1);
    struct fixture f;

    (void)state;
    item.n_series = 0;
    item.n_samples = 9;
    open_store(&f, 1u << 20);
    assert_int_equal(encode(&f, &item, 1), 0);
    assert_int_equal(f.result.n_drafts, 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, STORE_NOTHING_DUE);
    store_commit_part(f.s, 1, NULL, 0, f.result.losses, 1);
    assert_int_equal(store_counts(f.s)->delivered, 9);
    close_all(&f);
}

static int make_room(void *arg, size_t n)
{
    struct fixture *f = arg;

    return store_evict(f->s, n);
}

static void a_full_store_loses_the_oldest_and_names_it(void **state)
{
    struct crowd c = make_crowd(3000, true);
    struct fixture f;
    uint64_t dropped;
    struct store_stats st;

    (void)state;
    open_store(&f, 1u << 18); /* 256 KiB for about 280 KiB */
    assert_int_equal(encode(&f, c.items, c.n), 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, DROP_EVICTED);
    assert_int_equal(samples_of(&f.result), c.n_samples);
    store_commit_part(f.s, 1, f.result.drafts, f.result.n_drafts,
                      f.result.losses, f.result.n_losses);
    dropped = store_counts(f.s)->dropped[DROP_EVICTED];
    f.cfg.make_room = make_room;
    f.cfg.arg = &f;
    assert_int_equal(encode(&f, c.items, 1500), 0);
    assert_int_equal(f.result.n_losses, 0);
    store_commit_part(f.s, 2, f.result.drafts, f.result.n_drafts, NULL, 0);
    assert_true(store_counts(f.s)->dropped[DROP_EVICTED] > dropped);
    store_stats(f.s, &st);
    assert_int_equal(st.accepted.n_samples,
                     st.load.n_samples +
                         store_counts(f.s)->dropped[DROP_EVICTED]);
    free_crowd(&c);
    close_all(&f);
}

static void memory_that_runs_out_in_the_middle_keeps_nothing(void **state)
{
    struct crowd c = make_crowd(3000, true);
    struct part_iter it = {.items = c.items, .n = c.n, .enomem_at = 2900};
    uint32_t block;
    struct fixture f;

    (void)state;
    open_store(&f, 1u << 20);
    assert_int_equal(encoder_create(&f.e, f.s, &f.cfg), 0);
    assert_int_equal(encoder_run(f.e, &it, false, &f.result), -ENOMEM);
    /* Every block is free again. */
    assert_int_equal(store_block_alloc(f.s, 1u << 20, &block), 0);
    store_block_trim(f.s, block, 1u << 20, 0);
    it = (struct part_iter){.items = c.items, .n = c.n};
    assert_int_equal(encoder_run(f.e, &it, true, &f.result), 0);
    assert_int_equal(samples_of(&f.result), c.n_samples);
    free_crowd(&c);
    close_all(&f);
}

static void halves_of_a_split_decode_to_the_same_items(void **state)
{
    struct flush_item items[9] = {{0}};
    struct fixture f;

    (void)state;
    for (int i = 0; i < 9; i++)
        items[i] = (struct flush_item){.kind = FLUSH_EVENT,
                                       .name = {"012345678" + i, 1},
                                       .text = V("split me"),
                                       .host = V("h"),
                                       .ts_s = TS};
    open_store(&f, 1u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        struct payload *whole, *half;
        struct buf before, after;
        uint64_t n_events;

        f.cfg.encoding = (enum payload_encoding)enc;
        assert_int_equal(encode(&f, items, 9), 0);
        buf_init(&before, 1u << 20);
        buf_init(&after, 1u << 20);
        decode_draft(&f, 0, &before);
        store_commit_part(f.s, store_encoded_seq(f.s) + 1, f.result.drafts, 1,
                          NULL, 0);
        whole = store_take(f.s);
        assert_int_equal(store_split(f.s, whole), 0);
        n_events = 0;
        for (int i = 0; i < 2; i++) {
            struct buf both;

            half = store_take(f.s);
            n_events += half->load.n_events;
            assert_true(half->load.n_events >= 4);
            f.result.drafts[0].kind = half->kind;
            f.result.drafts[0].encoding = half->encoding;
            f.result.drafts[0].n_bytes = half->n_bytes;
            f.result.drafts[0].block =
                (uint32_t)(((const unsigned char *)half->body -
                            (unsigned char *)store_block_bytes(f.s, 0)) /
                           4096);
            /* The second half is taken first. */
            buf_init(&both, 1u << 20);
            decode_draft(&f, 0, &both);
            if (after.n > 0)
                buf_append(&both, after.data, after.n);
            buf_fini(&after);
            after = both;
            store_settle_delivered(f.s, half);
        }
        assert_int_equal(n_events, 9);
        assert_string_equal(buf_cstr(&after), buf_cstr(&before));
        buf_fini(&before);
        buf_fini(&after);
    }
    close_all(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_series_has_the_agents_bytes),
        cmocka_unit_test(a_sketch_has_the_agents_bytes),
        cmocka_unit_test(the_decoder_reads_series_with_all_they_can_have),
        cmocka_unit_test(the_decoder_reads_sketches),
        cmocka_unit_test(the_decoder_reads_events_one_payload_per_source),
        cmocka_unit_test(the_decoder_reads_checks),
        cmocka_unit_test(an_event_whose_envelope_does_not_fit_is_lost_alone),
        cmocka_unit_test(no_payload_exceeds_a_limit_and_most_come_near_it),
        cmocka_unit_test(an_item_too_large_for_any_payload_is_lost_alone),
        cmocka_unit_test(a_series_of_many_points_is_split_by_points),
        cmocka_unit_test(without_a_key_everything_is_counted_as_that),
        cmocka_unit_test(samples_without_a_series_need_no_payload),
        cmocka_unit_test(a_full_store_loses_the_oldest_and_names_it),
        cmocka_unit_test(memory_that_runs_out_in_the_middle_keeps_nothing),
        cmocka_unit_test(halves_of_a_split_decode_to_the_same_items),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
