/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: sources in the order of precedence, each offer checked at once, the
 * survivors turned into typed data at the end. All errors are collected, so that
 * one run names them all.
 */
#include "agent/config.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/contract.h"
#include "agent/base/log.h"
#include "agent/config_table.h"

#define OUR_FILE "/etc/retriever/retriever.yaml"
#define AGENT_FILE "/etc/datadog-agent/datadog.yaml"
#define DROP_INS "/etc/retriever/conf.d"
#define MAX_DROP_INS 100

/* ---- Findings ----------------------------------------------------------- */

/* One line without control characters, cut: what came from a file may be
 * anything. */
static void escape(const char *text, size_t n, char *out, size_t size)
{
    size_t o = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        if (o + 8 >= size) {
            (void)snprintf(out + o, size - o, "...");
            return;
        }
        if (c < 0x20 || c == 0x7f)
            o += (size_t)snprintf(out + o, size - o, "\\x%02x", c);
        else
            out[o++] = (char)c;
    }
    out[o] = '\0';
}

void config_found(struct config_loader *l, enum finding kind,
                  const struct config_place *at, const char *fmt, ...)
{
    struct string_list *list = kind == FINDING_ERROR     ? &l->report.errors
                               : kind == FINDING_WARNING ? &l->report.warnings
                                                         : &l->report.notes;
    char raw[1024];
    char line[1100];
    size_t n = 0;
    va_list ap;

    if (list->n >= CONFIG_MAX_FINDINGS) {
        l->report.n_dropped++;
        return;
    }
    if (at != NULL && at->line > 0)
        n = (size_t)snprintf(raw, sizeof(raw), "%.250s:%u:%u: ", at->source,
                             at->line, at->column);
    else if (at != NULL)
        n = (size_t)snprintf(raw, sizeof(raw), "%.250s: ", at->source);
    va_start(ap, fmt);
    (void)vsnprintf(raw + n, sizeof(raw) - n, fmt, ap);
    va_end(ap);
    escape(raw, strlen(raw), line, sizeof(line));
    if (string_list_add(list, line, strlen(line)) != 0)
        l->failed = true;
}

/* ---- Offers ------------------------------------------------------------- */

void config_refused(struct config_loader *l, const struct config_key *key)
{
    l->values[config_key_index(key)].refused = true;
}

static bool is_utf8(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = p + n;

    while (p < end) {
        unsigned n_more = *p < 0x80   ? 0
                          : *p < 0xc2 ? 9
                          : *p < 0xe0 ? 1
                          : *p < 0xf0 ? 2
                          : *p < 0xf5 ? 3
                                      : 9;
        unsigned first = *p++;

        if (n_more > 3 || (size_t)(end - p) < n_more)
            return false;
        if ((first == 0xe0 && *p < 0xa0) || (first == 0xed && *p > 0x9f) ||
            (first == 0xf0 && *p < 0x90) || (first == 0xf4 && *p > 0x8f))
            return false;
        for (; n_more > 0; n_more--) {
            if ((*p++ & 0xc0) != 0x80)
                return false;
        }
    }
    return true;
}

/* What no value may be, whatever its key. NULL = good. */
static const char *check_text(const char *text, size_t n)
{
    if (n > CONFIG_MAX_TEXT - 1)
        return "is longer than 4095 bytes";
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return "holds a control character";
    }
    if (!is_utf8(text, n))
        return "is not valid UTF-8";
    if (n > 4 && strncmp(text, "ENC[", 4) == 0)
        return "is a secret handle: secret backends are not supported yet; "
               "give the value itself (for the API key: api_key_file)";
    return NULL;
}

static void refuse(struct config_loader *l, const struct config_place *at,
                   const struct config_key *key, const char *text, size_t n,
                   const char *why)
{
    enum finding kind = FINDING_ERROR;
    char shown[128];
    char masked[512];

    /* A variable of the system that we only look at must not stop us. */
    if ((key->flags & KEY_FOREIGN) != 0 && at->line == 0 &&
        strncmp(at->source, "DD_", 3) != 0 && at->source[0] != '-')
        kind = FINDING_WARNING;
    config_refused(l, key);
    if ((key->flags & KEY_SECRET) != 0) {
        (void)snprintf(shown, sizeof(shown), "the value");
    } else if ((key->flags & KEY_USERINFO) != 0) {
        config_mask_url(text, masked, sizeof(masked));
        escape(masked, strlen(masked), shown, sizeof(shown));
    } else {
        escape(text, n, shown, sizeof(shown));
    }
    config_found(l, kind, at, "%s: %s %s", config_key_spelled(key, at->key),
                 n == 0 ? "\"\"" : shown, why);
}

static bool same_list(const struct string_list *a, const struct string_list *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    }
    return true;
}

/* Takes what the value is; false: this source gave another one before. */
static bool keep(struct config_loader *l, const struct config_place *at,
                 const struct config_key *key, char *text,
                 struct string_list *list)
{
    struct config_value *v = &l->values[config_key_index(key)];
    char origin[300];

    if (v->layer == l->layer) {
        bool same = text != NULL ? strcmp(v->text, text) == 0
                                 : same_list(&v->list, list);

        if (!same)
            config_found(l, FINDING_ERROR, at,
                         "%s: given twice with different values (the other: "
                         "%s, %s); keep one",
                         config_key_spelled(key, at->key), v->name, v->origin);
        return false;
    }
    if (at->line > 0)
        (void)snprintf(origin, sizeof(origin), "%.250s:%u", at->source,
                       at->line);
    else
        (void)snprintf(origin, sizeof(origin), "%.250s", at->source);
    free(v->origin);
    free(v->text);
    string_list_fini(&v->list);
    v->origin = strdup(origin);
    v->name = config_key_spelled(key, at->key);
    v->text = text;
    if (list != NULL) {
        v->list = *list;
        *list = (struct string_list){0};
    }
    v->layer = l->layer;
    if (v->origin == NULL)
        l->failed = true;
    return true;
}

void config_offer_list(struct config_loader *l, const struct config_place *at,
                       const struct config_key *key, struct string_list *items)
{
    char why[CONFIG_WHY];
    bool good = true;

    for (size_t i = 0; i < items->n; i++) {
        const char *text = items->items[i];
        const char *wrong = check_text(text, strlen(text));

        if (wrong == NULL && config_parse(key, text, NULL, why) == 0)
            continue;
        refuse(l, at, key, text, strlen(text), wrong != NULL ? wrong : why);
        good = false;
    }
    if (good)
        (void)keep(l, at, key, NULL, items);
    string_list_fini(items);
}

/* "[::1]" is an address and no list. */
static bool begins_with_address(const char *text)
{
    size_t n = strcspn(text, "], \t\"");

    return text[n] == ']' && memchr(text, ':', n) != NULL;
}

static void offer_as_list(struct config_loader *l,
                          const struct config_place *at,
                          const struct config_key *key, const char *text,
                          size_t n)
{
    struct string_list items = {0};
    int rc = text[0] == '[' ? config_yaml_list(text, &items)
                            : config_split(key, text, &items);

    if (rc == -EINVAL && begins_with_address(text))
        rc = config_split(key, text, &items);
    if (rc == -ENOMEM)
        l->failed = true;
    else if (rc == -E2BIG)
        refuse(l, at, key, text, n, "holds more than 1000 items");
    else if (rc != 0)
        refuse(l, at, key, text, n, "is no JSON list of strings");
    else
        config_offer_list(l, at, key, &items);
}

void config_offer(struct config_loader *l, const struct config_place *at,
                  const struct config_key *key, const char *text, size_t n)
{
    const char *wrong;
    char why[CONFIG_WHY];
    char *copy;

    if ((key->flags & KEY_SECRET) != 0) /* keys are pasted with line ends */
        n = config_trim(&text, n);
    wrong = check_text(text, n);
    if (wrong != NULL) {
        refuse(l, at, key, text, n, wrong);
        return;
    }
    copy = strndup(text, n);
    if (copy == NULL) {
        l->failed = true;
        return;
    }
    if (key->type == KEY_LIST) {
        offer_as_list(l, at, key, copy, n);
    } else if (config_parse(key, copy, NULL, why) != 0) {
        refuse(l, at, key, copy, n, why);
    } else if (keep(l, at, key, copy, NULL)) {
        return; /* copy is the value now */
    }
    free(copy);
}

const struct config_value *config_value(const struct config_loader *l,
                                        const char *name)
{
    const struct config_key *key = config_key_find(name);

    REQUIRE(key != NULL);
    return &l->values[config_key_index(key)];
}

static const char *default_text(const struct config_loader *l,
                                const struct config_key *key)
{
    return l->exec_mode && key->def_exec != NULL ? key->def_exec : key->def;
}

const char *config_text(const struct config_loader *l, const char *name)
{
    const struct config_value *v = config_value(l, name);

    return v->text != NULL ? v->text : default_text(l, config_key_find(name));
}

struct config_place config_place_of(const struct config_loader *l,
                                    const char *name)
{
    const struct config_value *v = config_value(l, name);

    return (struct config_place){.source =
                                     v->layer != 0 ? v->origin : "default"};
}

const char *config_name_of(const struct config_loader *l, const char *name)
{
    const struct config_value *v = config_value(l, name);

    return v->layer != 0 ? v->name : name;
}

/* ---- Files -------------------------------------------------------------- */

/* Read @path into the table. @kind: what it is when the file cannot be read.
 * Returns false when there is no such file. */
static bool read_source(struct config_loader *l, const char *path,
                        enum finding kind)
{
    struct config_place at = {.source = path};
    char why[CONFIG_WHY];
    char *text = NULL;
    size_t n = 0;
    int rc = config_read_file(path, &text, &n, why);

    if (rc == -ENOENT)
        return false;
    if (rc == -ENOMEM)
        l->failed = true;
    else if (rc != 0)
        config_found(l, kind, &at, "cannot be read: %s", why);
    if (rc == 0) {
        l->layer++;
        config_found(l, FINDING_NOTE, &at, "read");
        config_yaml_read(l, path, text, n);
    }
    free(text);
    return true;
}

static int is_drop_in(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return e->d_name[0] != '.' && n > 5 &&
           strcmp(e->d_name + n - 5, ".yaml") == 0;
}

static void read_drop_ins(struct config_loader *l, const char *root)
{
    struct dirent **entries = NULL;
    char folder[512];
    char path[1024];
    int n;

    (void)snprintf(folder, sizeof(folder), "%s%s", root, DROP_INS);
    n = scandir(folder, &entries, is_drop_in, alphasort);
    if (n < 0 && errno != ENOENT && errno != ENOTDIR) {
        struct config_place at = {.source = folder};

        config_found(l, FINDING_ERROR, &at, "cannot be read: %s",
                     strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (i < MAX_DROP_INS)
            (void)read_source(l, path, FINDING_ERROR);
        else if (i == MAX_DROP_INS)
            config_found(l, FINDING_ERROR, NULL,
                         "%s: more than %d drop-ins; merge some", folder,
                         MAX_DROP_INS);
        free(entries[i]);
    }
    free(entries);
}

static void read_files(struct config_loader *l,
                       const struct config_sources *src, const char *root)
{
    char path[512];

    if (src->file != NULL) {
        if (!read_source(l, src->file, FINDING_ERROR)) {
            struct config_place at = {.source = src->file};

            config_found(l, FINDING_ERROR, &at, "there is no such file");
        }
    } else {
        (void)snprintf(path, sizeof(path), "%s%s", root, OUR_FILE);
        if (!read_source(l, path, FINDING_ERROR)) {
            /* The Agent's file is often readable to its user alone; a machine
             * that has one may still run us with variables. */
            (void)snprintf(path, sizeof(path), "%s%s", root, AGENT_FILE);
            (void)read_source(l, path, FINDING_WARNING);
        }
    }
    read_drop_ins(l, root);
}

/* ---- Typed data --------------------------------------------------------- */

static int copy_list(const struct string_list *from, struct string_list *to)
{
    for (size_t i = 0; i < from->n; i++) {
        if (string_list_add(to, from->items[i], strlen(from->items[i])) != 0)
            return -ENOMEM;
    }
    return 0;
}

static int apply(struct config *c, struct config_loader *l)
{
    char why[CONFIG_WHY];

    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);
        const struct config_value *v = &l->values[i];
        void *field = (char *)c + key->offset;
        int rc;

        if (key->size == 0)
            continue;
        if (key->type != KEY_LIST)
            rc = config_parse(key,
                              v->text != NULL ? v->text : default_text(l, key),
                              field, why);
        else if (v->layer != 0)
            rc = copy_list(&v->list, field);
        else
            rc = config_split(key, default_text(l, key), field);
        REQUIRE(rc != -EINVAL); /* a default that its own key refuses */
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void free_values(struct config_value *values)
{
    for (size_t i = 0; values != NULL && i < config_n_keys(); i++) {
        free(values[i].text);
        free(values[i].origin);
        string_list_fini(&values[i].list);
    }
    free(values);
}

int config_load(struct config *out, const struct config_sources *src,
                struct config_report *rep)
{
    struct config_loader l = {.exec_mode = src->exec_mode};
    const char *root = src->root != NULL ? src->root : "";
    struct config c = {0};
    int rc = -ENOMEM;

    l.values = calloc(config_n_keys(), sizeof(*l.values));
    c.origins = calloc(1, sizeof(*c.origins));
    if (l.values == NULL || c.origins == NULL)
        goto out;
    c.origins->values = l.values;
    read_files(&l, src, root);
    l.layer++;
    config_read_env(&l, src->env);
    for (size_t i = 0; i < src->n_sets; i++) {
        l.layer++; /* a later --set wins */
        config_read_set(&l, src->sets[i]);
    }
    rc = apply(&c, &l);
    if (rc == 0)
        rc = config_resolve(&c, &l, root);
    if (rc == 0 && l.failed)
        rc = -ENOMEM;
    if (rc != 0)
        goto out;
    string_list_fini(&l.unknown);
    *out = c;
    *rep = l.report;
    return 0;
out:
    string_list_fini(&l.unknown);
    if (c.origins == NULL)
        free_values(l.values);
    else
        c.origins->values = l.values;
    config_fini(&c);
    config_report_fini(&l.report);
    return rc;
}

void config_fini(struct config *c)
{
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);
        void *field = (char *)c + key->offset;

        if (key->size == 0)
            continue;
        if (key->type == KEY_STRING) {
            char *text = *(char **)field;

            if (text != NULL && (key->flags & KEY_SECRET) != 0)
                explicit_bzero(text, strlen(text));
            free(text);
        } else if (key->type == KEY_LIST) {
            string_list_fini(field);
        }
    }
    string_list_fini(&c->tags);
    free(c->statsd_metric_namespace);
    free(c->no_proxy);
    if (c->origins != NULL) {
        free_values(c->origins->values);
        free(c->origins);
    }
    memset(c, 0, sizeof(*c));
}

void config_report_fini(struct config_report *rep)
{
    string_list_fini(&rep->errors);
    string_list_fini(&rep->warnings);
    string_list_fini(&rep->notes);
    rep->n_dropped = 0;
}

bool config_is_set(const struct config *c, const char *key)
{
    const struct config_key *k = config_key_find(key);

    REQUIRE(k != NULL);
    return c->origins->values[config_key_index(k)].layer != 0;
}

void config_dump(const struct config *c, FILE *out)
{
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);
        const struct config_value *v = &c->origins->values[i];

        (void)fprintf(out, "%s: ", key->name);
        config_print(c, key, out);
        (void)fprintf(out, "  # %s", v->layer != 0 ? v->origin : "default");
        if (v->layer == 0 && key->def_note != NULL)
            (void)fprintf(out, ": %s", key->def_note);
        (void)fputc('\n', out);
    }
}
