/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker that is killed at a random instruction: its successor goes on at the
 * committed position, and the totals are those of an undisturbed run. The seed
 * is printed; RETRIEVER_TEST_SEED repeats the packets and the delays.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/pipeline.h"

#define N_PACKETS 4000u
#define N_KILLS 40

static uint64_t rng;

static uint32_t below(uint32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 16) % n);
}

/* Packet @i is a function of i and the seed alone. */
static size_t packet_of(uint32_t i, uint64_t seed, char *out, size_t room)
{
    size_t n = 0;

    rng = (seed + i) * 0x9e3779b97f4a7c15ULL | 1;
    for (uint32_t k = below(30) + 1; k > 0; k--) {
        uint32_t c = below(2000);
        const char *type = c % 4 == 0   ? "c"
                           : c % 4 == 1 ? "h"
                           : c % 4 == 2 ? "d"
                                        : "s";

        n += (size_t)snprintf(out + n, room - n, "%s%u:%u|%s|#t:%u,a\n", type,
                              c, below(1000), type, c % 7);
    }
    if (i % 50 == 0) { /* a packed line that takes several commits */
        n += (size_t)snprintf(out + n, room - n, "packed:1");
        for (int k = 0; k < 1000; k++)
            n += (size_t)snprintf(out + n, room - n, ":1");
        n += (size_t)snprintf(out + n, room - n, "|c\n");
    }
    return n;
}

static void apply_from_position(struct pipeline *p, uint64_t seed)
{
    char packet[8192];

    while (p->pos->record < N_PACKETS) {
        uint32_t i = p->pos->record;
        size_t n = packet_of(i, seed, packet, sizeof(packet) - 1);

        ingest_packet(&p->in, p->pos, i + 1, packet, n, TRANSPORT_UDP, 0,
                      1000 + i / 100);
        if (i % 400 == 399)
            agg_close_all(p->agg, 1000 + i / 100);
    }
}

struct totals {
    uint64_t datagrams, bytes, received, aggregated;
    double sum;
    uint64_t n_items;
};

static struct totals totals_of(struct pipeline *p)
{
    const struct ingest_counts *k = agg_counts(p->agg);
    struct totals t;

    agg_close_all(p->agg, 2000);
    pipeline_take(p);
    pipeline_check_ledger(p);
    pipeline_check_unique(p);
    t = (struct totals){k->datagrams,  k->bytes, k->received[TRANSPORT_UDP],
                        k->aggregated, 0,        p->n_items};
    for (size_t i = 0; i < p->n_items; i++) {
        if (p->items[i].text[0] == 'c' || p->items[i].text[0] == 'd' ||
            p->items[i].text[0] == 'p')
            t.sum += p->items[i].value;
    }
    return t;
}

static void kill_after(pid_t child, long ns)
{
    struct timespec ts = {0, ns};

    nanosleep(&ts, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
}

static unsigned run_with_kills(struct pipeline *p, uint64_t seed)
{
    uint64_t delays = seed * 77 + 1;
    unsigned n_killed = 0;

    for (int i = 0; i < N_KILLS; i++) {
        int status;
        pid_t child = fork();

        if (child == 0) {
            pipeline_restart(p);
            apply_from_position(p, seed);
            _exit(0);
        }
        assert_true(child > 0);
        delays = delays * 6364136223846793005ULL + 1442695040888963407ULL;
        kill_after(child, (long)(delays >> 40) % 6000000 + 200000);
        assert_int_equal(waitpid(child, &status, 0), child);
        n_killed += WIFSIGNALED(status) && p->pos->record < N_PACKETS;
    }
    pipeline_restart(p);
    apply_from_position(p, seed);
    return n_killed;
}

static void a_kill_at_any_instruction_loses_and_doubles_nothing(void **state)
{
    const char *s = getenv("RETRIEVER_TEST_SEED");
    uint64_t seed = s != NULL ? strtoull(s, NULL, 10) : 7;
    struct agg_config cfg = pipeline_config();
    struct totals want, got;
    struct pipeline p;
    unsigned n_killed;

    (void)state;
    cfg.expiry_s = 300;
    print_message("seed %llu\n", (unsigned long long)seed);
    pipeline_open_large(&p, &cfg, 64u << 20);
    apply_from_position(&p, seed);
    want = totals_of(&p);
    pipeline_close(&p);

    pipeline_open_large(&p, &cfg, 64u << 20);
    n_killed = run_with_kills(&p, seed);
    got = totals_of(&p);
    pipeline_close(&p);
    print_message("killed in the middle %u times\n", n_killed);
    assert_true(n_killed > 0);
    assert_int_equal(got.datagrams, want.datagrams);
    assert_int_equal(got.bytes, want.bytes);
    assert_int_equal(got.received, want.received);
    assert_int_equal(got.aggregated, want.aggregated);
    assert_float_equal(got.sum / want.sum, 1.0, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_instruction_loses_and_doubles_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
