/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kernel_report.h"

#include <inttypes.h>
#include <string.h>

#include "agent/base/json.h"
#include "bpf/loader.h"

#define LIST_BYTES 2048 /* of names, and what is left of each */

static const char *mode_name(enum ebpf_mode mode)
{
    switch (mode) {
    case EBPF_AUTO:
        return "auto";
    case EBPF_ON:
        return "true";
    case EBPF_OFF:
        return "false";
    }
    return "?";
}

enum state { OPENING, ON, REDUCED, OFF, DISABLED, N_STATES };

static enum state state_of(const struct kernel_feature *f)
{
    if (f->opening)
        return OPENING;
    if (f->on)
        return f->cause.why[0] == '\0' ? ON : REDUCED;
    return strcmp(f->cause.reason, LOADER_DISABLED) == 0 ? DISABLED : OFF;
}

static const char *state_name(const struct kernel_feature *f)
{
    static const char *const names[N_STATES] = {"opening", "on", "reduced",
                                                "off", "off"};

    return names[state_of(f)];
}

/* ---- One line ------------------------------------------------------------ */

static bool list(const struct kernel_feature *rows, uint32_t n,
                 enum state state, struct buf *out)
{
    bool any = false;

    for (uint32_t i = 0; i < n; i++) {
        const char *left = rows[i].cause.left;

        if (state_of(&rows[i]) != state)
            continue;
        (void)buf_printf(out, "%s%s", any ? "," : "", rows[i].name);
        if (state == REDUCED && left[0] != '\0')
            (void)buf_printf(out, " (%s)", left);
        any = true;
    }
    return any;
}

/* Many lack the same: who needs another thing is told with its own words. */
static void list_causes(const struct kernel_feature *rows, uint32_t n,
                        struct buf *out)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct loader_cause *c = &rows[i].cause;
        enum state state = state_of(&rows[i]);
        const char *news = c->remedy[0] != '\0' ? c->remedy : c->why;

        if ((state != REDUCED && state != OFF) ||
            strstr(buf_cstr(out), news) != NULL)
            continue;
        (void)buf_printf(out, "%s; ", c->why);
        if (c->remedy[0] != '\0')
            (void)buf_printf(out, "%s; ", c->remedy);
    }
}

bool kernel_summary(const struct kernel_feature *rows, uint32_t n,
                    struct buf *out)
{
    struct buf on, reduced, off;
    bool any_on, any_reduced, any_off;

    buf_init(&on, LIST_BYTES);
    buf_init(&reduced, LIST_BYTES);
    buf_init(&off, LIST_BYTES);
    any_on = list(rows, n, ON, &on);
    any_reduced = list(rows, n, REDUCED, &reduced);
    any_off = list(rows, n, OFF, &off);
    (void)buf_printf(out, "kernel metrics are %s", any_on ? "on" : "off");
    if (any_reduced || any_off) {
        (void)buf_printf(out, ", %s: ",
                         any_on        ? "but not all"
                         : any_reduced ? "but for fallbacks"
                                       : "the rest is not touched");
        list_causes(rows, n, out);
        (void)buf_printf(out, "see `retriever ebpf status`");
    }
    if (any_on)
        (void)buf_printf(out, " on=%s", buf_cstr(&on));
    if (any_reduced)
        (void)buf_printf(out, " reduced=\"%s\"", buf_cstr(&reduced));
    if (any_off)
        (void)buf_printf(out, " off=%s", buf_cstr(&off));
    buf_fini(&on);
    buf_fini(&reduced);
    buf_fini(&off);
    return !any_reduced && !any_off;
}

/* ---- The report ---------------------------------------------------------- */

static void write_json(const struct kernel_status *s, enum ebpf_mode mode,
                       const struct loader_cause *off, struct buf *out)
{
    struct json j;

    json_init(&j, out);
    json_object(&j);
    json_member_str(&j, "enabled", mode_name(mode));
    if (off != NULL) {
        json_member_str(&j, "why", off->why);
        json_member_str(&j, "remedy", off->remedy);
    }
    json_key(&j, "features");
    json_array(&j);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct kernel_feature *f = &s->features[i];

        json_object(&j);
        json_member_str(&j, "name", f->name);
        json_member_str(&j, "what", f->what);
        json_member_str(&j, "state", state_name(f));
        json_member_str(&j, "reason", f->cause.reason);
        json_member_str(&j, "why", f->cause.why);
        json_member_str(&j, "left", f->cause.left);
        json_member_str(&j, "remedy", f->cause.remedy);
        json_end(&j);
    }
    json_end(&j);
    json_key(&j, "events");
    json_object(&j);
    json_member_u64(&j, "sent", s->events.sent);
    json_member_u64(&j, "lost", s->events.lost);
    json_member_u64(&j, "bytes", s->events.bytes);
    json_member_u64(&j, "wrong", s->n_wrong);
    json_end(&j);
    json_end(&j);
    (void)json_finish(&j);
    (void)buf_putc(out, '\n');
}

static void write_why(const struct loader_cause *cause, struct buf *out)
{
    if (cause->why[0] != '\0')
        (void)buf_printf(out, "             %s\n", cause->why);
    if (cause->left[0] != '\0')
        (void)buf_printf(out, "             left: %s\n", cause->left);
    if (cause->remedy[0] != '\0')
        (void)buf_printf(out, "             -> %s\n", cause->remedy);
}

static void write_text(const struct kernel_status *s, enum ebpf_mode mode,
                       const struct loader_cause *off, struct buf *out)
{
    (void)buf_printf(out, "Kernel metrics (ebpf.enabled: %s)\n",
                     mode_name(mode));
    if (off != NULL)
        write_why(off, out);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct kernel_feature *f = &s->features[i];

        (void)buf_printf(out, "  %-10s %-8s %s\n", f->name, state_name(f),
                         f->what);
        if (off == NULL)
            write_why(&f->cause, out);
    }
    (void)buf_printf(out,
                     "Events sent %" PRIu64 ", lost %" PRIu64 ", wrong %" PRIu64
                     ", bytes %" PRIu64 "\n",
                     (uint64_t)s->events.sent, (uint64_t)s->events.lost,
                     s->n_wrong, (uint64_t)s->events.bytes);
}

void kernel_report(struct kernel *k, enum ebpf_mode mode,
                   const struct loader_cause *off, bool json, struct buf *out)
{
    struct kernel_status s;

    kernel_status(k, off, &s);
    if (k != NULL)
        off = NULL;
    if (json)
        write_json(&s, mode, off, out);
    else
        write_text(&s, mode, off, out);
}
