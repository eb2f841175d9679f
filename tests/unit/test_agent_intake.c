/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/buf.h"
#include "agent/intake_receive.h"
#include "agent/intake_report.h"

#define NOW_S 1600000000
#define MIB (1u << 20)

/* Series a.b (rate 2.5, host h1, x:1) and sketch a.d ({1, 2, 3}, same host and
 * tag) in the byte order of fields
 * that the Agent writes. */
static const char series_hex[] =
    "0a330a0a0a04686f7374120268311203612e621a03783a312802400a220f1080a0f8fa05"
    "0900000000000004404a060a04200a280a";
static const char sketch_hex[] =
    "0a510a03612e64120268312203783a313a390880a0f8fa05100319000000000000f03f21"
    "00000000000008402900000000000000403100000000000018403a06f414ce1582164203"
    "01010142060a04200a280a1200";

static size_t unhex(uint8_t *out, const char *hex)
{
    size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++) {
        unsigned v;

        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (uint8_t)v;
    }
    return n;
}

static int setup(void **state)
{
    struct intake *in = malloc(sizeof(*in));

    if (in == NULL || intake_init(in, 64 * MIB, 1) != 0)
        return -1;
    *state = in;
    return 0;
}

static int teardown(void **state)
{
    intake_fini(*state);
    free(*state);
    return 0;
}

static unsigned give(struct intake *in, enum intake_route route,
                     const char *type, const void *body, size_t n)
{
    struct intake_request r = {.route = route,
                               .content_type = type,
                               .body = body,
                               .n_body = n,
                               .now_s = NOW_S};

    return intake_receive(in, &r);
}

/* One series in JSON (v2) with the members @more, beside a good one. */
static unsigned give_v2(struct intake *in, const char *more)
{
    char text[8192];
    int n = snprintf(text, sizeof(text),
                     "{\"series\":[{\"metric\":\"good\",\"type\":1,\"points\":"
                     "[{\"timestamp\":%d,\"value\":1}]},{%s}]}",
                     NOW_S, more);

    assert_in_range(n, 1, sizeof(text) - 1);
    return give(in, INTAKE_ROUTE_SERIES_V2, "application/json", text,
                (size_t)n);
}

static char *totals(struct intake *in)
{
    struct buf b;

    buf_init(&b, MIB);
    assert_int_equal(intake_report_totals(in, &b), 0);
    return b.data;
}

static void has(struct intake *in, const char *part)
{
    char *text = totals(in);

    if (strstr(text, part) == NULL)
        fail_msg("no %s in %s", part, text);
    free(text);
}

static void takes_the_agents_protobuf(void **state)
{
    struct intake *in = *state;
    uint8_t body[200];
    size_t n = unhex(body, series_hex);

    assert_int_equal(give(in, INTAKE_ROUTE_SERIES_V2, "application/x-protobuf",
                          body, n),
                     202);
    n = unhex(body, sketch_hex);
    assert_int_equal(give(in, INTAKE_ROUTE_SKETCHES, "application/x-protobuf",
                          body, n),
                     202);
    has(in,
        "\"a.b\":{\"type\":\"rate\",\"contexts\":1,\"points\":1,\"sum\":25}");
    has(in,
        "\"a.d\":{\"type\":\"sketch\",\"contexts\":1,\"points\":1,\"sum\":6,"
        "\"count\":3,\"min\":1,\"max\":3}");
    has(in, "\"errors\":[]");
}

static void every_prefix_of_a_payload_is_judged_without_harm(void **state)
{
    struct intake *in = *state;
    const char *const hexes[] = {series_hex, sketch_hex};
    uint8_t body[200];

    for (size_t k = 0; k < 2; k++) {
        size_t n = unhex(body, hexes[k]);

        for (size_t i = 1; i < n; i++) {
            uint8_t *part = malloc(i); /* a read past its end is seen */

            assert_non_null(part);
            memcpy(part, body, i);
            (void)give(in,
                       k == 0 ? INTAKE_ROUTE_SERIES_V2 : INTAKE_ROUTE_SKETCHES,
                       "application/x-protobuf", part, i);
            free(part);
        }
    }
    assert_true(in->n_refused > 0);
}

#define POINT "\"points\":[{\"timestamp\":1600000000,\"value\":1}]"

static void refuses_a_payload_with_one_bad_series_as_a_whole(void **state)
{
    struct intake *in = *state;
    static const char *const bad[] = {
        POINT,
        "\"metric\":\"\"," POINT,
        "\"metric\":\"12.3\"," POINT,
        "\"metric\":5," POINT,
        "\"metric\":\"m\",\"points\":[]",
        "\"metric\":\"m\"",
        "\"metric\":\"m\",\"points\":[{\"timestamp\":1600000601,\"value\":1}]",
        "\"metric\":\"m\",\"points\":[{\"timestamp\":0,\"value\":1}]",
        "\"metric\":\"m\",\"points\":[{\"timestamp\":1.5,\"value\":1}]",
        "\"metric\":\"m\",\"points\":[{\"timestamp\":1600000000}]",
        "\"metric\":\"m\",\"points\":[{\"timestamp\":1600000000,"
        "\"value\":1e999}]",
        "\"metric\":\"m\",\"points\":[{\"timestamp\":1600000000,"
        "\"value\":null}]",
        "\"metric\":\"m\",\"type\":4," POINT,
        "\"metric\":\"m\",\"type\":-1," POINT,
        "\"metric\":\"m\",\"tags\":[\"device:sda\"]," POINT,
        "\"metric\":\"m\",\"tags\":[\"dd.internal.resource:a:b\"]," POINT,
        "\"metric\":\"m\",\"tags\":[1]," POINT,
        "\"metric\":\"m\",\"tags\":\"a:b\"," POINT,
        "\"metric\":\"m\",\"interval\":-1," POINT,
        "\"metric\":\"m\xff\"," POINT,
        "\"metric\":\"m\",\"tags\":[\"a:\\ud800\"]," POINT,
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (give_v2(in, bad[i]) != 400)
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(in->n_refused, i + 1);
        assert_int_equal(in->n_errors, i + 1);
    }
    assert_int_equal(in->store.n_points, 0);
    assert_int_equal(give_v2(in, "\"metric\":\"m\",\"points\":[{\"timestamp\":"
                                 "1600000600,\"value\":1}]"),
                     202);
    assert_int_equal(in->store.n_points, 2);
}

/* A value of @n bytes as the member @head ... @tail of a series. */
static unsigned give_long(struct intake *in, const char *head, size_t n,
                          const char *tail)
{
    char text[2000];
    size_t at = (size_t)snprintf(text, sizeof(text), "%s", head);

    memset(text + at, 'a', n);
    (void)snprintf(text + at + n, sizeof(text) - at - n, "%s", tail);
    return give_v2(in, text);
}

static void lengths_are_taken_up_to_their_limit(void **state)
{
    struct intake *in = *state;

    assert_int_equal(give_long(in, "\"metric\":\"", 350, "\"," POINT), 202);
    assert_int_equal(give_long(in, "\"metric\":\"", 351, "\"," POINT), 400);
    assert_int_equal(give_long(in, "\"metric\":\"m\",\"tags\":[\"", 200,
                               "\"]," POINT),
                     202);
    assert_int_equal(give_long(in, "\"metric\":\"m\",\"tags\":[\"", 201,
                               "\"]," POINT),
                     400);
    assert_int_equal(give_long(in,
                               "\"metric\":\"m\",\"resources\":[{\"type\":"
                               "\"host\",\"name\":\"",
                               255, "\"}]," POINT),
                     202);
    assert_int_equal(give_long(in,
                               "\"metric\":\"m\",\"resources\":[{\"type\":"
                               "\"host\",\"name\":\"",
                               256, "\"}]," POINT),
                     400);
}

static void tags_and_points_are_taken_up_to_their_number(void **state)
{
    struct intake *in = *state;

    for (int n_tags = 100; n_tags <= 101; n_tags++) {
        char text[2000] = "\"metric\":\"m\",\"tags\":[";

        for (int i = 0; i < n_tags; i++)
            (void)snprintf(text + strlen(text), 20, "%s\"t:%d\"",
                           i > 0 ? "," : "", i);
        (void)snprintf(text + strlen(text), 100, "]," POINT);
        assert_int_equal(give_v2(in, text), n_tags == 100 ? 202 : 400);
    }
    for (int n_points = 10000; n_points <= 10001; n_points++) {
        struct buf b;

        buf_init(&b, MIB);
        assert_int_equal(buf_puts(&b, "{\"series\":["), 0);
        for (int i = 0; i < n_points; i++)
            assert_int_equal(
                buf_printf(&b, "%s{\"metric\":\"p%d\",\"points\":[[%d,1]]}",
                           i > 0 ? "," : "", i % 3, NOW_S - i),
                0);
        assert_int_equal(buf_puts(&b, "]}"), 0);
        assert_int_equal(give(in, INTAKE_ROUTE_SERIES_V1, NULL, b.data, b.n),
                         n_points == 10000 ? 202 : 400);
        buf_fini(&b);
    }
}

static void the_last_point_of_an_identity_stays(void **state)
{
    struct intake *in = *state;

    assert_int_equal(
        give_v2(in, "\"metric\":\"My-Metric\",\"type\":1,\"tags\":[\"B:2\","
                    "\"a:1\",\"a:1\",\"\"]," POINT),
        202);
    /* Another type, order, case and spelling: the same identity. */
    assert_int_equal(
        give_v2(in, "\"metric\":\"My_Metric\",\"type\":3,\"tags\":[\"a:1\","
                    "\"b:2\"],\"points\":[{\"timestamp\":1600000000,\"value\":"
                    "7}]"),
        202);
    has(in, "\"replaced_points\":2,"); /* this one and "good" */
    has(in, "\"My_Metric\":{\"type\":\"gauge\",\"contexts\":1,\"points\":1,"
            "\"sum\":7}");
    /* Another host or device: another series. */
    assert_int_equal(
        give_v2(in, "\"metric\":\"My_Metric\",\"type\":3,\"resources\":[{"
                    "\"type\":\"host\",\"name\":\"h\"}],\"tags\":[\"a:1\","
                    "\"b:2\"]," POINT),
        202);
    assert_int_equal(
        give_v2(in, "\"metric\":\"My_Metric\",\"type\":3,\"resources\":[{"
                    "\"type\":\"device\",\"name\":\"h\"}],\"tags\":[\"a:1\","
                    "\"b:2\"]," POINT),
        202);
    has(in, "\"contexts\":3,\"points\":3,\"sum\":9}");
}

static void points_stay_in_order_whatever_the_order_of_arrival(void **state)
{
    struct intake *in = *state;
    const struct stored_series *e = NULL;

    for (int i = 0; i < 500; i++) {
        char text[100];

        (void)snprintf(text, sizeof(text),
                       "{\"series\":[{\"metric\":\"m\",\"points\":[[%d,%d]]}]}",
                       NOW_S - (i * 7919) % 500, i);
        assert_int_equal(give(in, INTAKE_ROUTE_SERIES_V1, NULL, text,
                              strlen(text)),
                         202);
    }
    for (size_t i = 0; i < in->store.cap_series; i++) {
        if (in->store.table[i] != NULL)
            e = in->store.table[i];
    }
    assert_non_null(e);
    assert_int_equal(e->n_points, 500);
    for (size_t i = 1; i < 500; i++)
        assert_true(e->points[i].ts_s == e->points[i - 1].ts_s + 1);
}

static void a_sketch_replaces_a_series_and_back(void **state)
{
    struct intake *in = *state;
    uint8_t body[200];
    size_t n = unhex(body, sketch_hex);
    static const char count[] =
        "{\"series\":[{\"metric\":\"a.d\",\"host\":\"h1\",\"type\":\"count\","
        "\"tags\":[\"x:1\"],\"points\":[[1600000000,4]]}]}";

    assert_int_equal(give(in, INTAKE_ROUTE_SERIES_V1, NULL, count,
                          strlen(count)),
                     202);
    assert_int_equal(give(in, INTAKE_ROUTE_SKETCHES, "application/x-protobuf",
                          body, n),
                     202);
    has(in,
        "\"a.d\":{\"type\":\"sketch\",\"contexts\":1,\"points\":1,\"sum\":6,");
    assert_int_equal(give(in, INTAKE_ROUTE_SERIES_V1, NULL, count,
                          strlen(count)),
                     202);
    has(in,
        "\"a.d\":{\"type\":\"count\",\"contexts\":1,\"points\":1,\"sum\":4}");
    has(in, "\"replaced_points\":2,");
}

static void a_sketch_must_add_up(void **state)
{
    struct intake *in = *state;
    uint8_t body[200];
    size_t n = unhex(body, sketch_hex);
    /* cnt, max, the first key, one bin's count, its length */
    static const struct {
        size_t at;
        uint8_t byte;
    } change[] = {{25, 4}, {43, 0xc0}, {65, 0x16}, {72, 2}, {71, 2}};

    for (size_t i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
        uint8_t old = body[change[i].at];

        body[change[i].at] = change[i].byte;
        if (give(in, INTAKE_ROUTE_SKETCHES, "application/x-protobuf", body,
                 n) != 400)
            fail_msg("accepted change %zu", i);
        body[change[i].at] = old;
    }
    assert_int_equal(give(in, INTAKE_ROUTE_SKETCHES, "application/x-protobuf",
                          body, n),
                     202);
}

static void checks_and_events_are_counted_and_kept(void **state)
{
    struct intake *in = *state;
    static const char checks[] =
        "[{\"check\":\"c\",\"host_name\":\"h\",\"timestamp\":1,\"status\":0,"
        "\"message\":\"\",\"tags\":null},{\"check\":\"c\",\"status\":3}]";
    static const char events[] =
        "{\"apiKey\":\"\",\"events\":{\"api\":[{\"msg_title\":\"t\",\"msg_"
        "text\""
        ":\"x\",\"timestamp\":5,\"priority\":\"low\",\"host\":\"h\",\"tags\":["
        "\"a\"],\"alert_type\":\"error\"}]},\"internalHostname\":\"h\"}";
    struct buf b;

    assert_int_equal(give(in, INTAKE_ROUTE_CHECKS, NULL, checks,
                          strlen(checks)),
                     202);
    assert_int_equal(give(in, INTAKE_ROUTE_EVENTS, NULL, events,
                          strlen(events)),
                     202);
    has(in, "\"events\":1,\"checks\":2,");
    buf_init(&b, MIB);
    assert_int_equal(intake_report_series(in, &b), 0);
    assert_non_null(strstr(b.data, "\"events\":[{\"msg_title\":\"t\","));
    assert_non_null(strstr(b.data, "{\"check\":\"c\",\"status\":3}]"));
    buf_fini(&b);
}

static void bad_checks_and_events_are_refused(void **state)
{
    struct intake *in = *state;
    static const struct {
        enum intake_route route;
        const char *body;
    } bad[] = {
        {INTAKE_ROUTE_CHECKS, "[{\"check\":\"\",\"status\":0}]"},
        {INTAKE_ROUTE_CHECKS, "[{\"check\":\"c\",\"status\":4}]"},
        {INTAKE_ROUTE_CHECKS, "[{\"check\":\"c\"}]"},
        {INTAKE_ROUTE_CHECKS, "[1]"},
        {INTAKE_ROUTE_CHECKS,
         "[{\"check\":\"c\",\"status\":0},{\"check\":\"c\",\"tags\":5}]"},
        {INTAKE_ROUTE_EVENTS, "{}"},
        {INTAKE_ROUTE_EVENTS, "{\"events\":[]}"},
        {INTAKE_ROUTE_EVENTS, "{\"events\":{\"a\":{}}}"},
        {INTAKE_ROUTE_EVENTS, "{\"events\":{\"a\":[{\"msg_text\":\"x\"}]}}"},
        {INTAKE_ROUTE_EVENTS,
         "{\"events\":{\"a\":[{\"msg_title\":\"x\",\"priority\":\"high\"}]}}"},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (give(in, bad[i].route, NULL, bad[i].body, strlen(bad[i].body)) !=
            400)
            fail_msg("accepted: %s", bad[i].body);
    }
    has(in, "\"events\":0,\"checks\":0,");
}

static void content_types_are_told_apart(void **state)
{
    struct intake *in = *state;

    assert_int_equal(give(in, INTAKE_ROUTE_SKETCHES, "application/json", "{}",
                          2),
                     415);
    assert_int_equal(give(in, INTAKE_ROUTE_SERIES_V2, "text/html", "{}", 2),
                     415);
    assert_int_equal(give(in, INTAKE_ROUTE_CHECKS, "application/x-protobuf",
                          "[]", 2),
                     415);
    assert_int_equal(give(in, INTAKE_ROUTE_CHECKS, NULL, "[]", 2), 202);
}

static void routes_are_those_of_the_intake(void **state)
{
    (void)state;
    assert_int_equal(intake_route("/api/v2/series"), INTAKE_ROUTE_SERIES_V2);
    assert_int_equal(intake_route("/api/beta/sketches"), INTAKE_ROUTE_SKETCHES);
    assert_int_equal(intake_route("/intake/"), INTAKE_ROUTE_EVENTS);
    assert_int_equal(intake_route("/intake"), INTAKE_ROUTE_EVENTS);
    assert_int_equal(intake_route("/api/v2/series/"), -1);
    assert_int_equal(intake_route(""), -1);
}

static void a_full_store_refuses_and_keeps_what_it_has(void **state)
{
    struct intake in;
    char text[200];
    unsigned status = 202;
    int n = 0;

    (void)state;
    assert_int_equal(intake_init(&in, 200000, 1), 0);
    for (; status == 202 && n < 10000; n++) {
        (void)
            snprintf(text, sizeof(text),
                     "{\"series\":[{\"metric\":\"m%d\",\"points\":[[%d,1]]}]}",
                     n, NOW_S);
        status = give(&in, INTAKE_ROUTE_SERIES_V1, NULL, text, strlen(text));
    }
    assert_int_equal(status, 507);
    assert_in_range(n, 100, 2000);
    assert_int_equal(in.store.n_points, n - 1);
    assert_in_range(in.store.n_bytes, 1, 200000);
    intake_clear(&in);
    assert_int_equal(give(&in, INTAKE_ROUTE_SERIES_V1, NULL, text,
                          strlen(text)),
                     202);
    intake_fini(&in);
}

static unsigned differ(const char *expected, const char *actual)
{
    struct jsonread e, a;
    FILE *f = fopen("/dev/null", "we");
    unsigned n;

    assert_non_null(f);
    assert_int_equal(jsonread_parse(&e, expected, strlen(expected), 100), 0);
    assert_int_equal(jsonread_parse(&a, actual, strlen(actual), 100), 0);
    n = intake_report_differ(&e, jsonread_root(&e), &a, jsonread_root(&a), f);
    jsonread_fini(&e);
    jsonread_fini(&a);
    (void)fclose(f);
    return n;
}

static void expectations_are_subsets(void **state)
{
    (void)state;
    assert_int_equal(differ("{}", "{\"a\":1}"), 0);
    assert_int_equal(differ("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1,\"c\":2}}"),
                     0);
    assert_int_equal(differ("{\"a\":1}", "{\"b\":1}"), 1);
    assert_int_equal(differ("{\"a\":1}", "{\"a\":\"1\"}"), 1);
    assert_int_equal(differ("{\"a\":1,\"b\":2}", "{\"a\":2,\"b\":1}"), 2);
    assert_int_equal(differ("[1,2]", "[1,2,3]"), 1);
    assert_int_equal(differ("[]", "[1]"), 1);
    assert_int_equal(differ("1", "1.0000000000000002"), 0);
    assert_int_equal(differ("1", "1.00000000001"), 1);
    assert_int_equal(differ("true", "false"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_the_agents_protobuf, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            every_prefix_of_a_payload_is_judged_without_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(
            refuses_a_payload_with_one_bad_series_as_a_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(lengths_are_taken_up_to_their_limit,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            tags_and_points_are_taken_up_to_their_number, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_point_of_an_identity_stays,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            points_stay_in_order_whatever_the_order_of_arrival, setup,
            teardown),
        cmocka_unit_test_setup_teardown(a_sketch_replaces_a_series_and_back,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_sketch_must_add_up, setup, teardown),
        cmocka_unit_test_setup_teardown(checks_and_events_are_counted_and_kept,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(bad_checks_and_events_are_refused,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(content_types_are_told_apart, setup,
                                        teardown),
        cmocka_unit_test(routes_are_those_of_the_intake),
        cmocka_unit_test(a_full_store_refuses_and_keeps_what_it_has),
        cmocka_unit_test(expectations_are_subsets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
