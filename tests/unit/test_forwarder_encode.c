/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the encoder makes of items: against golden bytes, and against the independent
 * decoder.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarder/encode_items.h"
#include "tests/support/encode_rig.h"

/* All drafts of the result decode to the text of a golden file. */
static void assert_decodes_to(struct encode_rig *f, const char *golden)
{
    char path[256];
    struct buf got, want;
    char chunk[4096];
    size_t n;
    FILE *file;

    buf_init(&got, 1u << 24);
    buf_init(&want, 1u << 24);
    for (size_t i = 0; i < f->result.n_drafts; i++)
        encode_rig_decode(f, i, &got);
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

static void a_series_has_the_agents_bytes(void **state)
{
    static const struct view tags[] = {{"x:1", 3}};
    static const struct flush_point point = {TS, 2.5, 0};
    struct flush_item item = encode_rig_rate(tags, 1, &point, 1);
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 1u << 20);
    assert_int_equal(encode_rig_run(&f, &item, 1), 0);
    assert_int_equal(f.result.n_drafts, 1);
    assert_int_equal(f.result.drafts[0].load.n_points, 1);
    assert_hex(encode_rig_body(&f, 0), f.result.drafts[0].n_bytes,
               "0a330a0a0a04686f7374120268311203612e621a03783a312802400a220f10"
               "80a0f8fa050900000000000004404a060a04200a280a");
    encode_rig_close(&f);
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
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 1u << 20);
    assert_int_equal(encode_rig_run(&f, &item, 1), 0);
    assert_hex(encode_rig_body(&f, 0), f.result.drafts[0].n_bytes,
               "0a510a03612e64120268312203783a313a390880a0f8fa0510031900000000"
               "0000f03f2100000000000008402900000000000000403100000000000018403"
               "a06f414ce158216420301010142060a04200a280a1200");
    assert_int_equal(f.result.drafts[0].load.n_samples, 3);
    encode_rig_close(&f);
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
        encode_rig_rate(tags, 8, points, 3),
        encode_rig_rate(NULL, 0, &points[1], 1),
        encode_rig_rate(tags + 6, 1, points, 1),
        encode_rig_rate(tags + 4, 1, points, 1),
    };
    struct encode_rig f;

    (void)state;
    items[1].host = (struct view){NULL, 0};
    items[2].n_series = 3;
    items[2].series[0] =
        (struct flush_series){".max", SERIES_GAUGE, "millisecond", points, 1};
    items[2].series[1] = (struct flush_series){".95percentile", SERIES_GAUGE,
                                               "millisecond", points + 2, 1};
    items[2].series[2] =
        (struct flush_series){".count", SERIES_RATE, "", points, 1};
    encode_rig_open(&f, 1u << 20);
    for (int enc = ENCODING_NONE; enc <= ENCODING_ZSTD; enc++) {
        f.cfg.encoding = (enum payload_encoding)enc;
        assert_int_equal(encode_rig_run(&f, items, 4), 0);
        assert_int_equal(f.result.n_drafts, 1);
        assert_int_equal(f.result.drafts[0].load.n_points, 8);
        assert_decodes_to(&f, "series.txt");
    }
    encode_rig_close(&f);
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
    struct encode_rig f;

    (void)state;
    items[1] = items[0];
    items[1].host = V("h2");
    items[1].n_tags = 0;
    items[1].min = items[1].max = items[1].avg = items[1].sum = 0;
    items[1].n_bins = 1;
    encode_rig_open(&f, 1u << 20);
    f.cfg.encoding = ENCODING_ZSTD;
    assert_int_equal(encode_rig_run(&f, items, 2), 0);
    assert_int_equal(f.result.drafts[0].load.n_points, 2);
    assert_decodes_to(&f, "sketches.txt");
    encode_rig_close(&f);
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
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 1u << 20);
    f.cfg.encoding = ENCODING_DEFLATE;
    assert_int_equal(encode_rig_run(&f, items, 4), 0);
    assert_int_equal(f.result.n_drafts, 2);
    assert_int_equal(f.result.drafts[0].load.n_events, 2);
    assert_int_equal(f.result.drafts[1].load.n_events, 2);
    assert_decodes_to(&f, "events.txt");
    encode_rig_close(&f);
}

/* Source types come from clients; the limits from the configuration. */
static void an_event_whose_envelope_does_not_fit_is_lost_alone(void **state)
{
    static char source[500];
    struct flush_item items[4];
    struct encode_rig f;

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
    encode_rig_open(&f, 1u << 20);
    f.cfg.limits[PAYLOAD_EVENTS].max_raw_bytes = 400;
    assert_int_equal(encode_rig_run(&f, items, 4), 0);
    assert_int_equal(f.result.n_losses, 1);
    assert_int_equal(f.result.losses[0].cause, DROP_TOO_LARGE);
    assert_int_equal(f.result.losses[0].load.n_events, 2);
    assert_int_equal(f.result.n_drafts, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct payload_draft *d = &f.result.drafts[i];

        assert_int_equal(d->load.n_events, 1);
        assert_memory_equal(encode_rig_body(&f, i), "{\"apiKey\"", 9);
        assert_int_equal(encode_rig_body(&f, i)[d->n_bytes - 1], '}');
    }
    encode_rig_close(&f);
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
    struct encode_rig f;

    (void)state;
    encode_rig_open(&f, 1u << 20);
    assert_int_equal(encode_rig_run(&f, items, 2), 0);
    assert_int_equal(f.result.n_drafts, 1);
    assert_int_equal(f.result.drafts[0].load.n_checks, 2);
    assert_memory_equal(encode_rig_body(&f, 0), first, sizeof(first) - 1);
    assert_decodes_to(&f, "checks.txt");
    encode_rig_close(&f);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
