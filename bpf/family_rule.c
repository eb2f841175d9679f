/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/family_rule.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/num.h"

#define KEY "ebpf.activity.families"
#define BETWEEN " \t;" /* words; the last for lists in variables */

const struct family_rule family_rule_default = {.name = "agent",
                                                .env = "AGENT_MODE=1"};

/* One word `key=value` of a line. */
struct word {
    char key[16];
    char value[128];
};

/* Where an error belongs, and where it goes. */
struct place {
    size_t index;
    char *error;
    size_t size;
};

static int refuse(const struct place *at, const char *key, const char *why,
                  const char *value)
{
    (void)snprintf(at->error, at->size, KEY "[%zu]%s%s: %s%s%s%s", at->index,
                   key[0] != '\0' ? "." : "", key, why,
                   value[0] != '\0' ? " (\"" : "", value,
                   value[0] != '\0' ? "\")" : "");
    return -EINVAL;
}

/* Take the next word off *@line. Returns 1, 0 at the end, or -EINVAL. */
static int next_word(const char **line, struct word *w, const struct place *at)
{
    const char *p = *line + strspn(*line, BETWEEN);
    size_t n = strcspn(p, "=\"" BETWEEN);
    bool quoted = false;

    if (*p == '\0')
        return 0;
    if (p[n] != '=' || n == 0 || n >= sizeof(w->key))
        return refuse(at, "", "words are key=value", p);
    memcpy(w->key, p, n);
    w->key[n] = '\0';
    p += n + 1;
    for (n = 0; *p != '\0' && (quoted || strchr(BETWEEN, *p) == NULL); p++) {
        if (*p == '"') {
            quoted = !quoted;
            continue;
        }
        if (n + 1 == sizeof(w->value))
            return refuse(at, w->key, "is longer than 127 bytes", "");
        w->value[n++] = *p;
    }
    w->value[n] = '\0';
    if (quoted)
        return refuse(at, w->key, "has a quote without its end", "");
    if (n == 0)
        return refuse(at, w->key, "is empty", "");
    *line = p;
    return 1;
}

/* fnmatch() takes a bracket without its end, and a lone backslash at the end, as
 * something that never or hardly ever fits: surely not what was meant. */
static const char *broken_pattern(const char *p)
{
    for (; *p != '\0'; p++) {
        if (*p == '\\') {
            if (*++p == '\0')
                return "is a pattern that ends in \\";
        } else if (*p == '[') {
            p++;
            if (*p == '!' || *p == '^')
                p++;
            if (*p == ']')
                p++;
            p = strchr(p, ']');
            if (p == NULL)
                return "is a pattern with [ and no ]";
        }
    }
    return NULL;
}

static int set_text(char *out, size_t size, const struct word *w, bool once,
                    const struct place *at)
{
    if (once && out[0] != '\0')
        return refuse(at, w->key, "is given twice", w->value);
    if (strlen(w->value) >= size)
        return refuse(at, w->key, "is longer than 63 bytes", w->value);
    memcpy(out, w->value, strlen(w->value) + 1);
    return 0;
}

static int set_pattern(char *out, size_t size, const struct word *w,
                       const struct place *at)
{
    const char *broken = broken_pattern(w->value);

    if (broken != NULL)
        return refuse(at, w->key, broken, w->value);
    return set_text(out, size, w, true, at);
}

static int add_pattern(char list[FAMILY_MAX_NAMES][64], uint32_t *n,
                       const struct word *w, const struct place *at)
{
    int rc;

    if (*n == FAMILY_MAX_NAMES)
        return refuse(at, w->key, "is given more than 8 times", w->value);
    rc = set_pattern(list[*n], sizeof(list[*n]), w, at);
    if (rc == 0)
        ++*n;
    return rc;
}

static int set_env(struct family_rule *r, const struct word *w,
                   const struct place *at)
{
    if (strchr(w->value, '=') == NULL || w->value[0] == '=')
        return refuse(at, w->key, "is NAME=value", w->value);
    return set_text(r->env, sizeof(r->env), w, true, at);
}

static int set_pid(struct family_rule *r, const struct word *w,
                   const struct place *at)
{
    uint64_t v;

    if (num_parse_u64(w->value, &v) != 0 || v == 0 || v > INT32_MAX)
        return refuse(at, w->key, "is a process id", w->value);
    r->pid = (uint32_t)v;
    return 0;
}

static int set_by(struct family_rule *r, const struct word *w,
                  const struct place *at)
{
    r->by_container = strcmp(w->value, "container") == 0;
    if (!r->by_container && strcmp(w->value, "process") != 0)
        return refuse(at, w->key, "is process or container", w->value);
    return 0;
}

static int set(struct family_rule *r, const struct word *w,
               const struct place *at)
{
    const struct {
        const char *key;
        char *out;
        size_t size;
    } patterns[] = {
        {"comm", r->comm, sizeof(r->comm)},
        {"exe", r->exe, sizeof(r->exe)},
        {"argv0", r->argv0, sizeof(r->argv0)},
        {"cgroup", r->cgroup, sizeof(r->cgroup)},
    };

    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        if (strcmp(w->key, patterns[i].key) == 0)
            return set_pattern(patterns[i].out, patterns[i].size, w, at);
    }
    if (strcmp(w->key, "name") == 0)
        return set_text(r->name, sizeof(r->name), w, true, at);
    if (strcmp(w->key, "env") == 0)
        return set_env(r, w, at);
    if (strcmp(w->key, "pid") == 0)
        return set_pid(r, w, at);
    if (strcmp(w->key, "by") == 0)
        return set_by(r, w, at);
    if (strcmp(w->key, "sub") == 0)
        return add_pattern(r->sub, &r->n_sub, w, at);
    if (strcmp(w->key, "skill") == 0)
        return add_pattern(r->skill, &r->n_skill, w, at);
    return refuse(at, w->key,
                  "is unknown; there are name, env, comm, exe, argv0, cgroup, "
                  "pid, sub, skill and by",
                  "");
}

static int parse(struct family_rule *r, const char *line,
                 const struct place *at)
{
    struct word w;
    int rc;

    memset(r, 0, sizeof(*r));
    for (;;) {
        rc = next_word(&line, &w, at);
        if (rc <= 0)
            break;
        rc = set(r, &w, at);
        if (rc != 0)
            break;
    }
    if (rc != 0)
        return rc;
    if (r->name[0] == '\0')
        return refuse(at, "name", "is missing", "");
    if (r->env[0] == '\0' && r->comm[0] == '\0' && r->exe[0] == '\0' &&
        r->argv0[0] == '\0' && r->cgroup[0] == '\0' && r->pid == 0)
        return refuse(at, "",
                      "fits every process; give env, comm, exe, argv0, cgroup "
                      "or pid",
                      "");
    return 0;
}

int family_rule_parse_all(struct family_rule *out, size_t max,
                          const char *const *lines, size_t n, char *error,
                          size_t size)
{
    struct place at = {.error = error, .size = size};

    for (; at.index < n; at.index++) {
        int rc;

        if (at.index == max) {
            (void)snprintf(error, size, KEY ": there are more than %zu", max);
            return -EINVAL;
        }
        rc = parse(&out[at.index], lines[at.index], &at);
        if (rc != 0)
            return rc;
        for (size_t i = 0; i < at.index; i++) {
            if (strcmp(out[i].name, out[at.index].name) == 0)
                return refuse(&at, "name", "is that of another", out[i].name);
        }
    }
    return (int)n;
}

/* ---- Matching ------------------------------------------------------------ */

static bool fits(const char *pattern, const char *text)
{
    return pattern[0] == '\0' || fnmatch(pattern, text, 0) == 0;
}

static bool has_variable(const char *wanted, const struct family_facts *f)
{
    size_t n = strlen(wanted);

    for (size_t i = 0; i < f->n_environ;) {
        size_t len = strnlen(f->environ + i, f->n_environ - i);

        if (len == n && memcmp(f->environ + i, wanted, n) == 0)
            return true;
        i += len + 1;
    }
    return n == 0;
}

bool family_rule_matches(const struct family_rule *r,
                         const struct family_facts *f)
{
    return (r->pid == 0 || r->pid == f->pid) && fits(r->comm, f->comm) &&
           fits(r->exe, f->exe) && fits(r->argv0, f->argv0) &&
           fits(r->cgroup, f->cgroup) && has_variable(r->env, f);
}

const struct family_rule *family_rule_first(const struct family_rule *rules,
                                            size_t n,
                                            const struct family_facts *f)
{
    for (size_t i = 0; i < n; i++) {
        if (family_rule_matches(&rules[i], f))
            return &rules[i];
    }
    return NULL;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static bool named(const char (*patterns)[64], uint32_t n,
                  const struct family_facts *f)
{
    for (uint32_t i = 0; i < n; i++) {
        if (fnmatch(patterns[i], f->comm, 0) == 0 ||
            fnmatch(patterns[i], last_part(f->exe), 0) == 0 ||
            fnmatch(patterns[i], last_part(f->argv0), 0) == 0)
            return true;
    }
    return false;
}

enum family_role family_rule_role(const struct family_rule *r,
                                  const struct family_facts *f)
{
    if (r != NULL && named(r->skill, r->n_skill, f))
        return FAMILY_SKILL;
    if (r != NULL && named(r->sub, r->n_sub, f))
        return FAMILY_SUB_AGENT;
    return FAMILY_TOOL;
}

const char *family_role_name(enum family_role role)
{
    switch (role) {
    case FAMILY_AGENT:
        return "agent";
    case FAMILY_SUB_AGENT:
        return "subagent";
    case FAMILY_TOOL:
        return "tool";
    case FAMILY_SKILL:
        return "skill";
    case FAMILY_UNKNOWN:
    case FAMILY_N_ROLES:
        break;
    }
    return "unknown";
}
