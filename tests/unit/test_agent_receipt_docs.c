/* SPDX-License-Identifier: Apache-2.0 */
/* docs/receipt.md names each key, each reason and each cause that the program can
 * write, and no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/ledger.h"

#define DOC TESTS_DIR "/../docs/receipt.md"
#define MAX_NAMES 64

struct names {
    size_t n;
    char name[MAX_NAMES][32];
};

static char *doc_text(void)
{
    char *text = calloc(1, 1 << 16);
    FILE *f = fopen(DOC, "r");

    assert_non_null(f);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 16) - 1, f) > 0);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void add(struct names *to, const char *name, size_t n)
{
    assert_true(to->n < MAX_NAMES);
    assert_true(n < sizeof(to->name[0]));
    memcpy(to->name[to->n], name, n);
    to->name[to->n++][n] = '\0';
}

static bool has(const struct names *in, const char *name)
{
    for (size_t i = 0; i < in->n; i++) {
        if (strcmp(in->name[i], name) == 0)
            return true;
    }
    return false;
}

/* What stands between backticks in the first column of the table under @head. */
static void first_column(struct names *out, const char *text, const char *head)
{
    const char *row = strstr(text, head);

    *out = (struct names){0};
    if (row == NULL)
        fail_msg("%s has no table \"%s\"", DOC, head);
    while (row[0] == '|') {
        const char *end = strchr(row + 1, '|');
        const char *open = row;

        assert_non_null(end);
        while ((open = strchr(open, '`')) != NULL && open < end) {
            const char *close = strchr(open + 1, '`');

            assert_non_null(close);
            add(out, open + 1, (size_t)(close - open - 1));
            open = close + 1;
        }
        row = strchr(row, '\n');
        assert_non_null(row);
        row++;
    }
}

static void assert_equal_lists(const struct names *doc,
                               const struct names *code)
{
    for (size_t i = 0; i < code->n; i++) {
        if (!has(doc, code->name[i]))
            fail_msg("%s does not name %s", DOC, code->name[i]);
    }
    for (size_t i = 0; i < doc->n; i++) {
        if (!has(code, doc->name[i]))
            fail_msg("%s names %s, which nothing writes", DOC, doc->name[i]);
    }
}

static void each_reason_is_named(void **state)
{
    char *text = doc_text();
    struct names doc, code = {0};

    (void)state;
    first_column(&doc, text, "| rejected | because |");
    for (int r = DSD_FIRST_REJECT; r < DSD_N_RESULTS; r++) {
        const char *name = dsd_reject_name((enum dsd_result)r);

        add(&code, name, strlen(name));
    }
    assert_equal_lists(&doc, &code);
    free(text);
}

static void each_cause_is_named(void **state)
{
    char *text = doc_text();
    struct names doc, code = {0};

    (void)state;
    first_column(&doc, text, "| dropped | because |");
    for (int c = 0; c < DROP_N; c++) {
        const char *name =
            c == DROP_HTTP ? "http_NNN" : drop_cause_name((enum drop_cause)c);

        add(&code, name, strlen(name));
    }
    assert_equal_lists(&doc, &code);
    free(text);
}

/* The keys of @depth in a line of JSON without braces inside of strings. */
static void keys_of(struct names *out, const char *json, int depth)
{
    int at = 0;

    *out = (struct names){0};
    for (const char *p = json; *p != '\0'; p++) {
        const char *end;

        if (*p == '{')
            at++;
        else if (*p == '}')
            at--;
        if (*p != '"')
            continue;
        end = strchr(p + 1, '"');
        assert_non_null(end);
        if (at == depth && end[1] == ':')
            add(out, p + 1, (size_t)(end - p - 1));
        p = end;
    }
}

static void each_key_is_named(void **state)
{
    static const uint32_t stage_ms[STAGE_DONE];
    static const struct drop_report lost;
    static const struct own_waits_report waits;
    const struct ledger_facts facts = {.reason = "SIGTERM",
                                       .stage_ms = stage_ms,
                                       .lost = &lost,
                                       .waits = &waits}; /* all keys */
    struct ledger l = {.restored.n_payloads = 1};        /* all keys */
    char *text = doc_text();
    struct names doc, code;
    struct buf line;
    char *input;
    char *restored;

    (void)state;
    buf_init(&line, 1 << 16);
    assert_int_equal(ledger_write_json(&l, &facts, &line), 0);
    assert_int_equal(buf_putc(&line, '\0'), 0);
    first_column(&doc, text, "| key | meaning |");
    keys_of(&code, line.data, 1);
    assert_equal_lists(&doc, &code);
    input = strstr(line.data, "\"input\":");
    assert_non_null(input);
    first_column(&doc, text, "| input | counts |");
    *strstr(input, "},\"lost\"") = '\0';
    keys_of(&code, input + strlen("\"input\":"), 1);
    assert_equal_lists(&doc, &code);
    restored = strstr(line.data, "\"restored\":");
    assert_non_null(restored);
    first_column(&doc, text, "| restored | counts |");
    *strstr(restored, "},\"folded\"") = '\0';
    keys_of(&code, restored + strlen("\"restored\":"), 1);
    assert_equal_lists(&doc, &code);
    buf_fini(&line);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_reason_is_named),
        cmocka_unit_test(each_cause_is_named),
        cmocka_unit_test(each_key_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
