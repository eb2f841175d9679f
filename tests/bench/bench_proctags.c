/* SPDX-License-Identifier: Apache-2.0 */
/* What a datagram pays for the tags of its sender. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bpf/env_table.h"
#include "bpf/proctags.h"

#define ROUNDS 5000000u

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void measure(const char *what, struct proctags *t, uint32_t from,
                    uint32_t n)
{
    char out[PROCTAGS_MAX_BYTES];
    uint64_t start_ns = now_ns(), sum = 0;

    for (uint32_t i = 0; i < ROUNDS; i++)
        sum +=
            proctags_get(t, PROCTAGS_PID, from + i * 17 % n, out, NULL, NULL);
    printf("%-36s %5.1f ns (%" PRIu64 " bytes each)\n", what,
           (double)(now_ns() - start_ns) / ROUNDS, sum / ROUNDS);
}

/* What comes with each datagram of a sender seen before. */
static void measure_stamps(const struct proctags *t,
                           const struct env_table *env, uint32_t n)
{
    uint64_t start_ns = now_ns(), sum = 0;

    for (uint32_t i = 0; i < ROUNDS; i++)
        sum += proctags_version(t) +
               env_table_stamp(env, PROCTAGS_TGID, 1 + i * 17 % n);
    printf("%-36s %5.1f ns (%" PRIu64 ")\n", "nothing has changed",
           (double)(now_ns() - start_ns) / ROUNDS, sum % 10);
}

int main(void)
{
    static const char tags[] =
        "cuda_visible_devices:1_0,gpu_index:1,gpu_index:0";
    struct proctags *t;

    if (proctags_create(&t) != 0)
        return 1;
    measure("empty table", t, 1, 1);
    for (uint32_t i = 1; i <= 1000; i++)
        (void)proctags_set(t, 0, i, tags, i <= 500 ? sizeof(tags) - 1 : 0, 1);
    measure("one process", t, 1, 1);
    measure("500 processes", t, 1, 500);
    measure("500 without tags", t, 501, 500);
    measure_stamps(t, proctags_env(t), 100);
    proctags_close(t);
    return 0;
}
