/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs/configuration.md and conf.d/retriever.yaml, written from the table, so
 * that neither can say what the program does not do.
 */
#include <string.h>

#include "agent/config_table.h"

#define WIDTH 78

static const char *type_name(const struct config_key *key)
{
    switch (key->type) {
    case KEY_BOOL:
        return "switch";
    case KEY_INT:
        return (key->flags & KEY_RANDOM) != 0 ? "number or word" : "number";
    case KEY_DOUBLE:
        return "decimal";
    case KEY_STRING:
        return "text";
    case KEY_LIST:
        return "list";
    case KEY_CHOICE:
        return "choice";
    case KEY_DURATION:
        return "duration";
    case KEY_BYTES:
        return "size";
    case KEY_MODE:
        return "octal";
    }
    return "";
}

/* `DD_X`, `DD_ALIAS`, ... */
static void write_env_names(const struct config_key *key, const char *quote,
                            FILE *out)
{
    char name[CONFIG_MAX_NAME];

    config_env_name(key->name, name, sizeof(name));
    (void)fprintf(out, "%s%s%s", quote, name, quote);
    for (int i = 0; i < CONFIG_ALIASES && key->aliases[i] != NULL; i++) {
        config_env_name(key->aliases[i], name, sizeof(name));
        (void)fprintf(out, ", %s%s%s", quote, name, quote);
    }
    for (int i = 0; i < 2 && key->env[i] != NULL; i++)
        (void)fprintf(out, ", %s%s%s", quote, key->env[i], quote);
}

/* Text for a cell: outside of `code` a '<' would begin HTML. */
static void write_markdown(const char *text, FILE *out)
{
    bool code = false;

    for (; *text != '\0'; text++) {
        if (*text == '`')
            code = !code;
        if (*text == '<' && !code)
            (void)fputs("&lt;", out);
        else
            (void)fputc(*text, out);
    }
}

static void write_default(const struct config_key *key, const char *quote,
                          FILE *out)
{
    if (key->def_note != NULL)
        write_markdown(key->def_note, out);
    else if (key->def[0] == '\0')
        (void)fputs(key->type == KEY_LIST ? "none" : "empty", out);
    else
        (void)fprintf(out, "%s%s%s", quote, key->def, quote);
    if (key->def_exec != NULL)
        (void)fprintf(out, "; in `exec`: %s%s%s", quote, key->def_exec, quote);
}

static void write_row(const struct config_key *key, FILE *out)
{
    char bounds[160];

    config_bounds_text(key, bounds, sizeof(bounds));
    (void)fprintf(out, "| `%s`", key->name);
    for (int i = 0; i < CONFIG_ALIASES && key->aliases[i] != NULL; i++)
        (void)fprintf(out, "<br>(also `%s`)", key->aliases[i]);
    (void)fputs(" | ", out);
    write_env_names(key, "`", out);
    (void)fprintf(out, " | %s", type_name(key));
    if (bounds[0] != '\0' && key->type != KEY_BOOL)
        (void)fprintf(out, ", %s", bounds);
    (void)fputs(" | ", out);
    write_default(key, "`", out);
    (void)fputs(" | ", out);
    write_markdown(key->help, out);
    (void)fputs(" |\n", out);
}

void config_write_docs(FILE *out)
{
    (void)fputs(
        "# Configuration\n\n"
        "<!-- Written by `retriever check --generate-docs` from the table in "
        "agent/config_keys*.c; do not edit. -->\n\n"
        "From weak to strong:\n\n"
        "1. the defaults below;\n"
        "2. one file: `-c FILE`, else `/etc/retriever/retriever.yaml`, else "
        "the Datadog Agent's\n   `/etc/datadog-agent/datadog.yaml`;\n"
        "3. drop-ins `/etc/retriever/conf.d/*.yaml`, in the order of their "
        "names;\n"
        "4. the environment;\n"
        "5. `--set KEY=VALUE` on the command line, the last one wins.\n\n"
        "`retriever check` prints the effective configuration, where each "
        "value comes from, and every fault as\n"
        "`file:line:column: key: value and what it must be`. With a fault "
        "`retriever run` refuses to start (exit 2);\n"
        "`retriever exec` warns, uses the key's default and runs the job.\n\n"
        "Names and meanings are the Datadog Agent's where it has the key. A "
        "key of the Agent that has no meaning here is\n"
        "ignored; one whose absence would lose or misplace data gives a "
        "warning; a name that nobody knows gives a\n"
        "warning with the nearest one.\n\n"
        "Values: a *switch* is true or false (also on, off, yes, no, 1, 0). A "
        "*duration* is a plain number in the unit\n"
        "given, or has a unit of its own: `500ms`, `1m30s`. A *size* is bytes, "
        "or `64KiB`, `256MiB`. A *list* is a YAML\n"
        "list; in a variable its items stand between blanks, or it is JSON. "
        "An empty variable counts as not set, except\n"
        "those of the two sockets, where it means off.\n",
        out);
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);

        if (key->section != NULL)
            (void)fprintf(out,
                          "\n## %s\n\n"
                          "| key | variable | type | default | meaning |\n"
                          "|---|---|---|---|---|\n",
                          key->section);
        write_row(key, out);
    }
}

/* Comment lines of at most WIDTH columns. */
static void write_wrapped(const char *text, const char *indent, FILE *out)
{
    size_t column = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, " ");

        if (column > 0 && column + 1 + n > WIDTH) {
            (void)fputc('\n', out);
            column = 0;
        }
        column += (size_t)fprintf(out, "%s%s%.*s", column == 0 ? "## " : " ",
                                  column == 0 ? indent : "", (int)n, text);
        text += n + strspn(text + n, " ");
    }
    (void)fputc('\n', out);
}

static void write_example_value(const struct config_key *key, FILE *out)
{
    struct string_list items = {0};

    if (key->type == KEY_LIST) {
        (void)fputc('[', out);
        if (config_split(key, key->def, &items) == 0) {
            for (size_t i = 0; i < items.n; i++)
                (void)fprintf(out, "%s%s", i > 0 ? ", " : "", items.items[i]);
            string_list_fini(&items);
        }
        (void)fputs("]\n", out);
    } else if (key->type == KEY_STRING && key->def[0] == '\0') {
        (void)fputs("\"\"\n", out);
    } else {
        (void)fprintf(out, "%s\n", key->def);
    }
}

static void write_example_key(const struct config_key *key, const char *indent,
                              const char *last, FILE *out)
{
    char text[1024];
    char bounds[160];

    (void)fputc('\n', out);
    write_wrapped(key->help, indent, out);
    config_bounds_text(key, bounds, sizeof(bounds));
    (void)snprintf(text, sizeof(text), "(%s%s%s; default: %s%s%s)",
                   type_name(key),
                   bounds[0] != '\0' && key->type != KEY_BOOL ? ", " : "",
                   key->type != KEY_BOOL ? bounds : "",
                   key->def_note != NULL   ? key->def_note
                   : key->def[0] == '\0'   ? "none"
                   : strlen(key->def) > 60 ? "as below"
                                           : key->def,
                   key->def_exec != NULL ? "; in `exec`: " : "",
                   key->def_exec != NULL ? key->def_exec : "");
    write_wrapped(text, indent, out);
    (void)fprintf(out, "## %s", indent);
    write_env_names(key, "", out);
    (void)fprintf(out, "\n# %s%s: ", indent, last);
    write_example_value(key, out);
}

void config_write_example(FILE *out)
{
    char open[CONFIG_MAX_NAME] = ""; /* map whose keys are being written */

    (void)fputs(
        "# SPDX-License-Identifier: Apache-2.0\n"
        "##\n"
        "## Retriever: every key with its default. Take the `# ` off the "
        "lines you change.\n"
        "## `retriever check` says what is in force and why. Written by\n"
        "## `retriever check --generate-example`; docs/configuration.md is "
        "the same as a table.\n",
        out);
    for (size_t i = 0; i < config_n_keys(); i++) {
        const struct config_key *key = config_key_at(i);
        const char *dot = strchr(key->name, '.');

        if (key->section != NULL)
            (void)fprintf(out, "\n## ---- %s ----\n", key->section);
        if (dot == NULL) {
            open[0] = '\0';
            write_example_key(key, "", key->name, out);
            continue;
        }
        if (strncmp(open, key->name, (size_t)(dot - key->name) + 1) != 0) {
            (void)snprintf(open, sizeof(open), "%.*s",
                           (int)(dot - key->name) + 1, key->name);
            (void)fprintf(out, "\n# %.*s:\n", (int)(dot - key->name),
                          key->name);
        }
        write_example_key(key, "  ", dot + 1, out);
    }
}
