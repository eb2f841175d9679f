/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as packets, with time passing between them, through parser,
 * aggregation, closing and reading of parts; every commit is rolled back and
 * compared. The first byte of each packet chooses what happens around it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "aggregator/ingest.h"
#include "aggregator/series.h"

#define BUDGET_BYTES (16u << 20)

static struct region region;
static struct agg *agg;
static struct ingest in;
static struct ingest_pos *pos;

static void must(int ok)
{
    if (!ok)
        abort();
}

static void open_all(unsigned flavour)
{
    static const struct dsd_parser_opts parser = {.no_aggregation = true,
                                                  .origin_client = true,
                                                  .max_line_bytes = 65536};
    static const struct view tags[] = {{"zone:a", 6}, {"env:fuzz", 8}};
    struct agg_config cfg = {.context_limit = flavour & 1 ? 3 : 1000,
                             .expiry_s = 30,
                             .context_expiry_s = 20,
                             .host = "h",
                             .name_prefix = flavour & 2 ? "ns." : "",
                             .tags = tags,
                             .n_tags = flavour & 4 ? 2 : 0,
                             .hist_aggregates = 63,
                             .percentiles = {50, 95},
                             .n_percentiles = 2,
                             .copy_histograms = (flavour & 8) != 0,
                             .life_start_s = 1000,
                             .seed = {3, 4}};
    size_t reserve[AGG_N_RANGES];
    struct region_opts opts = {.name = "fuzz",
                               .budget_bytes = BUDGET_BYTES,
                               .reserve = reserve,
                               .n_ranges = AGG_N_RANGES};

    agg_reserve(reserve, cfg.context_limit, BUDGET_BYTES);
    must(region_create(&region, &opts) == 0);
    must(agg_create(&agg, &region, &cfg) == 0);
    must(dsd_parser_init(&in.parser, &parser) == 0);
    in.region = &region;
    in.agg = agg;
    in.eol_required[TRANSPORT_UDS] = true;
    pos = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
               -1, 0);
    must(pos != MAP_FAILED);
    region_prove(&region);
}

static uint64_t take_parts(void)
{
    static struct flush_item item;
    uint64_t taken = 0;
    uint64_t n_samples = 0;

    while (taken < agg_last_closed(agg)) {
        struct part_iter *it;

        must(part_iter_open(&it, agg, ++taken) == 0);
        while (part_iter_next(it, &item) == 1) {
            n_samples += item.n_samples;
            must(item.n_series <= FLUSH_MAX_SERIES && item.n_tags <= 100);
        }
        part_iter_close(it);
    }
    agg_release(agg, taken);
    return n_samples;
}

static void check_ledger(uint64_t in_items)
{
    const struct ingest_counts *k = agg_counts(agg);
    uint64_t received = 0;
    uint64_t elsewhere = 0;

    for (int i = 0; i < TRANSPORT_N; i++)
        received += k->received[i];
    for (int i = 0; i < DSD_N_RESULTS; i++)
        elsewhere += k->rejected[i];
    must(received == elsewhere + k->aggregated);
    must(k->closed == in_items && k->aggregated == k->closed);
    must(k->damaged == 0);
}

static void close_all(void)
{
    dsd_parser_fini(&in.parser);
    agg_close(agg);
    region_close(&region);
    munmap(pos, 4096);
    memset(&in, 0, sizeof(in));
}

/* As the reader does with a batch: groups as far as they go, then one. A 0x1d ends a
 * datagram. */
static void feed_batch(const char *bytes, size_t n, enum transport t,
                       int64_t now_s)
{
    struct dsd_packet p[2 * DSD_AHEAD_LINES];
    const char *end = bytes + n;
    uint32_t working;
    uint32_t n_p = 0;

    for (; n_p < 2 * DSD_AHEAD_LINES && bytes < end; n_p++) {
        const char *stop = memchr(bytes, 0x1d, (size_t)(end - bytes));

        stop = stop != NULL ? stop : end;
        p[n_p] = (struct dsd_packet){.p = bytes,
                                     .n = (uint32_t)(stop - bytes),
                                     .record = pos->record + n_p,
                                     .next = pos->record + n_p + 1};
        bytes = stop + 1;
    }
    for (uint32_t i = 0; i < n_p;) {
        uint32_t k =
            ingest_datagrams(&in, pos, p + i, n_p - i, &working, t, now_s);

        if (k == 0)
            ingest_packet(&in, pos, p[i].next, p[i].p, p[i].n, t, 0, now_s);
        i += k > 0 ? k : 1;
        must(pos->offset != 0 || pos->record == p[i - 1].next);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t now_s = 1000;
    uint64_t in_items = 0;

    if (size < 2)
        return 0;
    open_all(data[0]);
    for (size_t at = 1; at < size;) {
        unsigned what = data[at++];
        const uint8_t *end = memchr(data + at, 0x1e, size - at);
        size_t n = end != NULL ? (size_t)(end - data) - at : size - at;
        char *packet = malloc(n + 1);

        must(packet != NULL);
        memcpy(packet, data + at, n);
        if ((what & 64) != 0 && what % TRANSPORT_N != TRANSPORT_KERNEL)
            feed_batch(packet, n, (enum transport)(what % TRANSPORT_N), now_s);
        else
            ingest_packet(&in, pos, pos->record + 1, packet, n,
                          (enum transport)(what % TRANSPORT_N),
                          (what & 16) != 0 ? INGEST_TRUNCATED : 0, now_s);
        free(packet);
        at += n + 1;
        now_s += what >> 5;
        if ((what & 4) != 0)
            agg_close_all(agg, now_s);
        if ((what & 8) != 0)
            agg_clock_stepped(agg, now_s += (what & 32) != 0 ? -7 : 31);
    }
    agg_close_all(agg, now_s);
    in_items += take_parts();
    check_ledger(in_items);
    close_all();
    return 0;
}
