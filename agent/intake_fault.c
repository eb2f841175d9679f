/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void fault_init(struct fault_plan *p, uint64_t seed)
{
    memset(p, 0, sizeof(*p));
    p->random = seed;
}

/* Digits at *@text, moved behind them. */
static int parse_number(const char **text, unsigned max, unsigned *out)
{
    unsigned v = 0;
    const char *p = *text;

    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (unsigned)(*p - '0');
        if (v > max)
            return FAULT_BAD;
    }
    if (p == *text)
        return FAULT_BAD;
    *text = p;
    *out = v;
    return 0;
}

/* One outcome at *@text, moved behind it. */
static int parse_outcome(const char **text, struct fault_outcome *out)
{
    static const struct {
        const char *word;
        enum fault_kind kind;
    } words[] = {
        {"late-reset", FAULT_LATE_RESET},
        {"reset", FAULT_RESET},
        {"stall", FAULT_STALL},
        {"accept", FAULT_ACCEPT},
    };
    struct fault_outcome o = {.kind = FAULT_STATUS};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t n = strlen(words[i].word);

        if (strncmp(*text, words[i].word, n) == 0) {
            *text += n;
            *out = (struct fault_outcome){.kind = words[i].kind};
            return 0;
        }
    }
    if (parse_number(text, 599, &o.status) != 0 || o.status < 200)
        return FAULT_BAD;
    if (o.status < 300)
        o.kind = FAULT_ACCEPT;
    if (**text == '/') {
        (*text)++;
        if (parse_number(text, 86400, &o.retry_after_s) != 0)
            return FAULT_BAD;
    }
    *out = o;
    return 0;
}

int fault_set_script(struct fault_plan *p, const char *text)
{
    struct fault_plan new;

    fault_init(&new, 0);
    while (*text != '\0') {
        struct fault_outcome o;
        unsigned n_times = 1;

        if (new.n_script == FAULT_SCRIPT_MAX || parse_outcome(&text, &o) != 0)
            return FAULT_BAD;
        if (*text == '*') {
            text++;
            if (parse_number(&text, 1000000, &n_times) != 0)
                return FAULT_BAD;
        }
        new.script[new.n_script].outcome = o;
        new.script[new.n_script++].n_times = n_times;
        if (*text == ',' && text[1] != '\0')
            text++;
        else if (*text != '\0')
            return FAULT_BAD;
    }
    memcpy(p->script, new.script, sizeof(p->script));
    p->n_script = new.n_script;
    p->at_script = 0;
    return 0;
}

int fault_add_rule(struct fault_plan *p, const char *text)
{
    struct fault_outcome o;
    double sum = 0;
    double v;
    char *end;

    if (p->n_rules == FAULT_RULES_MAX || parse_outcome(&text, &o) != 0 ||
        *text != ':' || text[1] < '.' || text[1] > '9')
        return FAULT_BAD;
    v = strtod(text + 1, &end);
    for (size_t i = 0; i < p->n_rules; i++)
        sum += p->rules[i].probability;
    /* a little above 1: ten tenths do not add up to 1 in binary */
    if (*end != '\0' || !(v >= 0 && sum + v <= 1.0 + 1e-9))
        return FAULT_BAD;
    p->rules[p->n_rules].outcome = o;
    p->rules[p->n_rules++].probability = v;
    return 0;
}

void fault_clear_rules(struct fault_plan *p)
{
    p->n_rules = 0;
}

/* splitmix64: a full period from any seed, 0 included */
static double next_random(struct fault_plan *p)
{
    uint64_t z = (p->random += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

struct fault_outcome fault_next(struct fault_plan *p)
{
    double at;

    while (p->at_script < p->n_script) {
        if (p->script[p->at_script].n_times > 0) {
            p->script[p->at_script].n_times--;
            return p->script[p->at_script].outcome;
        }
        p->at_script++;
    }
    if (p->n_rules == 0)
        return (struct fault_outcome){.kind = FAULT_ACCEPT};
    at = next_random(p);
    for (size_t i = 0; i < p->n_rules; i++) {
        at -= p->rules[i].probability;
        if (at < 0)
            return p->rules[i].outcome;
    }
    return (struct fault_outcome){.kind = FAULT_ACCEPT};
}
