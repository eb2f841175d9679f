/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment and --set. Names follow the Agent's rule: DD_, upper case, dots
 * to underscores.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config_table.h"

/* Value of @name in @env; NULL = not there. */
static const char *lookup(char *const *env, const char *name)
{
    size_t n = strlen(name);

    for (; env != NULL && *env != NULL; env++) {
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return *env + n + 1;
    }
    return NULL;
}

/* The n-th environment name of a key, NULL behind the last; *written: the name it
 * is made from. Its own name comes first: of several that are set the first
 * counts, as in the Agent. */
static const char *nth_name(const struct config_key *key, unsigned n, char *buf,
                            size_t size, const char **written)
{
    *written = key->name;
    if (n == 0) {
        config_env_name(key->name, buf, size);
        return buf;
    }
    for (unsigned i = 0; i < CONFIG_ALIASES; i++) {
        if (key->aliases[i] != NULL && --n == 0) {
            *written = key->aliases[i];
            config_env_name(key->aliases[i], buf, size);
            return buf;
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        if (key->env[i] != NULL && --n == 0)
            return key->env[i];
    }
    return NULL;
}

static void read_key(struct config_loader *l, char *const *env,
                     const struct config_key *key)
{
    const char *taken = NULL;
    char taken_name[CONFIG_MAX_NAME];
    char buf[CONFIG_MAX_NAME];
    const char *written;
    const char *name;

    for (unsigned i = 0;
         (name = nth_name(key, i, buf, sizeof(buf), &written)) != NULL; i++) {
        const char *value = lookup(env, name);
        struct config_place at = {.source = name, .key = written};

        if (value == NULL)
            continue;
        if (value[0] == '\0' && (key->flags & KEY_EMPTY_ENV) == 0) {
            config_found(l, FINDING_NOTE, &at, "empty: ignored");
            continue;
        }
        if (taken == NULL) {
            config_offer(l, &at, key, value, strlen(value));
            taken = value;
            (void)snprintf(taken_name, sizeof(taken_name), "%s", name);
        } else if (strcmp(taken, value) != 0) {
            bool agree = (key->flags & KEY_AGREE) != 0;

            config_found(l, agree ? FINDING_ERROR : FINDING_WARNING, &at,
                         agree ? "%s is set to another value; keep one"
                               : "ignored: %s is set to another value and "
                                 "comes first",
                         taken_name);
        }
    }
}

void config_read_env(struct config_loader *l, char *const *env)
{
    char name[CONFIG_MAX_NAME];

    for (size_t i = 0; i < config_n_keys(); i++)
        read_key(l, env, config_key_at(i));
    for (; env != NULL && *env != NULL; env++) {
        const char *equals = strchr(*env, '=');
        size_t n;

        if (strncmp(*env, "DD_", 3) != 0 || equals == NULL)
            continue;
        n = (size_t)(equals - *env);
        if (n >= sizeof(name))
            continue; /* longer than any of ours */
        memcpy(name, *env, n);
        name[n] = '\0';
        if (config_key_find_env(name) == NULL)
            config_unknown_env(l, name, equals + 1);
    }
}

void config_read_set(struct config_loader *l, const char *assignment)
{
    struct config_place at = {.source = "--set"};
    const char *equals = strchr(assignment, '=');
    const struct config_key *key;
    char name[CONFIG_MAX_NAME];

    if (equals == NULL || equals == assignment ||
        (size_t)(equals - assignment) >= sizeof(name)) {
        config_found(l, FINDING_ERROR, &at,
                     "needs KEY=VALUE, as in "
                     "--set stop_timeout=5");
        return;
    }
    memcpy(name, assignment, (size_t)(equals - assignment));
    name[equals - assignment] = '\0';
    key = config_key_find(name);
    at.key = name;
    if (key == NULL) {
        const char *near = config_nearest(name);

        config_found(l, FINDING_ERROR, &at,
                     "%s: there is no such key%s%s; see retriever check", name,
                     near != NULL ? "; did you mean " : "",
                     near != NULL ? near : "");
    } else if ((key->flags & KEY_SECRET) != 0) {
        config_refused(l, key);
        config_found(l, FINDING_ERROR, &at,
                     "%s: not taken from the command line, which every user "
                     "can read; set DD_API_KEY or api_key_file",
                     key->name);
    } else {
        config_offer(l, &at, key, equals + 1, strlen(equals + 1));
    }
}
