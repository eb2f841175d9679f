/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/forwarder_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forwarder/split.h"

static int status_for(struct rig *f, const struct stub_request *rq)
{
    if (!stub_header(rq, "DD-API-KEY", f->last_key, sizeof(f->last_key)))
        fail_msg("no key");
    if (f->good_key != NULL && strcmp(f->last_key, f->good_key) != 0)
        return 403;
    if (f->poison != 0 && rq->body[0] == f->poison)
        return 500;
    if (f->max_body != 0 && rq->n_body > f->max_body)
        return 413;
    if (f->fail_path != NULL && strcmp(rq->path, f->fail_path) != 0)
        return 202;
    return f->status;
}

static void on_request(struct stub *s, struct stub_conn *c,
                       const struct stub_request *rq)
{
    struct rig *f = s->arg;

    if (strcmp(rq->path, "/api/v1/validate") == 0) {
        assert_string_equal(rq->method, "GET");
        f->n_validations++;
        stub_answer(c, f->validate_status, "", "{\"valid\":true}");
        return;
    }
    assert_string_equal(rq->method, "POST");
    assert_true(rq->n_body > 0);
    if (f->n_posts < RIG_MAX_SEEN - 1)
        f->seen[f->n_posts] = rq->body[0];
    f->n_posts++;
    if (f->mode == RIG_RESET && status_for(f, rq) != 202)
        stub_reset(c);
    else if (f->mode != RIG_STALL || status_for(f, rq) == 202)
        stub_answer(c, status_for(f, rq), f->headers, "{}");
}

int rig_setup(void **state)
{
    struct rig *f = calloc(1, sizeof(*f));
    size_t reserve[STORE_N_RANGES];
    struct region_opts opts = {.name = "test",
                               .reserve = reserve,
                               .n_ranges = STORE_N_RANGES};

    assert_non_null(f);
    opts.budget_bytes = store_reserve(reserve, 4 << 20);
    assert_int_equal(region_create(&f->r, &opts), 0);
    assert_int_equal(store_open(&f->s, &f->r,
                                &(struct store_opts){.max_bytes = 4 << 20}),
                     0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    stub_open(&f->stub, &f->loop, on_request, f);
    f->status = 202;
    f->validate_status = 200;
    f->headers = "";
    f->module = open(HTTP_MODULE_PATH, O_RDONLY | O_CLOEXEC);
    assert_true(f->module >= 0);
    f->cfg = (struct forwarder_config){
        .http = {.user_agent = "retriever/test",
                 .ca_file = "",
                 .min_tls = "tlsv1.2",
                 .timeout_ms = 5000,
                 .tls_timeout_ms = 5000,
                 .max_connections = 10,
                 .proxy_http = "",
                 .proxy_https = "",
                 .no_proxy = "",
                 .key_log_file = ""},
        .site = "datadoghq.com",
        .dd_url = f->stub.url,
        .version = "0.1.0",
        .max_concurrent = 10,
        .backoff_base_ms = 20,
        .backoff_max_ms = 200,
        .backoff_factor = 2,
        .validate_every_s = 3600,
        .seed = 1,
    };
    *state = f;
    return 0;
}

void rig_start(struct rig *f)
{
    assert_int_equal(forwarder_create(&f->f, &f->loop, f->s, &f->cfg,
                                      f->module),
                     0);
    forwarder_set_key(f->f, RIG_KEY);
}

/* Another number: the dynamic linker knows loaded files by their path. */
void rig_start_without_module(struct rig *f)
{
    struct forwarder_stats st = {0};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    f->good_module = f->module;
    f->module = fcntl(null, F_DUPFD_CLOEXEC, 600);
    close(null);
    rig_start(f);
    rig_put(f, 'a');
    while (!st.failing) {
        stub_run_for(&f->loop, 5);
        forwarder_stats(f->f, &st);
    }
}

void rig_mend_module(struct rig *f)
{
    assert_true(dup2(f->good_module, f->module) == f->module);
    close(f->good_module);
}

void rig_set_flag(void *arg)
{
    *(bool *)arg = true;
}

static void assert_balanced(struct rig *f)
{
    const struct delivery_counts *c = store_counts(f->s);
    struct store_stats st;
    uint64_t dropped = 0;

    store_stats(f->s, &st);
    for (int i = 0; i < DROP_N; i++)
        dropped += c->dropped[i];
    assert_int_equal(f->n_put, c->delivered + dropped + st.load.n_samples);
}

void rig_close_forwarder(struct rig *f)
{
    struct store_stats st;

    forwarder_close(f->f, rig_set_flag, &f->closed);
    assert_false(f->closed);
    stub_run_until(&f->loop, &f->closed, 5000);
    f->f = NULL;
    store_stats(f->s, &st);
    assert_int_equal(st.n_taken, 0); /* all are back */
}

int rig_teardown(void **state)
{
    struct rig *f = *state;

    if (f->f != NULL)
        rig_close_forwarder(f);
    stub_close(&f->stub);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_balanced(f);
    store_close(f->s);
    region_close(&f->r);
    close(f->module);
    free(f);
    return 0;
}

void rig_put_kind(struct rig *f, enum payload_kind kind, char fill)
{
    struct payload_draft d = {.kind = kind,
                              .encoding = ENCODING_NONE,
                              .n_bytes = 3,
                              .n_raw_bytes = 3,
                              .load = {10, 10, 0, 0}};

    assert_int_equal(store_block_alloc(f->s, 3, &d.block), 0);
    memset(store_block_bytes(f->s, d.block), fill, 3);
    store_commit_part(f->s, store_encoded_seq(f->s) + 1, &d, 1, NULL, 0);
    f->n_put += 10;
}

void rig_put(struct rig *f, char fill)
{
    rig_put_kind(f, PAYLOAD_SERIES, fill);
}

void rig_put_items(struct rig *f, const char *letters)
{
    uint32_t n = (uint32_t)strlen(letters);
    uint32_t n_body = 2 * n + 1;
    struct payload_draft d = {.kind = PAYLOAD_EVENTS,
                              .encoding = ENCODING_NONE,
                              .n_bytes = n_body,
                              .n_raw_bytes = n_body,
                              .load = {n, n, n, 0}};
    struct split_index *x = malloc(sizeof(*x));
    unsigned char *to;

    assert_non_null(x);
    assert_int_equal(store_block_alloc(f->s, n_body + SPLIT_MAX_INDEX_BYTES,
                                       &d.block),
                     0);
    to = store_block_bytes(f->s, d.block);
    split_index_init(x, 1, 1, 1);
    for (uint32_t i = 0; i < n; i++) {
        to[2 * i] = i == 0 ? '[' : ',';
        to[2 * i + 1] = (unsigned char)letters[i];
        split_index_add(x, i == 0 ? 1 : 2, 1, 1);
    }
    to[2 * n] = ']';
    d.n_index_bytes = (uint32_t)split_index_write(x, to + n_body);
    free(x);
    store_block_trim(f->s, d.block, n_body + SPLIT_MAX_INDEX_BYTES,
                     n_body + d.n_index_bytes);
    store_commit_part(f->s, store_encoded_seq(f->s) + 1, &d, 1, NULL, 0);
    f->n_put += n;
}

uint32_t rig_n_held(struct rig *f)
{
    struct store_stats st;

    store_stats(f->s, &st);
    return st.n_payloads;
}

struct forwarder_stats rig_stats(struct rig *f)
{
    struct forwarder_stats st;

    forwarder_stats(f->f, &st);
    return st;
}

void rig_wait_settled(struct rig *f)
{
    f->settled = false;
    assert_int_equal(forwarder_when_settled(f->f, rig_set_flag, &f->settled),
                     0);
    assert_false(f->settled);
    stub_run_until(&f->loop, &f->settled, 10000);
}

/* Turn the loop until the intake has seen @n POSTs. */
void rig_wait_posts(struct rig *f, unsigned n)
{
    uint64_t end = uv_hrtime() + 10000 * RIG_MS;

    while (f->n_posts < n) {
        if (uv_hrtime() > end)
            fail_msg("%u of %u requests", f->n_posts, n);
        stub_run_for(&f->loop, 5);
    }
}

void rig_on_idle(void *arg)
{
    struct rig *f = arg;

    f->idle = true;
    f->n_idle++;
}

void rig_drain_for(struct rig *f, unsigned ms)
{
    forwarder_drain(f->f, uv_hrtime() + ms * RIG_MS, rig_on_idle, f);
    assert_false(f->idle);
}
