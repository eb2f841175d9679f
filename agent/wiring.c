/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wiring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"

#define MODULE "config"
#define MS UINT64_C(1000000)

/* Levels: the configured one while serving; fast ones while stopping, when the
 * time is better spent on the network. */
#define ZLIB_LEVEL 6
#define ZLIB_STOP_LEVEL 3
#define ZSTD_STOP_LEVEL 1

static struct view view_of(const char *s)
{
    return (struct view){s, (uint32_t)strlen(s)};
}

static struct view *views_of(const struct string_list *l, const char *extra,
                             uint32_t *n)
{
    struct view *v = calloc(l->n + 1, sizeof(*v));

    *n = 0;
    for (size_t i = 0; v != NULL && i < l->n; i++)
        v[(*n)++] = view_of(l->items[i]);
    if (v != NULL && extra[0] != '\0')
        v[(*n)++] = view_of(extra);
    return v;
}

static void wire_agg(struct wiring *w, const struct worker_env *env)
{
    const struct config *c = env->config;

    w->agg.context_limit = c->dogstatsd_context_limit;
    w->agg.expiry_s = c->dogstatsd_expiry_s;
    w->agg.context_expiry_s = c->dogstatsd_context_expiry_s;
    w->agg.host = env->host;
    w->agg.name_prefix = c->statsd_metric_namespace;
    w->agg.prefix_exempt = w->prefix_exempt;
    w->agg.tags = w->tags;
    w->agg.hist_aggregates = c->hist_aggregates;
    w->agg.n_percentiles = c->n_hist_percentiles;
    memcpy(w->agg.percentiles, c->hist_percentiles, c->n_hist_percentiles);
    w->agg.copy_histograms = c->histogram_copy_to_distribution;
    w->agg.distribution_copy_prefix = c->histogram_copy_to_distribution_prefix;
    w->agg.life_start_s = env->sup->life_start_s;
    w->agg.plausible_s = CLOCK_PLAUSIBLE_S;
    w->agg.last_stamp_s = env->stamps->last_s;
    stamps_used(env->stamps, &w->agg.used);
    if (env->seconds->fd >= 0)
        w->agg.claim = seconds_claim;
    w->agg.claim_arg = env->seconds;
    if (env->has_start)
        w->agg.start = &env->start;
    memcpy(w->agg.seed, env->seed, sizeof(w->agg.seed));
}

static void wire_encode(struct wiring *w, const struct worker_env *env)
{
    const struct config *c = env->config;
    const struct encode_limits common = {
        .max_bytes = c->max_payload_bytes,
        .max_raw_bytes = c->max_raw_payload_bytes,
    };

    for (int k = 0; k < PAYLOAD_N_KINDS; k++)
        w->encode.limits[k] = common;
    w->encode.limits[PAYLOAD_SERIES] = (struct encode_limits){
        .max_bytes = c->max_series_payload_bytes,
        .max_raw_bytes = c->max_raw_series_payload_bytes,
        .max_points = c->max_series_points,
    };
    w->encode.encoding = (enum payload_encoding)c->compressor;
    w->encode.level = c->zstd_level;
    w->encode.stop_level = ZSTD_STOP_LEVEL;
    if (w->encode.encoding != ENCODING_ZSTD) {
        w->encode.level = ZLIB_LEVEL;
        w->encode.stop_level = ZLIB_STOP_LEVEL;
    }
    w->encode.internal_hostname = env->host;
    w->encode.have_endpoint = env->no_api_key == NULL;
}

static void wire_forwarder(struct wiring *w, const struct worker_env *env)
{
    const struct config *c = env->config;

    w->forwarder.http = (struct http_config){
        .user_agent = "retriever/" RETRIEVER_VERSION,
        .ca_file = c->tls_ca_file,
        .min_tls = c->min_tls_version,
        .skip_verify = c->skip_ssl_validation,
        .http1_only = c->http1_only,
        .timeout_ms = c->forwarder_timeout_ms,
        .tls_timeout_ms = c->tls_handshake_timeout_ms,
        .max_connections = c->forwarder_max_concurrent,
        .proxy_http = c->proxy_http,
        .proxy_https = c->proxy_https,
        .no_proxy = c->no_proxy,
        .key_log_file = c->sslkeylogfile,
    };
    w->forwarder.site = c->site;
    w->forwarder.dd_url = c->dd_url;
    w->forwarder.version = RETRIEVER_VERSION;
    w->forwarder.allow_arbitrary_tags = c->allow_arbitrary_tags;
    w->forwarder.max_concurrent = c->forwarder_max_concurrent;
    w->forwarder.backoff_base_ms = c->forwarder_backoff_base_ms;
    w->forwarder.backoff_max_ms = c->forwarder_backoff_max_ms;
    w->forwarder.backoff_factor = c->forwarder_backoff_factor;
    w->forwarder.validate_every_s = c->apikey_validation_interval_s;
    w->forwarder.seed = env->seed[1];
}

static void wire_env(struct env_opts *o, const struct config *c)
{
    env_opts_init(o);
    o->off = c->ebpf_env == EBPF_OFF;
    o->max_inodes = c->ebpf_env_max_inodes;
    o->rescan_s = c->ebpf_env_rescan_s;
    o->live = c->ebpf_env_live != 0;
    o->cuda_tags = c->ebpf_cuda_tags;
    o->semantics = (enum cuda_semantics)c->ebpf_cuda_semantics;
    for (size_t i = 0; i < c->ebpf_env_watch.n; i++) {
        const char *wrong = watch_item(&o->watch, c->ebpf_env_watch.items[i]);

        if (wrong != NULL)
            log_warn(MODULE, "ebpf.env.watch: left out item=%s: %s",
                     c->ebpf_env_watch.items[i], wrong);
    }
}

/* Rules were checked with the configuration; a list that was refused there has
 * none. Returns 0 or -ENOMEM. */
static int wire_activity(struct wiring *w, const struct config *c)
{
    const struct string_list *lines = &c->ebpf_activity_families;
    struct activity_opts *o = &w->features.activity;
    char why[300];
    int n;

    w->families = calloc(FAMILY_MAX_RULES, sizeof(*w->families));
    if (w->families == NULL)
        return -ENOMEM;
    n = family_rule_parse_all(w->families, FAMILY_MAX_RULES,
                              (const char *const *)lines->items, lines->n, why,
                              sizeof(why));
    o->off = c->ebpf_activity == EBPF_OFF;
    o->idle_threshold_ms = c->ebpf_activity_threshold_ms;
    o->pid_tags = c->ebpf_activity_pid_tags;
    o->rules = w->families;
    o->n_rules = n > 0 ? (size_t)n : 0;
    return 0;
}

/* One line for each option of a feature. Returns 0 or -ENOMEM. */
static int wire_features(struct wiring *w, const struct config *c)
{
    w->features.self.per_cpu = c->ebpf_per_cpu_stats;
    w->features.programs.on = c->ebpf_self_stats;
    w->features.runq = (struct runq_opts){
        .off = c->runq == EBPF_OFF,
        .stream = c->runq_stream,
        .system = c->runq_system,
        .voluntary = c->runq_voluntary,
        .include = c->runq_include,
        .exclude = c->runq_exclude,
        .hierarchy = c->runq_hierarchy,
        .min_interval_us = c->runq_min_interval_us,
        .min_pair_us = c->runq_min_pair_us,
        .top_neighbors = c->runq_top_neighbors,
        .max_containers = c->runq_max_containers,
    };
    w->features.drop.client_pid = c->ebpf_drop_client_pid;
    wire_env(&w->features.env, c);
    return wire_activity(w, c);
}

int wiring_init(struct wiring *w, const struct worker_env *env)
{
    const struct config *c = env->config;
    uint32_t longest = c->dogstatsd_buffer_bytes;

    memset(w, 0, sizeof(*w));
    w->tags = views_of(&c->tags, env->instance_tag, &w->agg.n_tags);
    w->prefix_exempt = views_of(&c->statsd_metric_namespace_blocklist, "",
                                &w->agg.n_prefix_exempt);
    if (w->tags == NULL || w->prefix_exempt == NULL) {
        wiring_fini(w);
        return -ENOMEM;
    }
    wire_agg(w, env);
    if (c->stream_max_frame_bytes > longest)
        longest = c->stream_max_frame_bytes;
    w->parser = (struct dsd_parser_opts){
        .origin_client = c->dogstatsd_origin_detection_client,
        .no_aggregation = c->dogstatsd_no_aggregation_pipeline,
        .max_line_bytes = longest,
    };
    wire_encode(w, env);
    wire_forwarder(w, env);
    if (wire_features(w, c) != 0) {
        wiring_fini(w);
        return -ENOMEM;
    }
    w->lifecycle = (struct lifecycle_config){
        .quiet_ns = c->stop_quiet_ms * MS,
        .linger_ns = c->stop_linger_ms * MS,
        .reserve_ns = c->stop_reserve_ms * MS,
        .encode_cap_ns = c->aggregator_stop_cap_ms * MS,
        .deliver_cap_ns = c->forwarder_stop_cap_ms * MS,
        .exec = env->exec_mode,
    };
    /* Instances that start together must not flush together. */
    w->flush_delay_ns =
        c->flush_delay_ms * MS + env->seed[0] % (c->flush_jitter_ms * MS + 1);
    return 0;
}

size_t wiring_store_memory_bytes(const struct config *c)
{
    static const struct store_disk_opts some;
    const struct store_opts opts = {
        .max_bytes = c->store_max_bytes,
        .disk = c->run_path[0] != '\0' ? &some : NULL,
    };

    return store_memory_bytes(&opts);
}

void wiring_store(struct wiring_store *w, const struct worker_env *env)
{
    const struct config *c = env->config;

    *w = (struct wiring_store){
        .opts = {.max_bytes = c->store_max_bytes, .life = env->life},
        .disk = {.run_dir = env->run_dir,
                 .max_ratio = c->storage_max_disk_ratio,
                 .outdated_s = (int64_t)c->storage_outdated_days * 86400},
    };
    if (env->run_dir >= 0)
        w->opts.disk = &w->disk;
    else /* exec goes on without it, in the memory that there is */
        w->opts.max_bytes = wiring_store_memory_bytes(c);
}

void wiring_fini(struct wiring *w)
{
    free(w->tags);
    free(w->prefix_exempt);
    free(w->families);
    w->tags = w->prefix_exempt = NULL;
    w->families = NULL;
}
