/* SPDX-License-Identifier: Apache-2.0 */
/* The table as one; names of keys: by key, alias, environment variable. */
#include <ctype.h>
#include <string.h>

#include "agent/config_table.h"

#define N_ENV 2

size_t config_n_keys(void)
{
    return config_keys.n + config_keys_kernel.n;
}

const struct config_key *config_key_at(size_t i)
{
    return i < config_keys.n ? &config_keys.rows[i]
                             : &config_keys_kernel.rows[i - config_keys.n];
}

size_t config_key_index(const struct config_key *key)
{
    size_t i = 0;

    while (config_key_at(i) != key)
        i++;
    return i;
}

const struct config_key *config_key_find(const char *name)
{
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);

        if (strcmp(key->name, name) == 0)
            return key;
        for (int a = 0; a < CONFIG_ALIASES && key->aliases[a] != NULL; a++) {
            if (strcmp(key->aliases[a], name) == 0)
                return key;
        }
    }
    return NULL;
}

const char *config_key_spelled(const struct config_key *key,
                               const char *written)
{
    for (int a = 0; written != NULL && a < CONFIG_ALIASES; a++) {
        if (key->aliases[a] != NULL && strcmp(key->aliases[a], written) == 0)
            return key->aliases[a];
    }
    return key->name;
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
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);

        if (is_env_of(key->name, env))
            return key;
        for (int a = 0; a < CONFIG_ALIASES; a++) {
            if (key->aliases[a] != NULL && is_env_of(key->aliases[a], env))
                return key;
        }
        for (int a = 0; a < N_ENV; a++) {
            if (key->env[a] != NULL && strcmp(key->env[a], env) == 0)
                return key;
        }
    }
    return NULL;
}

static bool begins(const char *name, const char *path, size_t n)
{
    return name != NULL && strncmp(name, path, n) == 0 && name[n] == '.';
}

bool config_is_prefix(const char *path)
{
    size_t n = strlen(path);

    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);

        if (begins(key->name, path, n))
            return true;
        for (int a = 0; a < CONFIG_ALIASES; a++) {
            if (begins(key->aliases[a], path, n))
                return true;
        }
    }
    return false;
}
