/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys that are not ours. Four kinds, because silence is right for some and
 * wrong for others:
 *
 *   - keys whose silent absence would lose or misplace data: a warning each;
 *   - other keys of the Datadog Agent: a note for the debug log;
 *   - variables of tracers and other products: nothing;
 *   - names that nobody knows: one warning with the nearest name of ours.
 */
#include <ctype.h>
#include <string.h>

#include "agent/config_table.h"

struct unsupported {
    const char *name; /* and all keys below it */
    const char *effect;
};

static const struct unsupported unsupported[] = {
    {"additional_endpoints", "data goes to the main endpoint only"},
    {"multi_region_failover", "data goes to the main site only"},
    {"observability_pipelines_worker",
     "data goes to the intake and not to a pipelines worker"},
    {"vector", "data goes to the intake and not to Vector"},
    {"dogstatsd_mapper_profiles", "metric names are sent as they come"},
    {"metric_filterlist", "no metric is filtered"},
    {"statsd_metric_blocklist", "no metric is filtered"},
    {"metric_tag_filterlist", "no tag is filtered"},
    {"statsd_forward_host", "packets are not forwarded"},
    {"dogstatsd_origin_detection", "no tags of the sender are added"},
    {"origin_detection_unified", "no tags of the sender are added"},
    {"dogstatsd_pipe_name", "named pipes are not listened to"},
    {"dogstatsd_experimental_http", "HTTP is not listened to"},
    {"dogstatsd_tcp_port", "TCP is not listened to"},
    {"dogstatsd_socket_fd_from", "the socket is made anew"},
    {"dogstatsd_capture_path", "traffic is not captured"},
    {"event_monitoring_config", "no kernel events are read"},
    {"secret_backend_command", "secret handles are not resolved"},
    {"forwarder_storage_max_size_in_bytes",
     "store_max_bytes bounds the payloads that wait, and run_path keeps them "
     "on "
     "disk"},
    {"forwarder_storage_path",
     "payloads wait in memory unless run_path names a folder"},
    {"fips", "no FIPS proxy is used"},
    {"statsd_compat", "gauge deltas are read as absolute values"},
};

/* Known to the Agent, without effect on what we do. Each also stands for all keys
 * below it. */
static const char *const agents[] = {
    "GUI_port",
    "admission_controller",
    "agent_ipc",
    "aggregator_buffer_size",
    "aggregator_flush_metrics_and_serialize_in_parallel_buffer_size",
    "aggregator_flush_metrics_and_serialize_in_parallel_chan_size",
    "aggregator_tag_filter_cache_capacity",
    "aggregator_use_tags_store",
    "apm_config",
    "auth_token_file_path",
    "auto_exit",
    "autoconf_template_dir",
    "autodiscovery",
    "basic_telemetry_add_container_tags",
    "check_runners",
    "cloud_provider_metadata",
    "clc_runner_enabled",
    "cluster_agent",
    "cluster_checks",
    "cluster_name",
    "cmd_host",
    "cmd_port",
    "collect_ec2_tags",
    "collect_gce_tags",
    "compliance_config",
    "confd_path",
    "config_providers",
    "container_cgroup_root",
    "container_exclude",
    "container_image",
    "container_include",
    "container_lifecycle",
    "container_proc_root",
    "convert_dd_site_fqdn",
    "cri_socket_path",
    "data_plane",
    "delegated_auth",
    "disable_file_logging",
    "docker_labels_as_tags",
    "dogstatsd_capture_depth",
    "dogstatsd_entity_id_precedence",
    "dogstatsd_log_file",
    "dogstatsd_log_file_max_rolls",
    "dogstatsd_log_file_max_size",
    "dogstatsd_logging_enabled",
    "dogstatsd_mapper_cache_size",
    "dogstatsd_mem_based_rate_limiter",
    "dogstatsd_metrics_stats_enable",
    "dogstatsd_no_aggregation_pipeline_batch_size",
    "dogstatsd_no_aggregation_pipeline_workers_count",
    "dogstatsd_origin_optout_enabled",
    "dogstatsd_packet_buffer_flush_timeout",
    "dogstatsd_packet_buffer_size",
    "dogstatsd_pipeline_autoadjust",
    "dogstatsd_pipeline_count",
    "dogstatsd_queue_size",
    "dogstatsd_socket_fd_from_fallback",
    "dogstatsd_socket_fd_from_timeout",
    "dogstatsd_stats_buffer",
    "dogstatsd_stats_enable",
    "dogstatsd_stats_port",
    "dogstatsd_stream_log_too_big",
    "dogstatsd_string_interner_size",
    "dogstatsd_tag_cardinality",
    "dogstatsd_telemetry_enabled_listener_id",
    "dogstatsd_windows_pipe_security_descriptor",
    "dogstatsd_workers_count",
    "ec2_prefer_imdsv2",
    "ecs_metadata_timeout",
    "enable_json_stream_shared_compressor_buffers",
    "enable_metadata_collection",
    "enable_stream_payload_serialization",
    "enhanced_metrics",
    "evp_proxy_config",
    "exclude_pause_container",
    "expected_tags_duration",
    "expvar_port",
    "external_config",
    "external_metrics_provider",
    "flare",
    "fleet_policies_dir",
    "flush_timeout_secs",
    "forwarder_connection_reset_interval",
    "forwarder_flush_to_disk_mem_ratio",
    "forwarder_high_prio_buffer_size",
    "forwarder_low_prio_buffer_size",
    "forwarder_num_workers",
    "forwarder_recovery_interval",
    "forwarder_recovery_reset",
    "forwarder_requeue_buffer_size",
    "forwarder_retry_queue_capacity_time_interval_sec",
    "forwarder_retry_queue_max_size",
    "gpu",
    "gpu_monitoring",
    "ha_agent",
    "health_platform",
    "heroku_dyno",
    "hostname_fqdn",
    "hostname_force_config_as_canonical",
    "hostname_trust_uts_namespace",
    "iot_host",
    "infrastructure_mode",
    "instrumentation_telemetry_enabled",
    "inventories",
    "inventories_enabled",
    "jmx_custom_jars",
    "jmx_use_cgroup_memory_limit",
    "kubelet_client_ca",
    "kubelet_tls_verify",
    "kubernetes_kubelet_host",
    "kubernetes_pod_annotations_as_tags",
    "kubernetes_pod_labels_as_tags",
    "language_detection",
    "listeners",
    "log_all_goroutines_when_unhealthy",
    "log_enabled",
    "log_file_max_rolls",
    "log_file_max_size",
    "log_format_json",
    "log_format_rfc3339",
    "log_payloads",
    "log_to_console",
    "log_to_syslog",
    "logging_frequency",
    "logs_config",
    "logs_enabled",
    "memtrack_enabled",
    "metadata_providers",
    "metric_filterlist_match_prefix",
    "metric_tag_filterlist_adp_only",
    "network",
    "network_config",
    "network_devices",
    "network_path",
    "orchestrator_explorer",
    "otelcollector",
    "otlp_config",
    "persistence",
    "private_action_runner",
    "process_config",
    "procfs_path",
    "prometheus_scrape",
    "python_version",
    "remote_agent",
    "remote_agent_registry",
    "remote_configuration",
    "remote_updates",
    "runtime_security_config",
    "sbom",
    "secret_backend_arguments",
    "secret_backend_config",
    "secret_backend_output_max_size",
    "secret_backend_timeout",
    "secret_backend_type",
    "secret_refresh_interval",
    "security_agent",
    "serializer_experimental_use_v3_api",
    "serverless",
    "service_monitoring_config",
    "sidecar",
    "snmp_listener",
    "snmp_traps_config",
    "software_inventory",
    "statsd_forward_port",
    "statsd_metric_blocklist_match_prefix",
    "syslog_rfc",
    "syslog_uri",
    "system_probe_config",
    "telemetry",
    "tracemalloc_debug",
    "tagger",
    "use_dogstatsd_pipeline",
    "use_improved_cgroup_parser",
    "use_networkv2_check",
    "use_proxy_for_cloud_metadata",
    "use_v2_api",
    "use_v3_api",
    "win_skip_com_init",
    "windows_use_pythonpath",
    "workloadmeta",
    "bosh_id",
    "checks_tag_cardinality",
    "install_info",
    "dogstatsd_buffer_count",
    "dogstatsd_minimum_sample_rate",
    "dogstatsd_permissive_decoding",
    "dogstatsd_cached_contexts_limit",
    "dogstatsd_cached_tagsets_limit",
    "dogstatsd_allow_context_heap_allocs",
    "dogstatsd_string_interner_size_bytes",
    "dogstatsd_autoscale_udp_listeners",
};

/* Beginnings of variables that are read by others. */
static const char *const others_env[] = {
    "DD_TRACE_",
    "DD_LOGS_",
    "DD_PROFILING_",
    "DD_APM_",
    "DD_APPSEC_",
    "DD_IAST_",
    "DD_RUNTIME_",
    "DD_INSTRUMENTATION_",
    "DD_REMOTE_CONFIG",
    "DD_DYNAMIC_INSTRUMENTATION_",
    "DD_CIVISIBILITY_",
    "DD_CI_",
    "DD_TEST_",
    "DD_GIT_",
    "DD_DATA_STREAMS_",
    "DD_DBM_",
    "DD_LLMOBS_",
    "DD_OPENAI_",
    "DD_CRASHTRACKING_",
    "DD_TELEMETRY_",
    "DD_PROPAGATION_",
    "DD_SPAN_",
    "DD_INTEGRATION_",
    "DD_INTEGRATIONS_",
    "DD_SYMBOL_DATABASE_",
    "DD_EXCEPTION_",
    "DD_CODE_ORIGIN_",
    "DD_SERVERLESS_",
    "DD_LAMBDA_",
    "DD_ENHANCED_METRICS",
    "DD_KUBERNETES_",
    "DD_CONTAINER_",
    "DD_CLUSTER_AGENT_",
    "DD_ORCHESTRATOR_EXPLORER_",
    "DD_PROCESS_",
    "DD_SYSTEM_PROBE_",
    "DD_OTLP_",
    "DD_RUM_",
    "DD_SBOM_",
    "DD_GPU_",
    "DD_INJECT",
    "DD_CONTEXT_",
    "DD_REQUEST_",
    "DD_HTTP_",
    "DD_WAF_",
    "DD_API_SECURITY_",
    "DD_FEATURE_FLAGS",
    "DD_INTERNAL_",
    "DD_CUSTOM_",
    "DD_MICROSERVICE_",
    "DD_ECS_",
    "DD_AAS_",
    "DD_AZURE_",
    "DD_AWS_",
    "DD_GCP_",
    "DD_NET_",
    "DD_DOTNET_",
    "DD_PYTHON_",
    "DD_RUBY_",
    "DD_PHP_",
    "DD_JAVA_",
    "DD_NODE_",
    "DD_GO_",
    "DD_JMXFETCH_",
    "DD_METRICS_",
    "DD_EXPERIMENTAL_",
};

/* Whole names that are read by others. */
static const char *const others_env_exact[] = {
    "DD_AGENT_HOST",
    "DD_ENTITY_ID",
    "DD_EXTERNAL_ENV",
    "DD_DOGSTATSD_URL",
    "DD_DOGSTATSD_HOST",
    "DD_DOGSTATSD_PATH",
    "DD_APP_KEY",
    "DD_SOURCE",
    "DD_SERVICE_MAPPING",
    "DD_CARDINALITY",
    "DD_TAGS_DELIMITER",
    "DD_ORIGIN_DETECTION_ENABLED",
    "DD_DEBUG",
    "DD_CALL_BASIC_CONFIG",
    "DD_DOGSTATSD_DISABLE",
    "DD_STATSD_DISABLE",
    "DD_BASE_URL",
    "DD_STATSD_DEFAULT_HOST",
    "DD_POD_NAME",
    "DD_CLUSTER_NAME",
    "DD_PATCH_MODULES",
    "DD_VERSION_LOCK",
    "DD_FLUSH_TO_LOG",
    "DD_LOCAL_TEST",
    "DD_MERGE_XRAY_TRACES",
    "DD_STARTUP_LOGS_ENABLED",
    "DD_DATABASE_MONITORING_ENABLED",
    "DD_EXTENSION_VERSION",
    "DD_INSTALL_INFO",
};

/* @name is @known or a key below it. */
static bool at_or_below(const char *name, const char *known)
{
    size_t n = strlen(known);

    return strncmp(name, known, n) == 0 && (name[n] == '\0' || name[n] == '.');
}

static bool env_at_or_below(const char *env, const char *known)
{
    const char *rest = config_env_rest(env, known);

    return rest != NULL && (*rest == '\0' || *rest == '_');
}

#define N_OF(list) (sizeof(list) / sizeof((list)[0]))

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Levenshtein; names are at most CONFIG_MAX_NAME - 1 long. */
static size_t distance(const char *a, const char *b)
{
    size_t row[CONFIG_MAX_NAME];
    size_t n = strlen(b);

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t above = row[j];

            row[j] =
                min3(above + 1, row[j - 1] + 1,
                     diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n];
}

const char *config_nearest(const char *name)
{
    size_t n = strlen(name);
    size_t best = n / 4 + 2; /* further off it is no slip of the finger */
    const char *nearest = NULL;

    if (n >= CONFIG_MAX_NAME)
        return NULL;
    for (size_t i = 0; i < config_n_keys(); i++) {
        size_t d = distance(name, config_key_at(i)->name);

        if (d < best) {
            best = d;
            nearest = config_key_at(i)->name;
        }
    }
    return nearest;
}

static bool report_full(const struct config_loader *l)
{
    return l->report.warnings.n >= CONFIG_MAX_FINDINGS;
}

void config_unknown(struct config_loader *l, const struct config_place *at,
                    const char *name, bool active)
{
    const char *near;

    for (size_t i = 0; i < N_OF(unsupported); i++) {
        if (!at_or_below(name, unsupported[i].name))
            continue;
        config_found(l, active ? FINDING_WARNING : FINDING_NOTE, at,
                     "%s: not supported yet: %s", name, unsupported[i].effect);
        return;
    }
    for (size_t i = 0; i < N_OF(agents); i++) {
        if (!at_or_below(name, agents[i]))
            continue;
        config_found(l, FINDING_NOTE, at,
                     "%s: a key of the Datadog Agent without meaning here",
                     name);
        return;
    }
    if (report_full(l)) { /* a hostile file must not make us search on */
        l->report.n_dropped++;
        return;
    }
    if (string_list_has(&l->unknown, name))
        return;
    if (string_list_add(&l->unknown, name, strlen(name)) != 0)
        l->failed = true;
    near = config_nearest(name);
    config_found(l, FINDING_WARNING, at, "%s: unknown key%s%s", name,
                 near != NULL ? "; did you mean " : " and none is like it",
                 near != NULL ? near : "");
}

static bool env_is_active(const char *value)
{
    static const char *const off[] = {"",  "false", "False", "FALSE",
                                      "0", "[]",    "{}"};

    for (size_t i = 0; i < N_OF(off); i++) {
        if (strcmp(value, off[i]) == 0)
            return false;
    }
    return true;
}

static bool is_others(const char *env)
{
    for (size_t i = 0; i < N_OF(others_env); i++) {
        if (strncmp(env, others_env[i], strlen(others_env[i])) == 0)
            return true;
    }
    for (size_t i = 0; i < N_OF(others_env_exact); i++) {
        if (strcmp(env, others_env_exact[i]) == 0)
            return true;
    }
    return false;
}

void config_unknown_env(struct config_loader *l, const char *env,
                        const char *value)
{
    struct config_place at = {.source = env};
    char name[CONFIG_MAX_NAME];
    char near_env[CONFIG_MAX_NAME];
    const char *near;
    size_t n = 0;

    for (size_t i = 0; i < N_OF(unsupported); i++) {
        if (!env_at_or_below(env, unsupported[i].name))
            continue;
        /* DD_DOGSTATSD_ORIGIN_DETECTION_CLIENT is ours and never comes here. */
        config_found(l, env_is_active(value) ? FINDING_WARNING : FINDING_NOTE,
                     &at, "not supported yet: %s", unsupported[i].effect);
        return;
    }
    if (is_others(env))
        return;
    for (size_t i = 0; i < N_OF(agents); i++) {
        if (!env_at_or_below(env, agents[i]))
            continue;
        config_found(l, FINDING_NOTE, &at,
                     "a variable of the Datadog Agent without meaning here");
        return;
    }
    if (report_full(l)) {
        l->report.n_dropped++;
        return;
    }
    for (const char *p = env + 3; *p != '\0' && n < sizeof(name) - 1; p++)
        name[n++] = (char)tolower((unsigned char)*p);
    name[n] = '\0';
    near = config_nearest(name);
    if (near != NULL) {
        config_env_name(near, near_env, sizeof(near_env));
        config_found(l, FINDING_WARNING, &at,
                     "unknown variable; did you mean %s", near_env);
    } else {
        /* Many products share DD_: far from all of ours it is one of theirs,
         * except below our own beginning. */
        config_found(l,
                     strncmp(env, "DD_DOGSTATSD_", 13) == 0 ? FINDING_WARNING
                                                            : FINDING_NOTE,
                     &at, "unknown variable and none of ours is like it");
    }
}
