/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/reader_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/log.h"

static const struct config cfg;
static const struct agg_config agg_cfg = {.context_limit = 100,
                                          .expiry_s = 300,
                                          .context_expiry_s = 20,
                                          .host = "",
                                          .name_prefix = "",
                                          .seed = {3, 4}};
static const struct dsd_parser_opts parser = {.max_line_bytes = 65536};

static void on_event(void *arg, const struct reader_event *ev)
{
    struct reader_rig *f = arg;

    switch (ev->kind) {
    case READER_PART:
        assert_int_equal(ev->seq, f->n_parts + 1);
        f->n_parts = ev->seq;
        break;
    case READER_CLOSED:
        f->closed_token = ev->token;
        f->n_parts_at_close = f->n_parts;
        uv_stop(&f->loop);
        break;
    case READER_DRAINED:
        f->drained = true;
        f->n_left = ev->n_left;
        uv_stop(&f->loop);
        break;
    case READER_PAUSED:
        f->n_paused++;
        uv_stop(&f->loop);
        break;
    case READER_TAPPED:
        f->n_tapped = ev->n_left;
        uv_stop(&f->loop);
        break;
    case READER_UNTAPPED:
        f->n_tapped = 0;
        uv_stop(&f->loop);
        break;
    }
}

void reader_rig_start(struct reader_rig *f)
{
    const struct reader_opts opts = {
        .loop = &f->loop,
        .on_event = on_event,
        .arg = f,
        .landing = &f->landing,
        .sockets = &f->s,
        .ingest_region = &f->region,
        .agg = &agg_cfg,
        .parser = &parser,
        .clock = &f->clock,
        .serving = &f->serving,
        .n_keep_conns = f->n_keep_conns,
    };

    assert_int_equal(reader_start(&f->reader, &opts, 0), 0);
    assert_int_equal(atomic_load(&f->serving), 1);
}

int reader_rig_setup(void **state)
{
    struct reader_rig *f = calloc(1, sizeof(*f));
    const struct log_opts quiet = {.level = LOG_LEVEL_OFF};
    const struct landing_opts landing = {.buffer_bytes = BUFFER,
                                         .n_conns = N_CONNS,
                                         .max_frame_bytes = MAX_FRAME};
    struct unix_opts path = {.mode = 0600, .owner = "", .group = ""};
    int maps[2];
    size_t reserve[AGG_N_RANGES];
    const struct region_opts region = {.name = "reader",
                                       .budget_bytes = 32u << 20,
                                       .reserve = reserve,
                                       .n_ranges = AGG_N_RANGES};

    assert_non_null(f);
    (void)log_init(&quiet);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/retriever-read-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->gram, sizeof(f->gram), "%s/gram", f->folder);
    (void)snprintf(f->stream, sizeof(f->stream), "%s/stream", f->folder);
    f->s.entries[GRAM] = (struct socket_entry){.kind = SOCKET_UNIXGRAM,
                                               .transport = TRANSPORT_UDS};
    path.path = f->gram;
    assert_int_equal(sockets_bind_unix(&f->s.entries[GRAM], &cfg, &path), 0);
    f->s.entries[STREAM] =
        (struct socket_entry){.kind = SOCKET_UNIXSTREAM,
                              .transport = TRANSPORT_UDS_STREAM};
    path.path = f->stream;
    assert_int_equal(sockets_bind_unix(&f->s.entries[STREAM], &cfg, &path), 0);
    f->s.n = 2;
    agg_reserve(reserve, agg_cfg.context_limit, region.budget_bytes);
    assert_int_equal(region_create(&f->region, &region), 0);
    assert_int_equal(landing_create(&f->landing, &landing), 0);
    if (ring_make(&maps[0], &maps[1], 1u << 16, &f->cause) == 0)
        assert_int_equal(landing_ring_take(&f->landing, maps[0], maps[1]), 0);
    process_clock_init(&f->clock, &clock_real);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    reader_rig_start(f);
    *state = f;
    return 0;
}

void reader_rig_end(struct reader_rig *f)
{
    struct agg_stats st;

    reader_order(f->reader, READER_DRAIN,
                 clock_mono_ns(&clock_real) + UINT64_C(5000000000));
    while (!f->drained)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    agg_stats(reader_agg(f->reader), &st);
    f->open_samples = st.open_samples;
    f->counts = *agg_counts(reader_agg(f->reader));
    reader_order(f->reader, READER_QUIT, 0);
    reader_join(f->reader, NULL, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    f->reader = NULL;
}

int reader_rig_teardown(void **state)
{
    struct reader_rig *f = *state;

    if (f->reader != NULL)
        reader_rig_end(f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    sockets_close(&f->s);
    landing_close(&f->landing);
    region_close(&f->region);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

int reader_rig_connect(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

void reader_rig_rest(struct reader_rig *f)
{
    unsigned n = f->n_paused + 1;

    reader_order(f->reader, READER_PAUSE, 0);
    while (f->n_paused < n)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

void reader_rig_take_all(struct reader_rig *f, uint64_t token)
{
    reader_order(f->reader, READER_CLOSE_ALL, token);
    while (f->closed_token != token)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}
