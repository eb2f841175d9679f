/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/config_rig.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

void config_rig_put(const struct config_rig *s, const char *path,
                    const char *text, size_t n)
{
    char full[512];
    FILE *f;

    (void)snprintf(full, sizeof(full), "%s%s", s->root, path);
    for (char *p = full + strlen(s->root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0700);
        *p = '/';
    }
    f = fopen(full, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void config_rig_put_text(const struct config_rig *s, const char *path,
                         const char *text)
{
    config_rig_put(s, path, text, strlen(text));
}

int config_rig_setup(void **state)
{
    struct config_rig *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    (void)snprintf(s->root, sizeof(s->root), "/tmp/test-config-XXXXXX");
    assert_non_null(mkdtemp(s->root));
    s->env[0] = "DD_API_KEY=" KEY;
    s->src = (struct config_sources){.root = s->root,
                                     .sets = s->sets,
                                     .env = (char *const *)s->env};
    *state = s;
    return 0;
}

static void unload(struct config_rig *s)
{
    if (s->loaded) {
        config_fini(&s->cfg);
        config_report_fini(&s->rep);
    }
    s->loaded = false;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int config_rig_teardown(void **state)
{
    struct config_rig *s = *state;

    unload(s);
    (void)nftw(s->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(s);
    return 0;
}

void config_rig_load(struct config_rig *s)
{
    unload(s);
    while (s->sets[s->src.n_sets] != NULL)
        s->src.n_sets++;
    assert_int_equal(config_load(&s->cfg, &s->src, &s->rep), 0);
    s->loaded = true;
}

void config_rig_load_text(struct config_rig *s, const char *text)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/x.yaml", s->root);
    config_rig_put_text(s, "/x.yaml", text);
    s->src.file = path;
    config_rig_load(s);
}

bool config_rig_has_line(const struct string_list *l, const char *part)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strstr(l->items[i], part) != NULL)
            return true;
    }
    return false;
}

void config_rig_assert_line(const struct string_list *l, const char *part)
{
    if (config_rig_has_line(l, part))
        return;
    for (size_t i = 0; i < l->n; i++)
        print_error("have: %s\n", l->items[i]);
    fail_msg("no line holds: %s", part);
}

void config_rig_assert_clean(const struct config_rig *s)
{
    for (size_t i = 0; i < s->rep.errors.n; i++)
        print_error("error: %s\n", s->rep.errors.items[i]);
    for (size_t i = 0; i < s->rep.warnings.n; i++)
        print_error("warning: %s\n", s->rep.warnings.items[i]);
    assert_int_equal(s->rep.errors.n, 0);
    assert_int_equal(s->rep.warnings.n, 0);
}
