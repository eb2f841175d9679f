/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration from sources that a test makes: files below a root of its own, so
 * that none of the machine's is read, variables, --set.
 *
 * Thread:  one.
 * Memory:  one struct config_rig per test, made by config_rig_setup() as cmocka's
 *          state.
 * Promise: config_rig_teardown() removes the root with all in it.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_CONFIG_RIG_H
#define RETRIEVER_TESTS_SUPPORT_CONFIG_RIG_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/config.h"

#define KEY "0123456789abcdef0123456789abcdef"

struct config_rig {
    char root[64];
    struct config cfg;
    struct config_report rep;
    struct config_sources src;
    const char *env[32]; /* [0] is the API key */
    const char *sets[8];
    bool loaded;
};

int config_rig_setup(void **state);
int config_rig_teardown(void **state);

/** Make the file @path below the root, and the folders that it is in. */
void config_rig_put(const struct config_rig *s, const char *path,
                    const char *text, size_t n);
void config_rig_put_text(const struct config_rig *s, const char *path,
                         const char *text);

/** Load what the sources say, in place of what was loaded before. */
void config_rig_load(struct config_rig *s);

/** The same with @text as the file of -c. */
void config_rig_load_text(struct config_rig *s, const char *text);

/** Some line of @l holds @part. The second fails the test where none does. */
bool config_rig_has_line(const struct string_list *l, const char *part);
void config_rig_assert_line(const struct string_list *l, const char *part);

/** Neither errors nor warnings. */
void config_rig_assert_clean(const struct config_rig *s);

#endif
