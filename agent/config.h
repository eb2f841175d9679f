/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: plain typed data, filled once from files, environment and
 * command line by one table of keys (config_keys*.c). docs/configuration.md, made
 * from the same table, says what each key means.
 *
 *   default < file < conf.d/ in order < environment < --set key=value
 *
 * Thread:  config_load() in the keeper before the first fork; constant after.
 * Memory:  strings and lists belong to the struct; files are bounded
 *          (CONFIG_MAX_FILE_BYTES each), so is everything made from them.
 * Promise: after config_load() each field lies within its bounds, whatever was
 *          read: a value that does not is reported and its default stays. No
 *          string is NULL; "" means none.
 */
#ifndef RETRIEVER_AGENT_CONFIG_H
#define RETRIEVER_AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define CONFIG_MAX_FILE_BYTES ((size_t)1 << 20)
#define CONFIG_MAX_FINDINGS 100 /* errors and warnings kept; the rest counted */
#define CONFIG_MAX_PERCENTILES 16
#define CONFIG_PORT_RANDOM (-1) /* dogstatsd_port: the kernel chooses */

/** ebpf.enabled */
enum ebpf_mode { EBPF_AUTO, EBPF_ON, EBPF_OFF };

struct string_list {
    char **items;
    size_t n;
};

/** Which api_key_file was read: equal stamps, same content. */
struct config_key_stamp {
    dev_t device; /* all 0: no file was read yet */
    ino_t inode;
    int64_t mtime_ns;
    int64_t bytes;
};

/* Grouped by meaning; one of it exists.
 * NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct config {
    /* Process. */
    bool keeper;
    char *run_path;       /* "" = none */
    char *control_socket; /* "" = none; default resolved for run and exec */
    uint16_t health_port; /* 0 = off */
    bool exec_signal_group;
    int log_level; /* enum log_level of agent/base/log.h */
    bool log_json;
    char *log_file; /* "" = stderr */

    /* Who we are. */
    char *hostname;      /* "" = find out; "none" = explicitly none */
    char *hostname_file; /* "" = none */
    char *instance;      /* "auto", "none" or the word */

    /* The intake. */
    char *api_key; /* "" = none; from api_key_file when that was readable */
    char *api_key_file;
    struct config_key_stamp api_key_stamp;
    char *site;
    char *dd_url; /* "" = from the site */
    bool allow_arbitrary_tags;

    /* Listeners. */
    bool use_dogstatsd;     /* false: none of them is opened */
    int32_t dogstatsd_port; /* 0 = off, CONFIG_PORT_RANDOM */
    char *bind_host;
    bool dogstatsd_non_local_traffic;
    char *dogstatsd_socket;               /* "" = off */
    char *dogstatsd_stream_socket;        /* "" = off */
    struct string_list dogstatsd_sockets; /* URLs, scheme checked */
    uint32_t dogstatsd_socket_mode;
    char *dogstatsd_socket_owner; /* "" = as we are */
    char *dogstatsd_socket_group;
    uint32_t dogstatsd_buffer_bytes;
    uint32_t dogstatsd_so_rcvbuf_bytes; /* 0 = 32 MiB or what is granted */
    bool dogstatsd_tap;                 /* where the kernel allows */
    bool eol_required_udp, eol_required_uds;
    bool dogstatsd_disable_verbose_logs;
    uint32_t stream_max_connections;
    uint32_t stream_max_frame_bytes;
    uint32_t stream_idle_s; /* 0 = never */

    /* The reader's priority. */
    int reader_policy; /* SCHED_FIFO or SCHED_RR; SCHED_OTHER = not asked for */
    int reader_priority;   /* 1..99 with a policy, else 0 */
    int32_t nice_fallback; /* where the policy is refused; 0 = none */
    uint32_t rttime_ms;    /* real time without a pause, at most */

    /* Parsing and enrichment. */
    bool dogstatsd_origin_detection_client;
    bool dogstatsd_no_aggregation_pipeline;
    struct string_list tags; /* all that is added to each metric, event, check:
                                dogstatsd_tags, tags, extra_tags, env, ... */
    char *statsd_metric_namespace; /* "" = none; ends in '.' otherwise */
    struct string_list statsd_metric_namespace_blocklist;

    /* Aggregation. */
    uint32_t dogstatsd_expiry_s;
    uint32_t dogstatsd_context_expiry_s;
    uint32_t dogstatsd_context_limit;
    uint64_t memory_limit_bytes; /* resolved: never 0 */
    uint32_t flush_delay_ms;
    uint32_t flush_jitter_ms; /* upper bound of the instance's own jitter */
    unsigned hist_aggregates; /* enum hist_aggregate of aggregator/agg.h */
    uint8_t hist_percentiles[CONFIG_MAX_PERCENTILES]; /* 0..100, ascending */
    uint32_t n_hist_percentiles;
    bool histogram_copy_to_distribution;
    char *histogram_copy_to_distribution_prefix; /* "" = none */

    /* The stop. */
    uint32_t stop_timeout_ms;
    uint32_t stop_linger_ms;
    uint32_t stop_quiet_ms;
    uint32_t stop_reserve_ms;        /* resolved: at most stop_timeout_ms / 2 */
    uint32_t aggregator_stop_cap_ms; /* close and encode; 0 = no cap */
    uint32_t forwarder_stop_cap_ms;  /* deliver; 0 = no cap */
    bool flush_incomplete_buckets;   /* false: the open bucket is not sent */
    bool forwarder_stop_wait_for_inflight;

    /* Payloads. */
    int compressor; /* enum payload_encoding of forwarder/store.h */
    int zstd_level;
    uint32_t max_payload_bytes, max_raw_payload_bytes;
    uint32_t max_series_payload_bytes, max_raw_series_payload_bytes;
    uint32_t max_series_points;
    bool enable_series, enable_sketches, enable_events, enable_checks;

    /* Delivery. */
    uint64_t store_max_bytes; /* resolved: depends on run_path */
    double storage_max_disk_ratio;
    uint32_t storage_outdated_days;
    uint32_t forwarder_timeout_ms;
    uint32_t forwarder_max_concurrent;
    uint32_t forwarder_backoff_base_ms;
    uint32_t forwarder_backoff_max_ms;
    double forwarder_backoff_factor;
    uint32_t apikey_validation_interval_s; /* 0 = at start only */
    bool http1_only;
    bool skip_ssl_validation;
    uint32_t tls_handshake_timeout_ms;
    char *min_tls_version; /* "tlsv1.0" to "tlsv1.3" */
    char *tls_ca_file;     /* "" = the system's */
    char *sslkeylogfile;   /* "" = none */
    char *proxy_http;      /* "" = none; HTTP_PROXY and the like included, */
    char *proxy_https;     /*   so nobody needs to read the environment again */
    char *no_proxy;        /* comma list for libcurl; no_proxy_nonexact_match is
                              applied already */

    /* Kernel metrics. */
    int ebpf; /* enum ebpf_mode */
    uint32_t ebpf_ring_bytes;
    uint32_t ebpf_max_delay_ms;
    bool ebpf_per_cpu_stats;
    bool ebpf_self_stats;
    int runq;        /* enum ebpf_mode */
    int runq_stream; /* 1 = stream */
    bool runq_system;
    bool runq_voluntary;
    uint32_t runq_min_interval_us;
    uint32_t runq_min_pair_us;
    uint32_t runq_top_neighbors;
    uint32_t runq_max_containers;
    char *runq_include; /* globs; "" = all */
    char *runq_exclude; /* "" = none */
    char *runq_hierarchy;
    bool ebpf_drop_client_pid;
    int ebpf_activity; /* enum ebpf_mode */
    uint32_t ebpf_activity_threshold_ms;
    struct string_list ebpf_activity_families; /* bpf/family_rule.h, checked */
    bool ebpf_activity_pid_tags;
    int ebpf_env; /* enum ebpf_mode */
    struct string_list ebpf_env_watch;
    uint32_t ebpf_env_max_inodes;
    uint32_t ebpf_env_rescan_s;
    int ebpf_env_live; /* 0 = never */
    bool ebpf_cuda_tags;
    int ebpf_cuda_semantics; /* enum cuda_semantics */

    /* Where each value came from; private to config*.c. */
    struct config_origins *origins;
};

/** Where to read. Everything is borrowed for the call. */
struct config_sources {
    const char *file;        /* -c FILE; NULL = the standard places */
    const char *const *sets; /* key=value of --set, in order */
    size_t n_sets;
    char *const *env; /* environ */
    bool exec_mode;   /* defaults of `exec` instead of those of `run` */
    const char *root; /* before the standard places; NULL = "" (tests) */
};

/** What config_load() found, as lines for people; no secret in any of them. */
struct config_report {
    struct string_list errors;   /* values that were refused */
    struct string_list warnings; /* accepted, but read this */
    struct string_list notes;    /* for the debug log */
    size_t n_dropped;            /* findings beyond CONFIG_MAX_FINDINGS */
};

/**
 * Fill @out and @rep. Registers the API key with the log's redaction. A missing
 * API key is an error in run mode and a warning in exec mode. Returns 0 (look at
 * rep->errors: `run` refuses, `exec` logs them and goes on with @out, where each
 * refused key has its default) or -ENOMEM (both untouched).
 */
int config_load(struct config *out, const struct config_sources *src,
                struct config_report *rep);
void config_fini(struct config *c);
void config_report_fini(struct config_report *rep);

/** True when a file, the environment or the command line gave @key a value;
 *  false: its default is in force. @key: a name of the table. */
bool config_is_set(const struct config *c, const char *key);

/** The effective configuration, one `key: value  # origin` each, in the order of
 *  the table; secrets as their last 5 characters. */
void config_dump(const struct config *c, FILE *out);

/** Look whether api_key_file changed since *stamp. Returns 0 (no, or not readable
 *  now: the old key stays), CONFIG_KEY_CHANGED (*key is the caller's to free,
 *  *stamp moved on, the key is registered with the log's redaction) or -ENOMEM. */
enum config_key_rc { CONFIG_KEY_CHANGED = 1 };
int config_poll_key_file(const struct config *c, struct config_key_stamp *stamp,
                         char **key);

#endif
