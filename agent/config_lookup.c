/* SPDX-License-Identifier: Apache-2.0 */
/* Names of keys: by key, alias, environment variable. */
#include <ctype.h>
#include <string.h>

#include "agent/config_table.h"

#define N_NAMES 2

const struct config_key *config_key_find(const char *name)
{
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];

        if (strcmp(key->name, name) == 0)
            return key;
        for (int a = 0; a < N_NAMES && key->aliases[a] != NULL; a++) {
            if (strcmp(key->aliases[a], name) == 0)
                return key;
        }
    }
    return NULL;
}

void config_env_name(const char *name, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "DD_%s", name);

    for (size_t i = 3; i < n && i < size - 1; i++)
        out[i] = out[i] == '.' ? '_' : (char)toupper((unsigned char)out[i]);
}

const char *config_env_rest(const char *env, const char *name)
{
    if (strncmp(env, "DD_", 3) != 0)
        return NULL;
    for (env += 3; *name != '\0'; env++, name++) {
        if (*env != (*name == '.' ? '_' : toupper((unsigned char)*name)))
            return NULL;
    }
    return env;
}

static bool is_env_of(const char *name, const char *env)
{
    const char *rest = config_env_rest(env, name);

    return rest != NULL && *rest == '\0';
}

const struct config_key *config_key_find_env(const char *env)
{
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];

        if (is_env_of(key->name, env))
            return key;
        for (int a = 0; a < N_NAMES; a++) {
            if (key->aliases[a] != NULL && is_env_of(key->aliases[a], env))
                return key;
            if (key->env[a] != NULL && strcmp(key->env[a], env) == 0)
                return key;
        }
    }
    return NULL;
}

bool config_is_prefix(const char *path)
{
    size_t n = strlen(path);

    for (size_t i = 0; i < config_n_keys; i++) {
        if (strncmp(config_keys[i].name, path, n) == 0 &&
            config_keys[i].name[n] == '.')
            return true;
    }
    return false;
}
