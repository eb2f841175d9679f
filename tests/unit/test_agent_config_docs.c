/* SPDX-License-Identifier: Apache-2.0 */
/* docs/configuration.md and conf.d/retriever.yaml say what the program does: they
 * are what the table of keys writes, and the example can be loaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/config_table.h"

static char *text_of(void (*write_text)(FILE *out))
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    write_text(f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static char *file_text(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void assert_same(void (*write_text)(FILE *out), const char *path,
                        const char *option)
{
    char *want = text_of(write_text);
    char *have = file_text(path);

    if (strcmp(want, have) != 0)
        fail_msg("%s is out of date: retriever check %s > %s", path, option,
                 path);
    free(want);
    free(have);
}

static void committed_files_are_what_the_table_writes(void **state)
{
    (void)state;
    assert_same(config_write_docs, TESTS_DIR "/../docs/configuration.md",
                "--generate-docs");
    assert_same(config_write_example, TESTS_DIR "/../conf.d/retriever.yaml",
                "--generate-example");
}

static char *dump(const char *yaml)
{
    const char *const env[] = {"DD_API_KEY=0123456789abcdef", NULL};
    struct config_sources src = {.env = (char *const *)env,
                                 .root = "/nonexistent"};
    struct config_report rep;
    struct config c;
    char *text = NULL;
    size_t n = 0;
    FILE *f;

    src.file = yaml;
    assert_int_equal(config_load(&c, &src, &rep), 0);
    for (size_t i = 0; i < rep.errors.n; i++)
        print_error("%s\n", rep.errors.items[i]);
    assert_int_equal(rep.errors.n, 0);
    assert_int_equal(rep.warnings.n, 0);
    f = open_memstream(&text, &n);
    assert_non_null(f);
    for (size_t i = 0; i < config_n_keys(); i++) {
        (void)fprintf(f, "%s: ", config_key_at(i)->name);
        config_print(&c, config_key_at(i), f);
        (void)fputc('\n', f);
    }
    assert_int_equal(fclose(f), 0);
    config_report_fini(&rep);
    config_fini(&c);
    return text;
}

static void the_example_holds_every_default(void **state)
{
    char path[] = "/tmp/test-config-docs-XXXXXX";
    char *example = text_of(config_write_example);
    FILE *f = fdopen(mkstemp(path), "w");
    char *save = NULL;
    char *with;
    char *without;

    (void)state;
    assert_non_null(f);
    for (char *line = strtok_r(example, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "# ", 2) == 0 && strstr(line, "SPDX") == NULL)
            (void)fprintf(f, "%s\n", line + 2);
    }
    assert_int_equal(fclose(f), 0);
    with = dump(path);
    without = dump(NULL);
    assert_string_equal(with, without);
    for (size_t i = 0; i < config_n_keys(); i++)
        assert_non_null(strstr(with, config_key_at(i)->name));
    (void)remove(path);
    free(example);
    free(with);
    free(without);
}

static void the_table_is_sound(void **state)
{
    char why[CONFIG_WHY];

    (void)state;
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);
        char env[CONFIG_MAX_NAME];

        assert_non_null(key->help);
        assert_ptr_equal(config_key_find(key->name), key);
        config_env_name(key->name, env, sizeof(env));
        assert_ptr_equal(config_key_find_env(env), key);
        if (key->type != KEY_LIST)
            assert_int_equal(config_parse(key, key->def, NULL, why), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(committed_files_are_what_the_table_writes),
        cmocka_unit_test(the_example_holds_every_default),
        cmocka_unit_test(the_table_is_sound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
