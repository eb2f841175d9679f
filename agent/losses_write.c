/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports as text. Apart from losses.c so that who writes a receipt does not bring
 * the kernel side with it.
 */
#include <inttypes.h>

#include "agent/losses.h"

static const char *const transport_names[DROP_N_TRANSPORTS] = {
    [DROP_UDP] = "udp", [DROP_UDS] = "uds"};

static void member_str(struct json *j, const char *key, const char *s)
{
    if (s[0] == '\0')
        return;
    json_key(j, key);
    json_str(j, s);
}

static void member_u64(struct json *j, const char *key, uint64_t v)
{
    json_key(j, key);
    json_u64(j, v);
}

static void write_sender(const struct drop_sender *s, struct json *j)
{
    json_object(j);
    member_str(j, "transport", transport_names[s->transport]);
    if (s->pid != 0)
        member_u64(j, "pid", s->pid);
    member_str(j, "comm", s->comm);
    member_str(j, "address", s->address);
    member_str(j, "tags", s->tags);
    member_u64(j, "datagrams", s->lost.packets);
    member_u64(j, "bytes", s->lost.bytes);
    json_end(j);
}

void losses_write_members(const struct drop_report *r, struct json *j)
{
    json_key(j, "lost");
    json_object(j);
    for (int t = 0; t < DROP_N_TRANSPORTS; t++)
        member_u64(j, transport_names[t], r->lost[t].packets);
    member_u64(j, "by_unknown",
               r->unknown[DROP_UDP].packets + r->unknown[DROP_UDS].packets);
    json_end(j);
    json_key(j, "lost_by_sender");
    json_array(j);
    for (uint32_t i = 0; i < r->n_top; i++)
        write_sender(&r->top[i], j);
    json_end(j);
}

void losses_write_waits(const struct own_waits_report *w, struct json *j)
{
    member_u64(j, "waited_ms", w->waited_ns / 1000000);
    member_u64(j, "longest_ms", w->longest_ns / 1000000);
    member_str(j, "because", w->because);
}

void losses_write_waits_text(const struct own_waits_report *w, struct buf *out)
{
    if (w->waited_ns < 1000000)
        return;
    (void)buf_printf(out,
                     "Reader waited %" PRIu64 " ms for a CPU, %" PRIu64
                     " ms at once",
                     w->waited_ns / 1000000, w->longest_ns / 1000000);
    if (w->because[0] != '\0')
        (void)buf_printf(out, ", most behind %s", w->because);
    (void)buf_putc(out, '\n');
}

void losses_write_text(const struct drop_report *r, struct buf *out)
{
    uint64_t unknown =
        r->unknown[DROP_UDP].packets + r->unknown[DROP_UDS].packets;

    if (r->lost[DROP_UDP].packets + r->lost[DROP_UDS].packets == 0)
        return;
    (void)buf_puts(out, "Datagrams that senders lost\n");
    for (uint32_t i = 0; i < r->n_top; i++) {
        const struct drop_sender *s = &r->top[i];
        uint64_t n = s->lost.packets;

        (void)buf_printf(out, "  %-22" PRIu64 " %s ", n,
                         transport_names[s->transport]);
        if (s->pid != 0)
            (void)buf_printf(out, "pid %" PRIu32 " %s %s\n", s->pid, s->comm,
                             s->tags);
        else
            (void)buf_printf(out, "%s\n", s->address);
    }
    if (unknown > 0)
        (void)buf_printf(out, "  %-22" PRIu64 " sender not known\n", unknown);
}
