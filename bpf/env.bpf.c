/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Uprobes on setenv(), putenv(), unsetenv() and clearenv() of a C library: which
 * watched variable a process changes, and to what. The link's cookie says which of
 * the four it is.
 *
 * A string that a program has never touched is not in memory yet (its first act may
 * be setenv("NAME", "0")), and what does not sleep cannot read it. So the program
 * sleeps where the kernel lets it; elsewhere the entry remembers the arguments and
 * the return, when libc has read them, looks.
 *
 * The value is copied into storage of the task, not into the ring: a page fault may
 * last as long as the process that is looked at wants it to.
 */
#include <linux/ptrace.h>

#include "bpf/env_table.bpf.h"
#include "bpf/events.bpf.h"
#include "bpf/task.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define PAGE 4096u /* the smallest there is */

volatile const struct env_config env_config;

/* An event_env with its value; behind that the NUL, and one byte that tells a longer
 * one. */
struct record {
    __u64 words[(sizeof(struct event_env) + ENV_MAX_VALUE + 8) / 8];
};

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct record);
} env_records SEC(".maps");

struct call {
    __u64 function; /* enum env_function */
    __u64 arg1;
    __u64 arg2;
    __u32 overwrite;
    __u32 in_use;
};

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct call);
} env_calls SEC(".maps");

/* Length with its NUL, or an error. @may_sleep is known to the compiler. */
static __always_inline long read_text(char *to, __u32 size, __u64 from,
                                      const int may_sleep)
{
    long n = bpf_probe_read_user_str(to, size, (const void *)from);
    char c;

    if (n >= 0 || !may_sleep)
        return n;
    (void)bpf_copy_from_user(&c, 1, (const void *)from);
    if ((from ^ (from + size - 1)) >= PAGE)
        (void)bpf_copy_from_user(&c, 1,
                                 (const void *)((from + size - 1) &
                                                ~(__u64)(PAGE - 1)));
    return bpf_probe_read_user_str(to, size, (const void *)from);
}

/* Which watched name @name (zeroes behind it) is; -1 = none. */
static __always_inline int find_name(const char *name)
{
    const __u64 *a = (const __u64 *)name;

    for (__u32 i = 0; i < ENV_MAX_NAMES; i++) {
        volatile const __u64 *b = (volatile const __u64 *)env_config.names[i];

        if (i < env_config.n_names && a[0] == b[0] && a[1] == b[1] &&
            a[2] == b[2] && a[3] == b[3])
            return (int)i;
    }
    return -1;
}

/* Like find_name(), for text of @n bytes with its NUL that may go on behind a `=`.
 * *n_name: bytes before it; *is_set: there was one. */
static __always_inline int find_text(char *text, long n, __u32 *n_name,
                                     int *is_set)
{
    int over = 0;

    *is_set = 0;
    *n_name = 0;
    for (__u32 i = 0; i < ENV_NAME_BYTES; i++) {
        if (!over && (i + 1 >= n || text[i] == '=')) {
            over = 1;
            *n_name = i;
            *is_set = i + 1 < n;
        }
        if (over)
            text[i] = 0;
    }
    return over ? find_name(text) : -1;
}

/* The value that @e has read, behind all others or, when it is not longer, where the
 * one before is. */
static __always_inline int put_value(struct env_place *p, __u32 name,
                                     const struct event_env *e)
{
    __u32 n = e->val_len + 1, at;

    if (e->flags != 0 || n > ENV_TABLE_VALUE)
        return 0;
    at = n <= p->values[name].n ? p->values[name].at : p->n_text;
    if (at > ENV_TABLE_LAST_AT)
        return 0;
    if (bpf_probe_read_kernel(&p->text[at & ENV_TABLE_LAST_AT], n, e->val) != 0)
        return 0;
    if (at == p->n_text)
        p->n_text += n;
    p->values[name].at = at;
    p->values[name].n = n;
    return 1;
}

/* What the process has from now on, where that is known: for what it sends before
 * the record is read. */
static __always_inline void update(const struct event_env *e)
{
    __u32 tgid = e->hdr.tgid, name = e->name_idx;
    struct env_place *p = place_of(tgid);
    __u64 sequence;
    int done = 1;

    if (!p || p->tgid != tgid || name >= ENV_MAX_NAMES ||
        (p->flags & ENV_PLACE_UNSURE) != 0 ||
        (e->op == ENV_SET && !e->overwrite && p->values[name].n != 0))
        return;
    if (!place_lock(p, &sequence)) {
        place_doubt(p, tgid);
        return;
    }
    if (p->tgid == tgid) {
        if (e->op == ENV_SET)
            done = put_value(p, name, e);
        else if (e->op == ENV_UNSET)
            p->values[name].n = 0;
        for (__u32 i = 0; e->op == ENV_CLEAR && i < ENV_MAX_NAMES; i++)
            p->values[i].n = 0;
        if (done)
            p->ts_ns = e->hdr.ts_ns;
        else
            __sync_fetch_and_or(&p->flags, ENV_PLACE_UNSURE);
    }
    place_unlock(p, sequence);
}

static __always_inline void report(const struct call *call, __u8 op, int name,
                                   __u64 value, int rc, const int may_sleep)
{
    struct task_struct *task = bpf_get_current_task_btf();
    struct task_struct *leader = BPF_CORE_READ(task, group_leader);
    struct event_env *e;
    __u32 n;

    e = bpf_task_storage_get(&env_records, task, 0,
                             BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!e)
        return;
    e->op = op;
    e->name_idx = name < 0 ? 0 : (__u8)name;
    e->overwrite = call->overwrite != 0;
    e->rc = rc;
    e->ns_tgid = task_ns_tgid(leader, env_config.ns_inum);
    e->start_ns = task_start_ns(leader);
    if (op == ENV_SET) {
        long got = read_text(e->val, ENV_MAX_VALUE + 2, value, may_sleep);

        if (got <= 0)
            e->flags = ENV_READ_FAILED;
        else if (got > ENV_MAX_VALUE + 1)
            e->flags = ENV_TRUNCATED;
        if (got > 0)
            e->val_len = got - 1 > ENV_MAX_VALUE ? ENV_MAX_VALUE : got - 1;
    }
    n = (e->val_len + 7) & ~7u;
    if (n <= ENV_MAX_VALUE) {
        event_fill(&e->hdr, EVENT_ENV, sizeof(*e) + n);
        e->hdr.cgid = task_cgroup(task, env_config.subsys);
        if (rc == 0)
            update(e);
        event_output(e, sizeof(*e) + n, 1);
    }
    (void)bpf_task_storage_delete(&env_records, task);
}

static __always_inline void look(const struct call *call, int rc,
                                 const int may_sleep)
{
    char text[ENV_NAME_BYTES + 8] = {0};
    __u32 n_name;
    int is_set, name;
    long n;

    if (call->function == ENV_CLEARENV) {
        report(call, ENV_CLEAR, -1, 0, rc, may_sleep);
        return;
    }
    n = read_text(text, ENV_NAME_BYTES + 1, call->arg1, may_sleep);
    if (n <= 0)
        return;
    name = find_text(text, n, &n_name, &is_set);
    if (name < 0)
        return;
    if (call->function == ENV_PUTENV && is_set)
        report(call, ENV_SET, name, call->arg1 + n_name + 1, rc, may_sleep);
    else if (call->function == ENV_SETENV)
        report(call, ENV_SET, name, call->arg2, rc, may_sleep);
    else
        report(call, ENV_UNSET, name, 0, rc, may_sleep);
}

static __always_inline int arguments(struct pt_regs *ctx, struct call *call)
{
    if (bpf_get_current_pid_tgid() >> 32 == env_config.own_tgid)
        return 0;
    call->function = bpf_get_attach_cookie(ctx);
    call->arg1 = PT_REGS_PARM1(ctx);
    call->arg2 = PT_REGS_PARM2(ctx);
    call->overwrite =
        call->function != ENV_SETENV || (__u32)PT_REGS_PARM3(ctx) != 0;
    call->in_use = 1;
    return 1;
}

SEC("uprobe.s")
int env_sleeping(struct pt_regs *ctx)
{
    struct call call = {};

    if (arguments(ctx, &call))
        look(&call, 0, 1);
    return 0;
}

SEC("uprobe")
int env_entry(struct pt_regs *ctx)
{
    struct call call = {};
    struct call *kept;

    if (!arguments(ctx, &call))
        return 0;
    kept = bpf_task_storage_get(&env_calls, bpf_get_current_task_btf(), 0,
                                BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (kept)
        *kept = call;
    return 0;
}

/* putenv("NAME") calls unsetenv() within; that one's return reports it. */
SEC("uretprobe")
int env_return(struct pt_regs *ctx)
{
    struct call *kept =
        bpf_task_storage_get(&env_calls, bpf_get_current_task_btf(), 0, 0);

    if (!kept || !kept->in_use)
        return 0;
    kept->in_use = 0;
    look(kept, (int)PT_REGS_RC(ctx), 0);
    return 0;
}

char license_text[] SEC("license") = "GPL";
