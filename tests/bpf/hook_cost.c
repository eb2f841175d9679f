/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/hook_cost.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define MOMENTS 40
#define TRIPS 300
#define MAX_PROGRAMS 256

extern const unsigned char bpf_empty_hooks_begin[], bpf_empty_hooks_end[];

struct runs {
    uint64_t n, ns;
};

/* The hooks that a switch and a wake-up pass. Programs are named after them; some have
 * more behind it. */
static const char *const hooks[] = {"sched_switch", "sched_wakeup"};
#define N_HOOKS (sizeof(hooks) / sizeof(hooks[0]))

/* ---- Empty programs ------------------------------------------------------- */

static int load(struct empty_hooks *h)
{
    size_t n = (size_t)(bpf_empty_hooks_end - bpf_empty_hooks_begin);
    struct bpf_program *p;
    size_t i = 0;

    h->object = bpf_object__open_mem(bpf_empty_hooks_begin, n, NULL);
    if (h->object == NULL || bpf_object__load(h->object) != 0)
        return -errno;
    bpf_object__for_each_program(p, h->object)
    {
        if (i == EMPTY_HOOKS)
            return -E2BIG;
        h->links[i] = bpf_program__attach(p);
        if (h->links[i++] == NULL)
            return -errno;
    }
    return 0;
}

int empty_hooks_on(struct empty_hooks *h)
{
    int rc;

    *h = (struct empty_hooks){NULL};
    rc = load(h);
    if (rc != 0)
        empty_hooks_off(h);
    return rc;
}

void empty_hooks_off(struct empty_hooks *h)
{
    for (size_t i = 0; i < EMPTY_HOOKS; i++)
        (void)bpf_link__destroy(h->links[i]);
    bpf_object__close(h->object);
    *h = (struct empty_hooks){NULL};
}

/* ---- The kernel's count ---------------------------------------------------- */

uint32_t hook_cost_last_id(void)
{
    uint32_t id = 0;

    while (bpf_prog_get_next_id(id, &id) == 0)
        ;
    return id;
}

/* At one instant: each program with a higher id than asked for, and what those on the
 * hooks have run. */
struct reading {
    uint32_t ids[MAX_PROGRAMS];
    size_t n;
    struct runs runs[N_HOOKS];
};

static bool add_runs(struct runs runs[N_HOOKS], int fd)
{
    struct bpf_prog_info info;
    uint32_t n = sizeof(info);

    memset(&info, 0, sizeof(info));
    if (bpf_obj_get_info_by_fd(fd, &info, &n) != 0)
        return false;
    for (size_t i = 0; i < N_HOOKS; i++) {
        if (strncmp(info.name, hooks[i], strlen(hooks[i])) == 0) {
            runs[i].n += info.run_cnt;
            runs[i].ns += info.run_time_ns;
        }
    }
    return true;
}

/* False: some have gone meanwhile, or there are too many. */
static bool read_runs(struct reading *r, uint32_t after)
{
    memset(r, 0, sizeof(*r));
    while (bpf_prog_get_next_id(after, &after) == 0) {
        int fd = bpf_prog_get_fd_by_id(after);
        bool added;

        if (fd < 0)
            return false;
        added = r->n < MAX_PROGRAMS && add_runs(r->runs, fd);
        (void)close(fd);
        if (!added)
            return false;
        r->ids[r->n++] = after;
    }
    return true;
}

/* Ids are not used again: the same ids are the same programs. */
static bool same_programs(const struct reading *a, const struct reading *b)
{
    return a->n == b->n &&
           memcmp(a->ids, b->ids, a->n * sizeof(a->ids[0])) == 0;
}

/* The mean of a moment; HUGE_VAL when programs came or went in it: what one takes away
 * with it, or had run before it was there to be read, would be counted wrong. */
static double moment_ns(const struct pingpong *p, uint32_t after)
{
    struct reading before, then;
    bool whole = read_runs(&before, after);
    double sum = 0;

    pingpong_play(p, TRIPS);
    if (!read_runs(&then, after) || !whole || !same_programs(&before, &then))
        return HUGE_VAL;
    for (size_t i = 0; i < N_HOOKS; i++) {
        if (then.runs[i].n != before.runs[i].n)
            sum += (double)(then.runs[i].ns - before.runs[i].ns) /
                   (double)(then.runs[i].n - before.runs[i].n);
    }
    return sum;
}

double hook_cost_ns(const struct pingpong *p, uint32_t after)
{
    int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
    double least = HUGE_VAL;

    if (fd < 0)
        return -1;
    for (int i = 0; i < MOMENTS; i++) {
        double ns = moment_ns(p, after);

        least = ns < least ? ns : least;
    }
    (void)close(fd);
    return least;
}
