/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines read ahead are what dsd_parse() makes of them, in every form (that for AVX-512
 * is emulated), wherever they end: each packet here ends where memory does, and where
 * a page does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <unistd.h>

#include "aggregator/dsd_ahead.h"

#define MAX_LINES DSD_AHEAD_LINES
#define MAX_FORMS 8u
#define MAX_BYTES 1024u

extern const struct dsd_ahead_form dsd_ahead_scalar;
#if defined(__x86_64__)
extern const struct dsd_ahead_form dsd_ahead_emulated; /* AVX-512, by AVX2 */
#endif

static struct spelling_key key;
static _Alignas(64) const struct table_slot slots[TABLE_LINE];

struct fixture {
    struct dsd_parser parser;
    struct dsd_ahead_opts opts;
    const struct dsd_ahead_form *forms[MAX_FORMS];
    uint32_t n_forms;
    char *end; /* of two pages that can be read */
    char *middle;
    struct dsd_readable readable; /* both */
};

static struct fixture f;
static struct dsd_ahead_lines got[MAX_FORMS];

static void open_fixture(bool no_aggregation, bool origin_client)
{
    const struct dsd_parser_opts opts = {.max_line_bytes = MAX_BYTES,
                                         .no_aggregation = no_aggregation,
                                         .origin_client = origin_client};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mprotect(p + 2 * page, page, PROT_NONE), 0);
    spelling_key_init(&key, (const uint64_t[]){11, 13});
    memset(&f, 0, sizeof(f));
    assert_int_equal(dsd_parser_init(&f.parser, &opts), 0);
    f.opts = (struct dsd_ahead_opts){.parser = &f.parser.opts,
                                     .key = &key,
                                     .may_end_bare = true,
                                     .spellings = {slots, TABLE_LINE - 1, 0}};
    f.middle = p + page;
    f.end = p + 2 * page;
    f.readable = (struct dsd_readable){p, f.end};
    f.forms[f.n_forms++] = &dsd_ahead_scalar;
    for (unsigned i = 0; dsd_ahead_form(i) != NULL; i++)
        f.forms[f.n_forms++] = dsd_ahead_form(i);
#if defined(__x86_64__)
    if (dsd_ahead_form(1) != NULL) /* so it has AVX2 */
        f.forms[f.n_forms++] = &dsd_ahead_emulated;
    else
        print_message("without AVX2: the form for AVX-512 is not tested\n");
#endif
}

static void close_fixture(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    dsd_parser_fini(&f.parser);
    munmap(f.middle - page, 3 * page);
}

static void same_view(struct view x, struct view y)
{
    assert_int_equal(x.n, y.n);
    if (x.n > 0)
        assert_ptr_equal(x.p, y.p);
}

static void same(const struct dsd_ahead *x, const struct dsd_ahead *y)
{
    same_view(dsd_ahead_name(x), dsd_ahead_name(y));
    same_view(dsd_ahead_tags(x), dsd_ahead_tags(y));
    assert_int_equal(x->type, y->type);
    if (x->type == METRIC_SET)
        same_view(x->member, y->member);
    else
        assert_memory_equal(&x->value, &y->value, sizeof(x->value));
    assert_int_equal(x->is_rated, y->is_rated);
    if (x->is_rated)
        assert_true(x->rate == y->rate && x->bad_rate == y->bad_rate);
    assert_int_equal(x->n_bytes, y->n_bytes);
}

static void as_parsed(const struct dsd_ahead *d, const char *line, uint32_t n)
{
    const struct sample *want = &f.parser.sample;
    struct sample s = {0};

    assert_int_equal(dsd_parse(&f.parser, line, n), DSD_METRIC);
    assert_int_equal(want->n_values, 1);
    assert_int_equal(want->ts_s, 0);
    dsd_ahead_fill(&s, d);
    same_view(s.name, want->name);
    same_view(s.tags, want->tags);
    assert_int_equal(s.type, want->type);
    if (s.type == METRIC_SET)
        same_view(s.member, want->member);
    else
        assert_memory_equal(s.values, want->values, sizeof(double));
    assert_true(s.rate == want->rate && s.bad_rate == want->bad_rate);
}

/* Lines are hashed as their form hashes single spellings. */
static void as_hashed(const struct dsd_ahead *d,
                      const struct dsd_ahead_form *form)
{
    struct hash128 h =
        form->hash(&key, dsd_ahead_name(d), dsd_ahead_tags(d), d->type);

    assert_memory_equal(&d->hash, &h, sizeof(h));
}

/* Returns how many lines of the packet that ends at @end are read ahead. */
static uint32_t check_at(const char *packet, size_t n_bytes, char *end,
                         struct dsd_readable readable)
{
    const struct dsd_packet in = {.p = end - n_bytes,
                                  .n = (uint32_t)n_bytes,
                                  .record = 5};
    const struct dsd_ahead *lines = got[0].lines;
    const char *p = in.p;

    f.opts.readable = readable;
    memcpy(end - n_bytes, packet, n_bytes);
    for (uint32_t i = 0; i < f.n_forms; i++) {
        uint32_t working = 0;

        f.forms[i]->read(&f.opts, &got[i], &in, 1, &working);
        assert_int_equal(working, 5);
        assert_int_equal(got[i].n, got[0].n);
        assert_int_equal(got[i].n_packets, got[0].n_packets);
        for (uint32_t k = 0; k < got[0].n; k++) {
            same(&got[i].lines[k], &lines[k]);
            as_hashed(&got[i].lines[k], f.forms[i]);
        }
    }
    for (uint32_t i = 0; i < got[0].n; i++) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));

        uint32_t n = (uint32_t)((lf != NULL ? lf : end) - p);

        assert_int_equal(lines[i].n_bytes, n + (lf != NULL));
        as_parsed(&lines[i], p, n);
        p += lines[i].n_bytes;
    }
    assert_int_equal(got[0].n_packets, p == end);
    if (p == end)
        assert_int_equal(got[0].ends[0], got[0].n);
    return got[0].n;
}

/* What lies behind a packet: the rest of a line that was there before. */
static const char stale[] = "|c|#x,y\nz:2|c|#q\n|c\n|#w:1|@0.5\r\n||7|g";

/* Where nothing is known of what follows, where it ends, and where it goes on with
 * bytes that mean something, from each of them on in turn. */
static uint32_t check(const char *packet, size_t n_bytes)
{
    static size_t shift;
    const struct dsd_readable unknown = {NULL, NULL};
    uint32_t n = check_at(packet, n_bytes, f.end, unknown);

    assert_int_equal(check_at(packet, n_bytes, f.end, f.readable), n);
    shift++;
    for (size_t i = 0; i < 256; i++)
        f.middle[i] = stale[(i + shift) % (sizeof(stale) - 1)];
    assert_int_equal(check_at(packet, n_bytes, f.middle, f.readable), n);
    return n;
}

static uint32_t check_text(const char *text)
{
    uint32_t n = check(text, strlen(text));

    for (size_t i = 1; i < sizeof(stale); i++)
        assert_int_equal(check(text, strlen(text)), n);
    return n;
}

static const char *const usual[] = {
    "app.hits:1|c",
    "app.hits:1|c|@0.5|#env:prod,region:eu",
    "app.load:0.75|g|#env:prod\r",
    "app.load:75|g|#env:prod\r",
    "app.load:1|ms\r",
    "app.load:1|c\r",
    "a:1|c|#",
    "u:42|s|#a",
    "app.time:12.5|ms|#a",
    "app.users:u:42|s",
    "app.size:-3e2|d|#a:b|c:ci-1",
    "h:123456789012345|h|@0.1|#x||later:field",
    "rate:1|c|@2",
    "a:1|c|#x|#y",
    "app.requests.in.flight:8|g|#env:prod,service:checkout,region:eu-west-1,"
    "pod:0000017,version:1.2.3,zone:b,tier:front",
};
#define N_USUAL (sizeof(usual) / sizeof(usual[0]))

static const char *const others[] = {
    "no.colon.in.the.bytes.that.are.looked.at.and.digits.behind.themx91|g",
    "no.colon.in.the.bytes.that.are.looked.at.and.digits.behind.themx1:1|g",
    "a.value.that.ends.in.the.second.half.of.what.is.looked.at:123456789",
    "app.hits:1:2|c",
    "app.hits:1|c|T1657100430",
    "_e{1,1}:a|b",
    "_e{1,1}:1|c|#x",
    ":1|c|#a",
    "_sc|up|0",
    "app.hits",
    "app.hits:x|c",
    "app.hits:1|q",
    "app.hits:1|mx",
    "app.hits:1|m",
    "app.hits:1|",
    "app.hits:1||#a",
    ":1|c",
    "app.hits:|c",
    "app.hits:nan|g",
    "app|c:1",
    "a:1|c|@x",
    "\r",
    "",
    "|",
    "a:1",
};
#define N_OTHERS (sizeof(others) / sizeof(others[0]))

static void usual_lines_are_read_ahead(void **state)
{
    (void)state;
    open_fixture(true, false);
    for (size_t i = 0; i < N_USUAL; i++)
        assert_int_equal(check_text(usual[i]), 1);
    for (size_t i = 0; i < N_OTHERS; i++)
        assert_int_equal(check_text(others[i]), 0);
    close_fixture();
}

/* Digits are taken up to eight at once: each number of them, with a wrong byte at
 * each place, at the end of memory and before it. */
static void numbers_of_each_length_are_read(void **state)
{
    static const char *const digits[] = {"1234567890123456", "0000000000000007",
                                         "9999999999999999"};
    static const char wrong[] = "/:.-\x80\xba";
    char packet[MAX_BYTES];

    (void)state;
    open_fixture(true, false);
    for (size_t i = 0; i < 3 * 16; i++) {
        int len = (int)(i % 16) + 1;

        for (int behind = 0; behind < 12; behind++) {
            int n = snprintf(packet, sizeof(packet), "a:%.*s|g|#%.*s", len,
                             digits[i / 16], behind, "xxxxxxxxxxxx");

            assert_int_equal(check(packet, (size_t)n), 1);
            for (size_t k = 0; k < (size_t)len * (sizeof(wrong) - 1); k++) {
                char *at = packet + 2 + k % (size_t)len;
                char was = *at;

                *at = wrong[k / (size_t)len];
                (void)check(packet, (size_t)n); /* all agree, or nobody reads */
                *at = was;
            }
        }
    }
    close_fixture();
}

static void several_lines_are_read_up_to_the_first_other_one(void **state)
{
    char packet[MAX_BYTES];

    (void)state;
    open_fixture(true, false);
    assert_int_equal(check_text("a:1|c\nb:2|g\nc:3|d|#x\n"), 3);
    assert_int_equal(check_text("a:1|c\nb:2|g\nc:3|d|#x"), 3);
    assert_int_equal(check_text("a:1|c\n\nb:2|g"), 1);
    for (size_t i = 0; i < N_OTHERS; i++) {
        int n = snprintf(packet, sizeof(packet), "a:1|c\nb:2|g\n%s\nc:1|c",
                         others[i]);

        assert_int_equal(check(packet, (size_t)n), 2);
    }
    for (size_t n = 0; n < 40 * 6; n += 6)
        memcpy(packet + n, "a:1|c\n", 6);
    assert_int_equal(check(packet, 40 * 6), MAX_LINES);
    close_fixture();
}

/* Lines of each length, at each distance from the end of memory. */
static void lines_of_each_length_are_read_in_place(void **state)
{
    char packet[MAX_BYTES];

    (void)state;
    open_fixture(false, false);
    for (uint32_t n = 8; n < 200; n++) {
        memset(packet, 'x', sizeof(packet));
        memcpy(packet, "a:1|c|#", 7);
        assert_int_equal(check(packet, n), n <= DSD_AHEAD_MAX_BYTES);
        for (uint32_t behind = 1; behind < 200; behind++) {
            packet[n] = '\n';
            memset(packet + n + 1, '|', behind);
            assert_int_equal(check(packet, n + 1 + behind),
                             n <= DSD_AHEAD_MAX_BYTES);
        }
    }
    close_fixture();
}

/* The last line in sight is copied, unless the group ends before it: then others are
 * hashed where they lie, up to 63 bytes past their tags. */
static void a_group_may_end_shortly_before_memory_does(void **state)
{
    char packet[MAX_BYTES];

    (void)state;
    open_fixture(false, false);
    for (int behind = 0; behind < 128; behind++) {
        int n = 0;

        for (uint32_t i = 1; i < MAX_LINES; i++)
            n += snprintf(packet + n, sizeof(packet) - (size_t)n, "a:1|c\n");
        n += snprintf(packet + n, sizeof(packet) - (size_t)n,
                      "a:1|c|#%066d\n%.*d", 7, behind, 7);
        assert_int_equal(check(packet, (size_t)n), MAX_LINES);
    }
    close_fixture();
}

static void a_last_line_may_need_an_end(void **state)
{
    (void)state;
    open_fixture(false, false);
    f.opts.may_end_bare = false;
    assert_int_equal(check_text("a:1|c|#x\nb:1|c|#x"), 1);
    assert_int_equal(check_text("a:1|c\nb:1|c"), 1);
    assert_int_equal(check_text("a:1|c|@0.5|#x\nb:1|c|@0.5|#x"), 1);
    close_fixture();
}

static void fields_that_others_must_see_are_left_to_them(void **state)
{
    (void)state;
    open_fixture(false, true);
    assert_int_equal(check_text("a:1|c|#x|c:ci-1"), 0);
    assert_int_equal(check_text("a:1|c|#x|e:it-false"), 0);
    assert_int_equal(check_text("a:1|c|T1657100430"), 1);
    assert_int_equal(check_text("a:1|c|Tx"), 1);
    close_fixture();
}

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

static void whatever_comes_all_forms_agree_with_the_parser(void **state)
{
    static const char some[] = "\n|:#@,cgshdm_T0123.e\r\x8a\xfc";
    uint32_t s = 7;
    uint32_t n_read = 0;

    (void)state;
    open_fixture(true, false);
    for (int round = 0; round < 20000; round++) {
        char packet[MAX_BYTES];
        size_t n = 0;

        while (n < 300) {
            uint32_t r = next_random(&s);
            const char *line = r % 16 == 0 ? others[r / 16 % N_OTHERS]
                                           : usual[r / 16 % N_USUAL];

            n += (size_t)snprintf(packet + n, sizeof(packet) - n, "%s\n", line);
        }
        for (uint32_t k = next_random(&s) % 4; k > 0; k--)
            packet[next_random(&s) % n] =
                some[next_random(&s) % (sizeof(some) - 1)];
        n_read += check(packet, n - next_random(&s) % 8);
    }
    assert_true(n_read > 100000);
    close_fixture();
}

static void packets_are_read_as_long_as_all_their_lines_fit(void **state)
{
    const struct dsd_packet in[] = {
        {.p = "a:1|c\nb:1|c", .n = 11, .record = 1},
        {.p = "", .record = 2},
        {.p = "c:1|c\n", .n = 6, .record = 3},
        {.p = "d:1|c\nbad\n", .n = 10, .record = 4},
        {.p = "e:1|c", .n = 5, .record = 5},
    };
    struct dsd_packet many[DSD_AHEAD_LINES + 1];
    uint32_t working;

    (void)state;
    open_fixture(true, false);
    for (uint32_t i = 0; i < DSD_AHEAD_LINES + 1; i++)
        many[i] = in[0];
    for (uint32_t i = 0; i < f.n_forms; i++) {
        f.opts.may_end_bare = true;
        f.forms[i]->read(&f.opts, &got[0], in, 5, &working);
        assert_int_equal(got[0].n_packets, 3);
        assert_int_equal(got[0].ends[0], 2);
        assert_int_equal(got[0].ends[1], 2);
        assert_int_equal(got[0].ends[2], 3);
        assert_int_equal(working, 4);
        f.forms[i]->read(&f.opts, &got[0], many, DSD_AHEAD_LINES + 1, &working);
        assert_int_equal(got[0].n_packets, DSD_AHEAD_LINES / 2);
        f.opts.may_end_bare = false;
        f.forms[i]->read(&f.opts, &got[0], in, 5, &working);
        assert_int_equal(got[0].n_packets, 0);
        assert_int_equal(got[0].n, 1);
        f.forms[i]->read(&f.opts, &got[0], in + 1, 4, &working);
        assert_int_equal(got[0].n_packets, 2);
    }
    close_fixture();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual_lines_are_read_ahead),
        cmocka_unit_test(numbers_of_each_length_are_read),
        cmocka_unit_test(several_lines_are_read_up_to_the_first_other_one),
        cmocka_unit_test(lines_of_each_length_are_read_in_place),
        cmocka_unit_test(a_group_may_end_shortly_before_memory_does),
        cmocka_unit_test(a_last_line_may_need_an_end),
        cmocka_unit_test(fields_that_others_must_see_are_left_to_them),
        cmocka_unit_test(whatever_comes_all_forms_agree_with_the_parser),
        cmocka_unit_test(packets_are_read_as_long_as_all_their_lines_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
