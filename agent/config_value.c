/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to typed values and back, for each type of key. Everything that a value's
 * text may be is decided here, whatever source it came from.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/base/contract.h"
#include "agent/base/num.h"
#include "agent/config_table.h"

static const char blanks[] = " \t\r\n";

/* ---- Lists of strings --------------------------------------------------- */

int string_list_add(struct string_list *l, const char *text, size_t n)
{
    char **items = reallocarray(l->items, l->n + 1, sizeof(*items));

    if (items == NULL)
        return -ENOMEM;
    l->items = items;
    items[l->n] = strndup(text, n);
    if (items[l->n] == NULL)
        return -ENOMEM;
    l->n++;
    return 0;
}

void string_list_fini(struct string_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    l->items = NULL;
    l->n = 0;
}

bool string_list_has(const struct string_list *l, const char *text)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->items[i], text) == 0)
            return true;
    }
    return false;
}

static bool is_blank(char c)
{
    return c != '\0' && strchr(blanks, c) != NULL;
}

size_t config_trim(const char **text, size_t n)
{
    while (n > 0 && is_blank((*text)[n - 1]))
        n--;
    for (; n > 0 && is_blank(**text); n--)
        (*text)++;
    return n;
}

int config_split(const struct config_key *key, const char *text,
                 struct string_list *out)
{
    bool commas =
        (key->flags & KEY_COMMAS) != 0 && strpbrk(text, blanks) == NULL;
    const char *separators = commas ? "," : blanks;
    struct string_list l = {0};
    int rc = 0;

    for (;;) {
        size_t n;

        text += strspn(text, separators);
        n = strcspn(text, separators);
        if (n == 0)
            break;
        rc = l.n == CONFIG_MAX_ITEMS ? -E2BIG : string_list_add(&l, text, n);
        if (rc != 0) {
            string_list_fini(&l);
            return rc;
        }
        text += n;
    }
    *out = l;
    return 0;
}

/* ---- Parsing ------------------------------------------------------------ */

/* A number for people: whole ones without a fraction. */
static void number_text(double v, char *out, size_t size)
{
    if (v == floor(v) && fabs(v) < 1e15)
        (void)snprintf(out, size, "%.0f", v);
    else
        (void)snprintf(out, size, "%g", v);
}

static int check_bounds(const struct config_key *key, double v,
                        char why[CONFIG_WHY])
{
    const char *unit = key->unit != NULL ? key->unit : "";
    bool above = v > key->max;
    char bound[32];

    if (!above && v >= key->min)
        return 0;
    number_text(above ? key->max : key->min, bound, sizeof(bound));
    (void)snprintf(why, CONFIG_WHY, "is %s %s%s%s",
                   above ? "above the maximum" : "below the minimum", bound,
                   unit[0] != '\0' ? " " : "", unit);
    return -EINVAL;
}

static int refuse(char why[CONFIG_WHY], const char *text)
{
    (void)snprintf(why, CONFIG_WHY, "%s", text);
    return -EINVAL;
}

static int store_number(const struct config_key *key, double v, void *dest)
{
    if (dest == NULL)
        return 0;
    switch (key->size) {
    case sizeof(uint16_t):
        *(uint16_t *)dest = (uint16_t)v;
        break;
    case sizeof(uint32_t):
        if (v < 0)
            *(int32_t *)dest = (int32_t)v;
        else
            *(uint32_t *)dest = (uint32_t)v;
        break;
    case sizeof(uint64_t):
        *(uint64_t *)dest = (uint64_t)v;
        break;
    default:
        REQUIRE(!"a field that holds this number");
    }
    return 0;
}

static int parse_bool(const char *text, void *dest, char why[CONFIG_WHY])
{
    static const char *const yes[] = {"on", "yes", "true", "t", "1"};
    static const char *const no[] = {"off", "no", "false", "f", "0"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        bool is = strcasecmp(text, yes[i]) == 0;

        if (!is && strcasecmp(text, no[i]) != 0)
            continue;
        if (dest != NULL)
            *(bool *)dest = is;
        return 0;
    }
    return refuse(why, "must be true or false");
}

static int parse_int(const struct config_key *key, const char *text, void *dest,
                     char why[CONFIG_WHY])
{
    int64_t v;
    int rc;

    if ((key->flags & KEY_RANDOM) != 0 && strcmp(text, "__random__") == 0)
        return store_number(key, CONFIG_PORT_RANDOM, dest);
    rc = num_parse_i64(text, &v);
    if (rc == NUM_SYNTAX)
        return refuse(why, (key->flags & KEY_RANDOM) != 0
                               ? "must be a whole number or __random__"
                               : "must be a whole number");
    if (rc == NUM_RANGE)
        v = text[0] == '-' ? INT64_MIN : INT64_MAX;
    if ((key->flags & KEY_LATE) != 0)
        return 0;
    rc = check_bounds(key, (double)v, why);
    return rc != 0 ? rc : store_number(key, (double)v, dest);
}

static int parse_double(const struct config_key *key, const char *text,
                        void *dest, char why[CONFIG_WHY])
{
    double v;

    if (num_parse_double(text, &v) != 0)
        return refuse(why, "must be a number");
    if (check_bounds(key, v, why) != 0)
        return -EINVAL;
    if (dest != NULL)
        *(double *)dest = v;
    return 0;
}

/* A plain number is in the key's unit, as the Agent's integer keys are; with a
 * unit it is a duration as Go writes it. */
static int parse_duration(const struct config_key *key, const char *text,
                          void *dest, char why[CONFIG_WHY])
{
    double v;
    double field;

    if (num_parse_double(text, &v) != 0) {
        int64_t ns;
        int rc = num_parse_duration_ns(text, &ns);

        if (rc == NUM_RANGE)
            ns = text[0] == '-' ? INT64_MIN : INT64_MAX;
        else if (rc != 0)
            return refuse(why, "must be a number or a duration such as 500ms "
                               "or 1m30s");
        v = (double)ns / 1e6 / key->unit_ms;
    }
    if (check_bounds(key, v, why) != 0)
        return -EINVAL;
    field = v * key->unit_ms / key->field_ms;
    if (fabs(field - round(field)) > 1e-6)
        return refuse(why, key->field_ms == 1 ? "must be whole milliseconds"
                                              : "must be whole seconds");
    return store_number(key, round(field), dest);
}

static int parse_bytes(const struct config_key *key, const char *text,
                       void *dest, char why[CONFIG_WHY])
{
    bool can_auto = (key->flags & KEY_AUTO) != 0;
    uint64_t v;
    int rc;

    if (can_auto && strcasecmp(text, "auto") == 0)
        return store_number(key, 0, dest);
    rc = num_parse_size_bytes(text, &v);
    if (rc == NUM_RANGE)
        v = UINT64_MAX;
    else if (rc != 0)
        return refuse(why, can_auto
                               ? "must be auto or a size such as 262144 or "
                                 "256MiB"
                               : "must be a size such as 65536 or 64KiB");
    rc = check_bounds(key, (double)v, why);
    return rc != 0 ? rc : store_number(key, (double)v, dest);
}

static int parse_mode(const struct config_key *key, const char *text,
                      void *dest, char why[CONFIG_WHY])
{
    size_t n = strlen(text);
    unsigned v = 0;

    if (n > 2 && text[0] == '0' && (text[1] == 'o' || text[1] == 'O')) {
        text += 2;
        n -= 2;
    }
    if (n == 0 || n > 4 || strspn(text, "01234567") != n)
        return refuse(why, "must be octal permissions such as 0722");
    for (; *text != '\0'; text++)
        v = v * 8 + (unsigned)(*text - '0');
    if (v > (unsigned)key->max)
        return refuse(why, "is above 0777");
    return store_number(key, v, dest);
}

static int parse_choice(const struct config_key *key, const char *text,
                        void *dest, char why[CONFIG_WHY])
{
    const struct config_choice *c = key->choices;
    char known[100];

    for (; c->text != NULL; c++) {
        if (strcasecmp(text, c->text) != 0)
            continue;
        if (dest != NULL && key->size == sizeof(bool))
            *(bool *)dest = c->value != 0;
        else if (dest != NULL)
            *(int *)dest = c->value;
        return 0;
    }
    config_bounds_text(key, known, sizeof(known));
    (void)snprintf(why, CONFIG_WHY, "must be one of %s", known);
    return -EINVAL;
}

static int parse_string(const struct config_key *key, const char *text,
                        void *dest, char why[CONFIG_WHY])
{
    const char *wrong = NULL;

    if (key->check != NULL && text[0] != '\0')
        wrong = key->check(text);
    if (wrong != NULL)
        return refuse(why, wrong);
    if (dest != NULL) {
        char *copy = strdup(text);

        if (copy == NULL)
            return -ENOMEM;
        *(char **)dest = copy;
    }
    return 0;
}

int config_parse(const struct config_key *key, const char *text, void *dest,
                 char why[CONFIG_WHY])
{
    if (text[0] == '\0' && key->type != KEY_STRING && key->type != KEY_LIST)
        return refuse(why, "needs a value");
    switch (key->type) {
    case KEY_BOOL:
        return parse_bool(text, dest, why);
    case KEY_INT:
        return parse_int(key, text, dest, why);
    case KEY_DOUBLE:
        return parse_double(key, text, dest, why);
    case KEY_DURATION:
        return parse_duration(key, text, dest, why);
    case KEY_BYTES:
        return parse_bytes(key, text, dest, why);
    case KEY_MODE:
        return parse_mode(key, text, dest, why);
    case KEY_CHOICE:
        return parse_choice(key, text, dest, why);
    case KEY_STRING:
    case KEY_LIST: /* one item */
        return parse_string(key, text, dest, why);
    }
    return -EINVAL;
}

/* ---- Printing ----------------------------------------------------------- */

void config_bounds_text(const struct config_key *key, char *out, size_t size)
{
    char lo[32], hi[32];
    size_t n = 0;

    out[0] = '\0';
    if (key->choices != NULL) {
        for (const struct config_choice *c = key->choices;
             c->text != NULL && n < size; c++)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "",
                                  c->text);
        return;
    }
    switch (key->type) {
    case KEY_INT:
    case KEY_DOUBLE:
    case KEY_DURATION:
    case KEY_BYTES:
        number_text(key->min, lo, sizeof(lo));
        number_text(key->max, hi, sizeof(hi));
        (void)snprintf(out, size, "%s to %s%s%s", lo, hi,
                       key->unit != NULL ? " " : "",
                       key->unit != NULL ? key->unit : "");
        return;
    case KEY_BOOL:
        (void)snprintf(out, size, "true, false");
        return;
    case KEY_STRING:
    case KEY_LIST:
    case KEY_CHOICE:
    case KEY_MODE:
        return;
    }
}

void config_mask_url(const char *text, char *out, size_t size)
{
    const char *sep = strstr(text, "://");
    const char *begin = sep != NULL ? sep + 3 : text;
    const char *at = strrchr(begin, '@');

    if (at == NULL)
        (void)snprintf(out, size, "%s", text);
    else
        (void)snprintf(out, size, "%.*s*****%s", (int)(begin - text), text, at);
}

static void print_text(const struct config_key *key, const char *text,
                       FILE *out)
{
    char masked[CONFIG_MAX_TEXT];
    size_t n = strlen(text);

    if ((key->flags & KEY_SECRET) != 0 && n > 0) {
        (void)fprintf(out, "\"*****%s\"", n >= 10 ? text + n - 5 : "");
        return;
    }
    if ((key->flags & KEY_USERINFO) != 0) {
        config_mask_url(text, masked, sizeof(masked));
        text = masked;
    }
    (void)fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            (void)fputc('\\', out);
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

static void print_list(const struct config_key *key,
                       const struct string_list *l, FILE *out)
{
    (void)fputc('[', out);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            (void)fputs(", ", out);
        print_text(key, l->items[i], out);
    }
    (void)fputc(']', out);
}

/* Keys without a field of their own: their text, or the default's. */
static void print_value(const struct config *c, const struct config_key *key,
                        FILE *out)
{
    const struct config_value *v = &c->origins->values[config_key_index(key)];
    struct string_list l = {0};
    const char *text = v->text != NULL ? v->text : key->def;

    if (key->type == KEY_STRING) {
        print_text(key, text, out);
    } else if (key->type != KEY_LIST) {
        (void)fputs(text, out);
    } else if (v->layer != 0) {
        print_list(key, &v->list, out);
    } else if (config_split(key, key->def, &l) == 0) {
        print_list(key, &l, out);
        string_list_fini(&l);
    }
}

static double load_number(const struct config_key *key, const void *field)
{
    switch (key->size) {
    case sizeof(uint16_t):
        return *(const uint16_t *)field;
    case sizeof(uint32_t):
        if ((key->flags & KEY_RANDOM) != 0 || key->min < 0)
            return *(const int32_t *)field;
        return *(const uint32_t *)field;
    default:
        return (double)*(const uint64_t *)field;
    }
}

void config_print(const struct config *c, const struct config_key *key,
                  FILE *out)
{
    const void *field = (const char *)c + key->offset;
    const struct config_choice *choice = key->choices;
    double v;
    char text[32];

    if (key->size == 0) {
        print_value(c, key, out);
        return;
    }
    switch (key->type) {
    case KEY_BOOL:
        (void)fputs(*(const bool *)field ? "true" : "false", out);
        return;
    case KEY_DOUBLE:
        (void)fprintf(out, "%g", *(const double *)field);
        return;
    case KEY_STRING:
        print_text(key, *(char *const *)field, out);
        return;
    case KEY_LIST:
        print_list(key, field, out);
        return;
    case KEY_MODE:
        (void)fprintf(out, "%04o", (unsigned)*(const uint32_t *)field);
        return;
    case KEY_CHOICE:
        while (choice->text != NULL &&
               choice->value != (key->size == sizeof(bool)
                                     ? *(const bool *)field
                                     : *(const int *)field))
            choice++;
        (void)fputs(choice->text != NULL ? choice->text : "?", out);
        return;
    case KEY_INT:
    case KEY_DURATION:
    case KEY_BYTES:
        v = load_number(key, field);
        if ((key->flags & KEY_RANDOM) != 0 && v == CONFIG_PORT_RANDOM) {
            (void)fputs("__random__", out);
            return;
        }
        if (key->type == KEY_DURATION)
            v = v * key->field_ms / key->unit_ms;
        number_text(v, text, sizeof(text));
        (void)fputs(text, out);
        return;
    }
}
