/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML files. libyaml gives a graph of nodes with line and column; nested maps
 * become dotted keys, typing is the table's.
 *
 * Hostile files: the size is bounded by the caller, anchors and aliases are
 * counted before the graph is built (libyaml looks them up one by one, which is
 * quadratic), and the walk goes only where the table has keys, so neither a cycle
 * nor a "billion laughs" is ever unfolded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "agent/config_table.h"

#define MAX_ANCHORS 100

struct walk {
    struct config_loader *l;
    const char *source;
    yaml_document_t *doc;
};

static struct config_place place(const struct walk *w, yaml_mark_t mark)
{
    return (struct config_place){.source = w->source,
                                 .line = (unsigned)mark.line + 1,
                                 .column = (unsigned)mark.column + 1};
}

static bool is_null(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    if (node->type == YAML_NO_NODE)
        return true;
    if (node->type != YAML_SCALAR_NODE ||
        node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp((const char *)node->data.scalar.value, words[i]) == 0)
            return true;
    }
    return false;
}

/* Would this value switch something on? Tells apart `x: false` and `x: true` of a
 * key that is not served. */
static bool is_active(const yaml_node_t *node)
{
    static const char *const off[] = {"", "false", "False", "no", "off", "0"};

    if (is_null(node))
        return false;
    if (node->type == YAML_SEQUENCE_NODE)
        return node->data.sequence.items.top > node->data.sequence.items.start;
    if (node->type == YAML_MAPPING_NODE)
        return node->data.mapping.pairs.top > node->data.mapping.pairs.start;
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        if (strcmp((const char *)node->data.scalar.value, off[i]) == 0)
            return false;
    }
    return true;
}

/* Returns 0, -EINVAL (an item that is no scalar), -E2BIG or -ENOMEM. */
static int collect(yaml_document_t *doc, const yaml_node_t *seq,
                   struct string_list *out)
{
    yaml_node_item_t *i = seq->data.sequence.items.start;

    for (; i < seq->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(doc, *i);
        const char *text;

        if (item == NULL || item->type != YAML_SCALAR_NODE)
            return -EINVAL;
        text = (const char *)item->data.scalar.value;
        if (strlen(text) != item->data.scalar.length)
            return -EINVAL;
        if (text[0] == '\0')
            continue;
        if (out->n == CONFIG_MAX_ITEMS)
            return -E2BIG;
        if (string_list_add(out, text, item->data.scalar.length) != 0)
            return -ENOMEM;
    }
    return 0;
}

static void offer_sequence(struct walk *w, const struct config_key *key,
                           const char *path, const yaml_node_t *node)
{
    struct config_place at = place(w, node->start_mark);
    struct string_list items = {0};
    int rc;

    at.key = path;
    if (key->type != KEY_LIST) {
        config_refused(w->l, key);
        config_found(w->l, FINDING_ERROR, &at,
                     "%s: takes one value, not a list", path);
        return;
    }
    rc = collect(w->doc, node, &items);
    if (rc == 0) {
        config_offer_list(w->l, &at, key, &items);
        return;
    }
    string_list_fini(&items);
    if (rc == -ENOMEM)
        w->l->failed = true;
    else
        config_found(w->l, FINDING_ERROR, &at, "%s: %s", path,
                     rc == -E2BIG ? "holds more than 1000 items"
                                  : "takes a list of plain values");
}

static void offer(struct walk *w, const struct config_key *key,
                  const char *path, const yaml_node_t *node)
{
    struct config_place at = place(w, node->start_mark);

    at.key = path;
    if (is_null(node))
        config_found(w->l, FINDING_NOTE, &at,
                     "%s: has no value; the default stays", path);
    else if (node->type == YAML_SCALAR_NODE)
        config_offer(w->l, &at, key, (const char *)node->data.scalar.value,
                     node->data.scalar.length);
    else if (node->type == YAML_SEQUENCE_NODE)
        offer_sequence(w, key, path, node);
    else {
        config_refused(w->l, key);
        config_found(w->l, FINDING_ERROR, &at, "%s: takes %s, not a map", path,
                     key->type == KEY_LIST ? "a list" : "one value");
    }
}

static void walk_map(struct walk *w, const yaml_node_t *map,
                     const char *prefix);

static void walk_member(struct walk *w, const char *path,
                        const yaml_node_t *name, const yaml_node_t *node)
{
    const struct config_key *key = config_key_find(path);
    struct config_place at = place(w, name->start_mark);

    if (key != NULL) {
        offer(w, key, path, node);
    } else if (config_is_prefix(path)) {
        if (node->type == YAML_MAPPING_NODE)
            walk_map(w, node, path); /* as deep as the table's dots */
        else if (!is_null(node))
            config_found(w->l, FINDING_ERROR, &at,
                         "%s: takes a map of keys below it", path);
    } else {
        config_unknown(w->l, &at, path, is_active(node));
    }
}

static void walk_map(struct walk *w, const yaml_node_t *map, const char *prefix)
{
    yaml_node_pair_t *p = map->data.mapping.pairs.start;
    char path[CONFIG_MAX_NAME];

    for (; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *name = yaml_document_get_node(w->doc, p->key);
        const yaml_node_t *node = yaml_document_get_node(w->doc, p->value);
        int n;

        if (name == NULL || node == NULL)
            continue;
        if (name->type != YAML_SCALAR_NODE ||
            strlen((const char *)name->data.scalar.value) !=
                name->data.scalar.length) {
            struct config_place at = place(w, name->start_mark);

            config_found(w->l, FINDING_ERROR, &at,
                         "the name of a key must be plain text");
            continue;
        }
        n = snprintf(path, sizeof(path), "%s%s%s", prefix,
                     prefix[0] != '\0' ? "." : "",
                     (const char *)name->data.scalar.value);
        if ((size_t)n >= sizeof(path)) {
            struct config_place at = place(w, name->start_mark);

            config_found(w->l, FINDING_WARNING, &at,
                         "unknown key: longer than any of ours");
            continue;
        }
        walk_member(w, path, name, node);
    }
}

static void report_syntax(struct config_loader *l, const char *source,
                          const yaml_parser_t *parser)
{
    struct config_place at = {.source = source,
                              .line = (unsigned)parser->problem_mark.line + 1,
                              .column =
                                  (unsigned)parser->problem_mark.column + 1};

    if (parser->error == YAML_MEMORY_ERROR) {
        l->failed = true;
        return;
    }
    if (parser->error == YAML_READER_ERROR) { /* bytes, not yet lines */
        at.line = 0;
        config_found(l, FINDING_ERROR, &at,
                     "not valid YAML: %s at byte %zu; nothing of this file "
                     "is used",
                     parser->problem, parser->problem_offset);
        return;
    }
    config_found(l, FINDING_ERROR, &at,
                 "not valid YAML: %s%s%s; nothing of this file is used",
                 parser->context != NULL ? parser->context : "",
                 parser->context != NULL ? ", " : "",
                 parser->problem != NULL ? parser->problem : "unknown error");
}

/* Is it worth building the graph? Syntax errors are left to the second pass,
 * which names them. */
static bool count_anchors(struct config_loader *l, const char *source,
                          const char *text, size_t n)
{
    yaml_parser_t parser;
    unsigned n_anchors = 0;
    bool more = true;

    if (yaml_parser_initialize(&parser) == 0) {
        l->failed = true;
        return false;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    while (more && n_anchors <= MAX_ANCHORS) {
        yaml_event_t e;

        if (yaml_parser_parse(&parser, &e) == 0)
            break;
        if (e.type == YAML_ALIAS_EVENT ||
            (e.type == YAML_SCALAR_EVENT && e.data.scalar.anchor != NULL) ||
            (e.type == YAML_SEQUENCE_START_EVENT &&
             e.data.sequence_start.anchor != NULL) ||
            (e.type == YAML_MAPPING_START_EVENT &&
             e.data.mapping_start.anchor != NULL))
            n_anchors++;
        more = e.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    if (n_anchors > MAX_ANCHORS) {
        struct config_place at = {.source = source};

        config_found(l, FINDING_ERROR, &at,
                     "more than %d anchors and aliases; nothing of this file "
                     "is used",
                     MAX_ANCHORS);
        return false;
    }
    return true;
}

/* False: nothing follows this document. */
static bool read_document(struct walk *w, yaml_parser_t *parser, bool first)
{
    yaml_document_t doc;
    yaml_node_t *root;
    bool more;

    if (yaml_parser_load(parser, &doc) == 0) {
        report_syntax(w->l, w->source, parser);
        return false;
    }
    w->doc = &doc;
    root = yaml_document_get_root_node(&doc);
    more = root != NULL;
    if (root != NULL && !first) {
        struct config_place at = place(w, root->start_mark);

        config_found(w->l, FINDING_ERROR, &at,
                     "a second document; only the first is used");
        more = false;
    } else if (root != NULL && root->type == YAML_MAPPING_NODE) {
        walk_map(w, root, "");
    } else if (root != NULL && !is_null(root)) {
        struct config_place at = place(w, root->start_mark);

        config_found(w->l, FINDING_ERROR, &at, "must be lines of `key: value`");
    }
    yaml_document_delete(&doc);
    w->doc = NULL;
    return more;
}

void config_yaml_read(struct config_loader *l, const char *source,
                      const char *text, size_t n)
{
    struct walk w = {.l = l, .source = source};
    yaml_parser_t parser;

    if (!count_anchors(l, source, text, n))
        return;
    if (yaml_parser_initialize(&parser) == 0) {
        l->failed = true;
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    if (read_document(&w, &parser, true))
        (void)read_document(&w, &parser, false);
    yaml_parser_delete(&parser);
}

int config_yaml_list(const char *text, struct string_list *out)
{
    struct string_list items = {0};
    yaml_parser_t parser;
    yaml_document_t doc;
    yaml_node_t *root;
    int rc = -EINVAL;

    if (yaml_parser_initialize(&parser) == 0)
        return -ENOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text,
                                 strlen(text));
    if (yaml_parser_load(&parser, &doc) != 0) {
        root = yaml_document_get_root_node(&doc);
        if (root != NULL && root->type == YAML_SEQUENCE_NODE)
            rc = collect(&doc, root, &items);
        yaml_document_delete(&doc);
    } else if (parser.error == YAML_MEMORY_ERROR) {
        rc = -ENOMEM;
    }
    yaml_parser_delete(&parser);
    if (rc == 0)
        *out = items;
    else
        string_list_fini(&items);
    return rc;
}
