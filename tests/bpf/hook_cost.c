/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bpf/hook_cost.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define MOMENTS 40
#define TRIPS 300

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

static void add_runs(struct runs runs[N_HOOKS], int fd)
{
    struct bpf_prog_info info;
    uint32_t n = sizeof(info);

    memset(&info, 0, sizeof(info));
    if (bpf_obj_get_info_by_fd(fd, &info, &n) != 0)
        return;
    for (size_t i = 0; i < N_HOOKS; i++) {
        if (strncmp(info.name, hooks[i], strlen(hooks[i])) == 0) {
            runs[i].n += info.run_cnt;
            runs[i].ns += info.run_time_ns;
        }
    }
}

static void all_runs(struct runs runs[N_HOOKS], uint32_t after)
{
    memset(runs, 0, N_HOOKS * sizeof(runs[0]));
    while (bpf_prog_get_next_id(after, &after) == 0) {
        int fd = bpf_prog_get_fd_by_id(after);

        if (fd < 0)
            continue; /* gone since */
        add_runs(runs, fd);
        (void)close(fd);
    }
}

/* The mean of a moment. */
static double moment_ns(const struct pingpong *p, uint32_t after)
{
    struct runs before[N_HOOKS], then[N_HOOKS];
    double sum = 0;

    all_runs(before, after);
    pingpong_play(p, TRIPS);
    all_runs(then, after);
    for (size_t i = 0; i < N_HOOKS; i++) {
        if (then[i].n != before[i].n)
            sum += (double)(then[i].ns - before[i].ns) /
                   (double)(then[i].n - before[i].n);
    }
    return sum;
}

double hook_cost_ns(const struct pingpong *p, uint32_t after)
{
    int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
    double least;

    if (fd < 0)
        return -1;
    least = moment_ns(p, after);
    for (int i = 1; i < MOMENTS; i++) {
        double ns = moment_ns(p, after);

        least = ns < least ? ns : least;
    }
    (void)close(fd);
    return least;
}
