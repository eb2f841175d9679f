/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/watch.h"

#include <string.h>

static const char *const always[WATCH_FIRST_OWN] = {
    [WATCH_CUDA] = "CUDA_VISIBLE_DEVICES",
    [WATCH_CUDA_ORDER] = "CUDA_DEVICE_ORDER",
};

static void add(struct watch *w, const char *name, const char *tag)
{
    struct watch_name *v = &w->v[w->n++];

    v->n_name = (uint32_t)strlen(name);
    memcpy(v->name, name, v->n_name);
    memcpy(v->tag, tag, strlen(tag));
}

void watch_init(struct watch *w)
{
    memset(w, 0, sizeof(*w));
    for (size_t i = 0; i < WATCH_FIRST_OWN; i++)
        add(w, always[i], "");
}

static bool is_text(const char *s, const char *without)
{
    for (; *s != '\0'; s++) {
        if (*s <= ' ' || *s > '~' || strchr(without, *s) != NULL)
            return false;
    }
    return true;
}

int watch_add(struct watch *w, const char *name, const char *tag)
{
    if (name[0] == '\0')
        return WATCH_NAME_EMPTY;
    if (strlen(name) >= ENV_NAME_BYTES)
        return WATCH_NAME_LONG;
    if (!is_text(name, "="))
        return WATCH_NAME_EQUALS;
    if (tag[0] == '\0' || strlen(tag) >= WATCH_TAG_BYTES ||
        !is_text(tag, ":,|#"))
        return WATCH_TAG_BAD;
    for (uint32_t i = 0; i < w->n; i++) {
        if (strcmp(w->v[i].name, name) == 0)
            return WATCH_TWICE;
    }
    if (w->n == ENV_MAX_NAMES)
        return WATCH_FULL;
    add(w, name, tag);
    return 0;
}

static void lower(char *s)
{
    for (; *s != '\0'; s++) {
        if (*s >= 'A' && *s <= 'Z')
            *s = (char)(*s - 'A' + 'a');
    }
}

const char *watch_item(struct watch *w, const char *item)
{
    char name[ENV_NAME_BYTES + 1], tag[ENV_NAME_BYTES + 1];
    const char *colon = strchr(item, ':');
    size_t n = colon != NULL ? (size_t)(colon - item) : strlen(item);
    int rc;

    if (n >= ENV_NAME_BYTES)
        return watch_words(WATCH_NAME_LONG);
    memcpy(name, item, n);
    name[n] = '\0';
    memcpy(tag, name, n + 1);
    lower(tag);
    rc = watch_add(w, name, colon != NULL ? colon + 1 : tag);
    return rc != 0 ? watch_words(rc) : NULL;
}

const char *watch_words(int rc)
{
    switch ((enum watch_rc)rc) {
    case WATCH_NAME_EMPTY:
        return "the name of a variable is empty";
    case WATCH_NAME_LONG:
        return "the name of a variable is longer than 31 bytes";
    case WATCH_NAME_EQUALS:
        return "the name of a variable contains `=`, or is no text";
    case WATCH_TAG_BAD:
        return "a tag is empty, longer than 63 bytes, or contains one of "
               "`:,|#`";
    case WATCH_TWICE:
        return "a variable is named twice, or is one of those always watched";
    case WATCH_FULL:
        return "more than 8 variables";
    }
    return "";
}

int watch_find(const struct watch *w, const char *entry, size_t n)
{
    for (uint32_t i = 0; i < w->n; i++) {
        size_t n_name = w->v[i].n_name;

        if (n > n_name && entry[n_name] == '=' &&
            memcmp(entry, w->v[i].name, n_name) == 0)
            return (int)i;
    }
    return -1;
}
