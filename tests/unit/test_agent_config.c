/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration through its public face: sources, precedence, findings. */
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/log.h"
#include "agent/config.h"
#include "aggregator/agg.h"
#include "forwarder/store.h"

#define KEY "0123456789abcdef0123456789abcdef"

/* A root of its own per test, so that no file of the machine is read. */
struct state {
    char root[64];
    struct config cfg;
    struct config_report rep;
    struct config_sources src;
    const char *env[32];
    const char *sets[8];
    bool loaded;
};

static void put(const struct state *s, const char *path, const char *text,
                size_t n)
{
    char full[512];
    FILE *f;

    (void)snprintf(full, sizeof(full), "%s%s", s->root, path);
    for (char *p = full + strlen(s->root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0700);
        *p = '/';
    }
    f = fopen(full, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void put_text(const struct state *s, const char *path, const char *text)
{
    put(s, path, text, strlen(text));
}

static int setup(void **state)
{
    struct state *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    (void)snprintf(s->root, sizeof(s->root), "/tmp/test-config-XXXXXX");
    assert_non_null(mkdtemp(s->root));
    s->env[0] = "DD_API_KEY=" KEY;
    s->src = (struct config_sources){.root = s->root,
                                     .sets = s->sets,
                                     .env = (char *const *)s->env};
    *state = s;
    return 0;
}

static void unload(struct state *s)
{
    if (s->loaded) {
        config_fini(&s->cfg);
        config_report_fini(&s->rep);
    }
    s->loaded = false;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    struct state *s = *state;

    unload(s);
    (void)nftw(s->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(s);
    return 0;
}

static void load(struct state *s)
{
    unload(s);
    while (s->sets[s->src.n_sets] != NULL)
        s->src.n_sets++;
    assert_int_equal(config_load(&s->cfg, &s->src, &s->rep), 0);
    s->loaded = true;
}

/* Load @text as the file of -c. */
static void load_text(struct state *s, const char *text)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/x.yaml", s->root);
    put_text(s, "/x.yaml", text);
    s->src.file = path;
    load(s);
}

static bool has_line(const struct string_list *l, const char *part)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strstr(l->items[i], part) != NULL)
            return true;
    }
    return false;
}

static void assert_line(const struct string_list *l, const char *part)
{
    if (has_line(l, part))
        return;
    for (size_t i = 0; i < l->n; i++)
        print_error("have: %s\n", l->items[i]);
    fail_msg("no line holds: %s", part);
}

static void assert_clean(const struct state *s)
{
    for (size_t i = 0; i < s->rep.errors.n; i++)
        print_error("error: %s\n", s->rep.errors.items[i]);
    for (size_t i = 0; i < s->rep.warnings.n; i++)
        print_error("warning: %s\n", s->rep.warnings.items[i]);
    assert_int_equal(s->rep.errors.n, 0);
    assert_int_equal(s->rep.warnings.n, 0);
}

static char *dump(const struct config *c)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    config_dump(c, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void defaults_are_those_of_the_documentation(void **state)
{
    struct state *s = *state;
    const struct config *c = &s->cfg;

    load(s);
    assert_clean(s);
    assert_true(c->keeper);
    assert_int_equal(c->stop_timeout_ms, 9000);
    assert_int_equal(c->stop_linger_ms, 1000);
    assert_int_equal(c->stop_quiet_ms, 100);
    assert_int_equal(c->stop_reserve_ms, 3000);
    assert_int_equal(c->aggregator_stop_cap_ms, 0);
    assert_int_equal(c->forwarder_stop_cap_ms, 0);
    assert_true(c->flush_incomplete_buckets);
    assert_true(c->forwarder_stop_wait_for_inflight);
    assert_int_equal(c->flush_delay_ms, 500);
    assert_int_equal(c->flush_jitter_ms, 1000);
    assert_int_equal(c->dogstatsd_port, 8125);
    assert_string_equal(c->dogstatsd_socket, "/var/run/datadog/dsd.socket");
    assert_string_equal(c->dogstatsd_stream_socket, "");
    assert_int_equal(c->dogstatsd_socket_mode, 0722);
    assert_int_equal(c->dogstatsd_context_limit, 1000000);
    assert_int_equal(c->dogstatsd_expiry_s, 300);
    assert_int_equal(c->memory_limit_bytes, 256 << 20);
    assert_int_equal(c->store_max_bytes, 16 << 20);
    assert_int_equal(c->compressor, ENCODING_ZSTD);
    assert_int_equal(c->hist_aggregates,
                     HIST_MAX | HIST_MEDIAN | HIST_AVG | HIST_COUNT);
    assert_int_equal(c->n_hist_percentiles, 1);
    assert_int_equal(c->hist_percentiles[0], 95);
    assert_int_equal(c->statsd_metric_namespace_blocklist.n, 21);
    assert_int_equal(c->forwarder_backoff_base_ms, 100);
    assert_int_equal(c->apikey_validation_interval_s, 3600);
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_string_equal(c->control_socket, "");
    assert_string_equal(c->no_proxy, "");
    assert_int_equal(c->tags.n, 0);
    assert_false(config_is_set(c, "stop_timeout"));
    assert_true(config_is_set(c, "api_key"));
}

static void exec_has_defaults_of_its_own(void **state)
{
    struct state *s = *state;
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/run", s->root);
    assert_int_equal(mkdir(path, 0700), 0);
    load(s); /* the folder can be made */
    assert_non_null(strstr(s->cfg.control_socket, "/run/retriever/control."));
    (void)snprintf(path, sizeof(path), "%s/run/retriever", s->root);
    assert_int_equal(mkdir(path, 0700), 0);
    load(s);
    assert_non_null(strstr(s->cfg.control_socket, "/run/retriever/control."));
    s->src.exec_mode = true;
    load(s);
    assert_string_equal(s->cfg.control_socket, "");
    assert_int_equal(s->cfg.log_level, LOG_LEVEL_WARN);
}

static void stronger_sources_win(void **state)
{
    struct state *s = *state;
    char *text;

    put_text(s, "/etc/datadog-agent/datadog.yaml", "site: agent.example\n");
    load(s);
    assert_string_equal(s->cfg.site, "agent.example");

    put_text(s, "/etc/retriever/retriever.yaml",
             "site: ours.example\nstop_timeout: 2\nservice: a\nenv: e\n");
    put_text(s, "/etc/retriever/conf.d/20-b.yaml", "service: c\n");
    put_text(s, "/etc/retriever/conf.d/10-a.yaml", "service: b\nenv: f\n");
    put_text(s, "/etc/retriever/conf.d/note.txt", "service: no\n");
    s->env[1] = "DD_STOP_TIMEOUT=3";
    s->env[2] = "DD_ENV=g";
    s->sets[0] = "stop_timeout=4";
    s->sets[1] = "stop_timeout=5";
    load(s);
    assert_clean(s);
    assert_string_equal(s->cfg.site, "ours.example");
    assert_int_equal(s->cfg.stop_timeout_ms, 5000);
    assert_int_equal(s->cfg.tags.n, 2);
    assert_string_equal(s->cfg.tags.items[0], "env:g");
    assert_string_equal(s->cfg.tags.items[1], "service:c");
    text = dump(&s->cfg);
    assert_non_null(strstr(text, "stop_timeout: 5  # --set\n"));
    assert_non_null(strstr(text, "env: \"g\"  # DD_ENV\n"));
    assert_non_null(strstr(text, "/conf.d/20-b.yaml:1\n"));
    free(text);
}

static void every_error_is_named_with_its_place(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_STOP_TIMEOUT=99999";
    s->sets[0] = "health_port=-1";
    s->sets[1] = "stop_timout=1";
    load_text(s, "dogstatsd_port: 99999\n"
                 "memory_limit: 1KiB\n"
                 "keeper: perhaps\n"
                 "forwarder_timeout: fast\n"
                 "histogram_aggregates: [max, most]\n"
                 "dogstatsd_socket_mode: 0999\n"
                 "dogstatsd_sockets: [\"tcp://127.0.0.1:1\"]\n"
                 "stop_linger_ms: 0.5\n"
                 "compressor: lzma\n"
                 "proxy: none\n"
                 "tags: {a: b}\n"
                 "hostname: [a, b]\n"
                 "dd_url: gopher://x\n"
                 "env: ENC[key]\n");
    assert_int_equal(s->rep.errors.n, 17);
    assert_line(&s->rep.errors,
                "/x.yaml:1:17: dogstatsd_port: 99999 is above the maximum "
                "65535");
    assert_line(&s->rep.errors, "/x.yaml:2:15: memory_limit: 1KiB is below");
    assert_line(&s->rep.errors, "/x.yaml:3:9: keeper: perhaps must be true");
    assert_line(&s->rep.errors, ":4:20: forwarder_timeout: fast must be");
    assert_line(&s->rep.errors, ":5:23: histogram_aggregates: most must be");
    assert_line(&s->rep.errors, ":6:24: dogstatsd_socket_mode: 0999 must be");
    assert_line(&s->rep.errors, "tcp://127.0.0.1:1 is not supported yet");
    assert_line(&s->rep.errors, "stop_linger_ms: 0.5 must be whole");
    assert_line(&s->rep.errors, "compressor: lzma must be one of zstd, zlib");
    assert_line(&s->rep.errors, "proxy: takes a map");
    assert_line(&s->rep.errors, "tags: takes a list, not a map");
    assert_line(&s->rep.errors, "hostname: takes one value");
    assert_line(&s->rep.errors, "dd_url: gopher://x ");
    assert_line(&s->rep.errors, "secret backends are not supported");
    assert_line(&s->rep.errors,
                "DD_STOP_TIMEOUT: stop_timeout: 99999 is above the maximum "
                "3600 s");
    assert_line(&s->rep.errors, "--set: health_port: -1 is below");
    assert_line(&s->rep.errors, "--set: stop_timout: there is no such key; "
                                "did you mean stop_timeout");
    /* What was refused left its default. */
    assert_int_equal(s->cfg.dogstatsd_port, 8125);
    assert_int_equal(s->cfg.stop_timeout_ms, 9000);
    assert_true(s->cfg.keeper);
}

static void a_missing_key_stops_run_and_not_exec(void **state)
{
    struct state *s = *state;

    s->env[0] = "DD_API_KEY=";
    load(s);
    assert_line(&s->rep.errors, "DD_API_KEY");
    assert_line(&s->rep.errors, "retriever intake");
    s->src.exec_mode = true;
    load(s);
    assert_int_equal(s->rep.errors.n, 0);
    assert_line(&s->rep.warnings, "DD_API_KEY");
    assert_string_equal(s->cfg.api_key, "");
}

static void secrets_appear_nowhere(void **state)
{
    struct state *s = *state;
    char *text;

    s->sets[0] = "api_key=" KEY;
    s->env[1] = "DD_PROXY_HTTPS=http://user:pass word@p:1";
    load(s);
    assert_line(&s->rep.errors, "not taken from the command line");
    for (size_t i = 0; i < s->rep.errors.n; i++) {
        assert_null(strstr(s->rep.errors.items[i], KEY));
        assert_null(strstr(s->rep.errors.items[i], "pass word"));
    }
    s->env[0] = "DD_API_KEY=secret\x01secret";
    load(s);
    for (size_t i = 0; i < s->rep.errors.n; i++)
        assert_null(strstr(s->rep.errors.items[i], "secret\\x01"));
    s->env[0] = "DD_API_KEY=  " KEY "  ";
    s->env[1] = "DD_PROXY_HTTPS=http://user:hushhush@p:1";
    load(s);
    assert_string_equal(s->cfg.api_key, KEY);
    text = dump(&s->cfg);
    assert_null(strstr(text, KEY));
    assert_null(strstr(text, "hushhush"));
    assert_non_null(strstr(text, "api_key: \"*****bcdef\"  # DD_API_KEY"));
    assert_non_null(strstr(text, "http://*****@p:1"));
    free(text);
}

static void unknown_names_get_the_nearest_one(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_DOGSTATSD_PROT=1";
    s->env[2] = "DD_TRACE_AGENT_PORT=1";
    s->env[3] = "DD_LOGS_INJECTION=true";
    s->env[4] = "DD_AGENT_HOST=x";
    s->env[5] = "DD_APM_ENABLED=1";
    s->env[6] = "DD_ADDITIONAL_ENDPOINTS={\"https://x\":[\"k\"]}";
    s->env[7] = "DD_DOGSTATSD_QUEUE_SIZE=1";
    s->env[8] = "DD_DOGSTATSD_WONDERFUL_THING=1";
    load_text(s, "stop_timout: 5\n"
                 "proxy:\n  htps: x\n"
                 "logs_config: {a: {b: c}}\n"
                 "dogstatsd_mapper_profiles: [{name: a}]\n"
                 "dogstatsd_origin_detection: false\n"
                 "\"odd\\nname\": 1\n");
    assert_int_equal(s->rep.errors.n, 0);
    assert_int_equal(s->rep.warnings.n, 7);
    assert_line(&s->rep.warnings,
                ":1:1: stop_timout: unknown key; did you mean stop_timeout");
    assert_line(&s->rep.warnings, "proxy.htps: unknown key; did you mean "
                                  "proxy.https");
    assert_line(&s->rep.warnings, "dogstatsd_mapper_profiles: not supported");
    assert_line(&s->rep.warnings, "odd\\x0aname: unknown key");
    assert_line(&s->rep.warnings, "DD_DOGSTATSD_PROT: unknown variable; did "
                                  "you mean DD_DOGSTATSD_PORT");
    assert_line(&s->rep.warnings, "DD_ADDITIONAL_ENDPOINTS: not supported");
    assert_line(&s->rep.warnings, "DD_DOGSTATSD_WONDERFUL_THING: unknown");
    assert_line(&s->rep.notes, "logs_config: a key of the Datadog Agent");
    assert_line(&s->rep.notes, "DD_DOGSTATSD_QUEUE_SIZE");
}

static void an_empty_variable_is_off_for_sockets_only(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_DOGSTATSD_SOCKET=";
    s->env[2] = "DD_SITE=";
    load(s);
    assert_clean(s);
    assert_string_equal(s->cfg.dogstatsd_socket, "");
    assert_true(config_is_set(&s->cfg, "dogstatsd_socket"));
    assert_string_equal(s->cfg.site, "datadoghq.com");
}

static void lists_come_in_each_form(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_TAGS=a:1,b:2";
    s->env[2] = "DD_EXTRA_TAGS=c:x,y d:4";
    s->env[3] = "DD_DOGSTATSD_TAGS=[\"e:5 6\", \"a:1\"]";
    s->env[4] = "DD_SERVICE=web";
    s->env[5] = "DD_DOGSTATSD_SOCKETS=udp://[::1]:9 unixgram://@x";
    load_text(s, "histogram_aggregates: max sum\n"
                 "histogram_percentiles: [0.99, 0.5, '0.99']\n");
    /* c:x,y holds a comma: refused as a whole list. */
    assert_int_equal(s->rep.errors.n, 1);
    assert_line(&s->rep.errors, "DD_EXTRA_TAGS: extra_tags: c:x,y");
    assert_int_equal(s->cfg.tags.n, 4);
    assert_string_equal(s->cfg.tags.items[0], "e:5 6");
    assert_string_equal(s->cfg.tags.items[1], "a:1");
    assert_string_equal(s->cfg.tags.items[2], "b:2");
    assert_string_equal(s->cfg.tags.items[3], "service:web");
    assert_int_equal(s->cfg.dogstatsd_sockets.n, 2);
    assert_int_equal(s->cfg.hist_aggregates, HIST_MAX | HIST_SUM);
    assert_int_equal(s->cfg.n_hist_percentiles, 2);
    assert_int_equal(s->cfg.hist_percentiles[0], 50);
    assert_int_equal(s->cfg.hist_percentiles[1], 99);
}

static void units_and_words_are_understood(void **state)
{
    struct state *s = *state;

    load_text(s, "stop_timeout: 1m30s\n"
                 "stop_quiet_ms: 2s\n"
                 "forwarder_timeout: 1.5\n"
                 "memory_limit: 64MiB\n"
                 "dogstatsd_port: __random__\n"
                 "keeper: off\n"
                 "log_level: WARNING\n"
                 "forwarder_http_protocol: http1\n"
                 "serializer_compressor_kind: gzip\n"
                 "statsd_metric_namespace: app\n"
                 "dogstatsd_eol_required: [uds]\n"
                 "dogstatsd_socket_mode: 0o600\n"
                 "run_path: /var/lib/x\n");
    assert_clean(s);
    assert_int_equal(s->cfg.stop_timeout_ms, 90000);
    assert_int_equal(s->cfg.stop_quiet_ms, 2000);
    assert_int_equal(s->cfg.forwarder_timeout_ms, 1500);
    assert_int_equal(s->cfg.memory_limit_bytes, 64 << 20);
    assert_int_equal(s->cfg.dogstatsd_port, CONFIG_PORT_RANDOM);
    assert_false(s->cfg.keeper);
    assert_int_equal(s->cfg.log_level, LOG_LEVEL_WARN);
    assert_true(s->cfg.http1_only);
    assert_int_equal(s->cfg.compressor, ENCODING_GZIP);
    assert_string_equal(s->cfg.statsd_metric_namespace, "app.");
    assert_true(s->cfg.eol_required_uds);
    assert_false(s->cfg.eol_required_udp);
    assert_int_equal(s->cfg.dogstatsd_socket_mode, 0600);
    assert_int_equal(s->cfg.store_max_bytes, 256 << 20);
}

static void the_reserve_is_at_most_half_of_the_budget(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_STOP_TIMEOUT=2";
    load(s);
    assert_clean(s); /* nobody asked for the 3000 */
    assert_int_equal(s->cfg.stop_reserve_ms, 1000);
    s->env[2] = "DD_STOP_RESERVE_MS=1500";
    load(s);
    assert_line(&s->rep.warnings, "stop_reserve_ms: cut to 1000");
}

static void given_twice_is_an_error_when_it_differs(void **state)
{
    struct state *s = *state;

    load_text(s, "stop_timeout: 4\nsite: a.b\nstop_timeout: 5\nsite: a.b\n");
    assert_int_equal(s->rep.errors.n, 1);
    assert_line(&s->rep.errors, ":3:15: stop_timeout: given twice");
    load_text(s, "compressor: zstd\nserializer_compressor_kind: none\n");
    assert_line(&s->rep.errors, "serializer_compressor_kind: given twice with "
                                "different values (the other: compressor, ");
    s->env[1] = "DD_DD_URL=https://a.example";
    s->env[2] = "DD_URL=https://b.example";
    load_text(s, "{}");
    assert_string_equal(s->cfg.dd_url, "https://a.example");
    assert_line(&s->rep.warnings, "DD_URL: ignored: DD_DD_URL");
}

/* ---- Priority of the reader --------------------------------------------- */

#define STREAM_KEY "event_monitoring_config.event_stream."

/* The spellings, each as text for YAML and as variable. */
static const struct spelling {
    const char *key; /* before "policy" and "priority" */
    const char *env;
    const char *yaml; /* policy and priority are put in */
} spellings[] = {
    {STREAM_KEY "scheduling_",
     "EVENT_MONITORING_CONFIG_EVENT_STREAM_SCHEDULING_",
     "event_monitoring_config:\n  event_stream:\n"
     "    scheduling_policy: %s\n    scheduling_priority: %s\n"},
    {"ebpf.reader.scheduling_", "EBPF_READER_SCHEDULING_",
     "ebpf:\n  reader:\n"
     "    scheduling_policy: %s\n    scheduling_priority: %s\n"},
    {"ebpf.scheduling_", "EBPF_SCHEDULING_",
     "ebpf:\n  scheduling_policy: %s\n  scheduling_priority: %s\n"},
    {"dogstatsd_scheduling_", "DOGSTATSD_SCHEDULING_",
     "dogstatsd_scheduling_policy: %s\ndogstatsd_scheduling_priority: %s\n"},
};

static const struct {
    const char *policy, *priority;
    const char *about; /* what the error names; NULL = good */
    const char *says;
    int want;
} pairs[] = {
    {"", "0", NULL, NULL, SCHED_OTHER},
    {"SCHED_FIFO", "10", NULL, NULL, SCHED_FIFO},
    {"SCHED_RR", "1", NULL, NULL, SCHED_RR},
    {"SCHED_FIFO", "99", NULL, NULL, SCHED_FIFO},
    {"SCHED_OTHER", "10", "policy", "must be SCHED_FIFO or SCHED_RR", 0},
    {"SCHED_FIFO", "0", "priority", "must be between 1 and 99", 0},
    {"SCHED_FIFO", "100", "priority", "must be between 1 and 99", 0},
    {"SCHED_FIFO", "-1", "priority", "must be between 1 and 99", 0},
    {"", "10", "priority", "is empty", 0},
    /* beyond the nine: exact spelling, the order of the checks, any number */
    {"sched_fifo", "10", "policy", "must be SCHED_FIFO or SCHED_RR", 0},
    {"SCHED_OTHER", "100", "policy", "must be SCHED_FIFO or SCHED_RR", 0},
    {"", "-1", "priority", "is empty", 0},
    {"SCHED_RR", "99999999999999999999", "priority", "must be between 1 and 99",
     0},
    {"SCHED_RR", "5.5", "priority", "must be a whole number", 0},
};

static void assert_pair(const struct state *s, size_t i, const char *key)
{
    char begin[200];

    if (pairs[i].about == NULL) {
        assert_int_equal(s->rep.errors.n, 0);
        assert_int_equal(s->cfg.reader_policy, pairs[i].want);
        assert_int_equal(s->cfg.reader_priority,
                         (int)strtol(pairs[i].priority, NULL, 10));
        return;
    }
    (void)snprintf(begin, sizeof(begin), ": %s%s: ", key, pairs[i].about);
    assert_line(&s->rep.errors, begin);
    assert_line(&s->rep.errors, pairs[i].says);
    assert_int_equal(s->cfg.reader_policy, SCHED_OTHER);
    assert_int_equal(s->cfg.reader_priority, 0);
}

static void policy_and_priority_are_checked_together(void **state)
{
    struct state *s = *state;
    char text[512];

    for (size_t k = 0; k < sizeof(spellings) / sizeof(spellings[0]); k++) {
        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
            char policy[64];

            (void)snprintf(policy, sizeof(policy), "\"%s\"", pairs[i].policy);
            (void)snprintf(text, sizeof(text), spellings[k].yaml, policy,
                           pairs[i].priority);
            load_text(s, text);
            assert_pair(s, i, spellings[k].key);
            if (pairs[i].about != NULL && i < 9)
                assert_int_equal(s->rep.errors.n, 1);
        }
    }
}

static void each_spelling_has_its_variable(void **state)
{
    struct state *s = *state;
    char policy[128], priority[128];

    s->env[1] = policy;
    s->env[2] = priority;
    for (size_t k = 0; k < sizeof(spellings) / sizeof(spellings[0]); k++) {
        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
            (void)snprintf(policy, sizeof(policy), "DD_%sPOLICY=%s",
                           spellings[k].env, pairs[i].policy);
            (void)snprintf(priority, sizeof(priority), "DD_%sPRIORITY=%s",
                           spellings[k].env, pairs[i].priority);
            load(s);
            assert_pair(s, i, spellings[k].key);
        }
    }
}

static void spellings_must_agree(void **state)
{
    struct state *s = *state;

    load_text(s, "ebpf: {scheduling_policy: SCHED_RR, scheduling_priority: 3}\n"
                 "dogstatsd_scheduling_policy: SCHED_RR\n");
    assert_clean(s);
    load_text(s, "ebpf: {scheduling_policy: SCHED_RR, scheduling_priority: 3}\n"
                 "dogstatsd_scheduling_policy: SCHED_FIFO\n");
    assert_line(&s->rep.errors, ":2:30: dogstatsd_scheduling_policy: given "
                                "twice with different values (the other: "
                                "ebpf.scheduling_policy, ");
    s->src.file = NULL;
    s->env[1] = "DD_EBPF_READER_SCHEDULING_POLICY=SCHED_FIFO";
    s->env[2] = "DD_DOGSTATSD_SCHEDULING_POLICY=SCHED_RR";
    s->env[3] = "DD_EBPF_SCHEDULING_PRIORITY=1";
    load(s);
    assert_int_equal(s->rep.errors.n, 1);
    assert_line(&s->rep.errors,
                "DD_DOGSTATSD_SCHEDULING_POLICY: "
                "DD_EBPF_READER_SCHEDULING_POLICY is set to another value");
    /* A stronger source wins under any name. */
    s->env[2] = NULL;
    s->sets[0] = "dogstatsd_scheduling_priority=7";
    load(s);
    assert_clean(s);
    assert_int_equal(s->cfg.reader_priority, 7);
}

static void a_high_priority_is_warned_about(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_EBPF_SCHEDULING_POLICY=SCHED_FIFO";
    s->env[2] = "DD_EBPF_SCHEDULING_PRIORITY=49";
    load(s);
    assert_int_equal(s->rep.warnings.n, 0);
    s->env[2] = "DD_EBPF_SCHEDULING_PRIORITY=50";
    load(s);
    assert_int_equal(s->rep.errors.n, 0);
    assert_line(&s->rep.warnings,
                "DD_EBPF_SCHEDULING_PRIORITY: ebpf.scheduling_priority: 50");
    s->env[3] = "DD_EBPF_READER_NICE_FALLBACK=-21";
    s->env[4] = "DD_EBPF_READER_RTTIME_MS=901";
    load(s);
    assert_line(&s->rep.errors, "ebpf.reader.nice_fallback: -21 is below");
    assert_line(&s->rep.errors, "ebpf.reader.rttime_ms: 901 is above");
    assert_int_equal(s->cfg.nice_fallback, -20);
    assert_int_equal(s->cfg.rttime_ms, 200);
}

static void hostile_files_cost_one_error(void **state)
{
    static const char *const files[] = {
        "\t- x: [",
        "a: &a [*a, *a]\ntags: *a\n",
        "- list\n- only\n",
        "just a word",
        "a: b\n---\nc: d",
        "\xff\xff\xff",
        "{",
        "tags: [\"a\\0b\"]",
        "? [a]\n: b\n",
    };
    struct state *s = *state;
    char path[128];
    size_t n;
    char *big;

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        load_text(s, files[i]);
        assert_int_equal(s->rep.errors.n, 1);
        assert_string_equal(s->cfg.site, "datadoghq.com");
    }
    big = malloc(CONFIG_MAX_FILE_BYTES + 1);
    assert_non_null(big);
    memset(big, '#', CONFIG_MAX_FILE_BYTES + 1);
    put(s, "/x.yaml", big, CONFIG_MAX_FILE_BYTES + 1);
    load(s);
    assert_line(&s->rep.errors, "larger than 1 MiB");
    n = 0; /* far more unknown keys than findings are kept */
    for (unsigned i = 0; i < 90000; i++)
        n += (size_t)snprintf(big + n, 16, "k%05u: 1\n", i);
    put(s, "/x.yaml", big, n);
    load(s);
    assert_int_equal(s->rep.warnings.n, CONFIG_MAX_FINDINGS);
    assert_int_equal(s->rep.n_dropped, 90000 - CONFIG_MAX_FINDINGS);
    n = 0; /* anchors that libyaml would compare with each other */
    for (unsigned i = 0; i < 60000; i++)
        n += (size_t)snprintf(big + n, 20, "k%05u: &a%05u\n", i, i);
    put(s, "/x.yaml", big, n);
    load(s);
    assert_line(&s->rep.errors, "anchors");
    free(big);
    (void)snprintf(path, sizeof(path), "%s/nowhere.yaml", s->root);
    s->src.file = path;
    load(s);
    assert_line(&s->rep.errors, "there is no such file");
    s->src.file = s->root;
    load(s);
    assert_line(&s->rep.errors, "cannot be read: Is a directory");
}

static void the_key_file_wins_and_is_read_again(void **state)
{
    struct state *s = *state;
    struct config_key_stamp stamp;
    char text[256];
    char path[128];
    char *key = NULL;

    (void)snprintf(path, sizeof(path), "%s/key", s->root);
    (void)snprintf(text, sizeof(text), "api_key_file: %s\n", path);
    put_text(s, "/key", "  filefilefilefile\n");
    assert_int_equal(chmod(path, 0600), 0);
    load_text(s, text);
    assert_clean(s);
    assert_string_equal(s->cfg.api_key, "filefilefilefile");
    stamp = s->cfg.api_key_stamp;
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key), 0);
    put_text(s, "/key", "nextnextnextnextnext");
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key),
                     CONFIG_KEY_CHANGED);
    assert_string_equal(key, "nextnextnextnextnext");
    free(key);
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key), 0);
    put_text(s, "/key", ""); /* half written */
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key), 0);
    load_text(s, text);
    assert_line(&s->rep.warnings, "is empty; api_key is used");
    put_text(s, "/key", "two words");
    s->env[0] = "X=";
    load_text(s, text);
    assert_line(&s->rep.errors, "api_key_file: ");
    assert_false(has_line(&s->rep.errors, "two words"));
}

static void a_proxy_is_left_out_for_the_exact_host(void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_PROXY_NO_PROXY=api.datadoghq.com datadoghq.eu";
    load(s);
    assert_string_equal(s->cfg.no_proxy, "api.datadoghq.com");
    s->env[1] = "DD_PROXY_NO_PROXY=datadoghq.com";
    load(s);
    assert_string_equal(s->cfg.no_proxy, "");
    s->env[2] = "DD_NO_PROXY_NONEXACT_MATCH=true";
    load(s);
    assert_string_equal(s->cfg.no_proxy, "datadoghq.com");
    s->env[1] = "no_proxy=datadoghq.com,10.0.0.0/8";
    s->env[2] = "https_proxy=http://p:1";
    load(s);
    assert_string_equal(s->cfg.no_proxy, "datadoghq.com,10.0.0.0/8");
    assert_string_equal(s->cfg.proxy_https, "http://p:1");
    /* A strange variable of the system must not stop us. */
    s->env[2] = "HTTPS_PROXY=gopher://p";
    load(s);
    assert_int_equal(s->rep.errors.n, 0);
    assert_line(&s->rep.warnings, "HTTPS_PROXY: proxy.https: gopher://p");
}

static void memory_follows_the_container(void **state)
{
    struct state *s = *state;

    put_text(s, "/proc/self/cgroup", "0::/a/b\n");
    put_text(s, "/sys/fs/cgroup/memory.max", "max\n");
    put_text(s, "/sys/fs/cgroup/a/memory.max", "268435456\n");
    load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 64 << 20);
    put_text(s, "/sys/fs/cgroup/a/memory.max", "1048576\n");
    load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 8 << 20);
    put_text(s, "/proc/self/cgroup", "5:cpu:/\n4:hugetlb,memory:/d\n");
    put_text(s, "/sys/fs/cgroup/memory/d/memory.limit_in_bytes", "536870912\n");
    load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 128 << 20);
    put_text(s, "/sys/fs/cgroup/memory/d/memory.limit_in_bytes",
             "9223372036854771712\n");
    load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 256 << 20);
}

static void the_agents_queue_size_counts_without_run_path(void **state)
{
    struct state *s = *state;

    load_text(s, "forwarder_retry_queue_payloads_max_size: 4MiB\n");
    assert_int_equal(s->cfg.store_max_bytes, 4 << 20);
    load_text(s, "forwarder_retry_queue_payloads_max_size: 4MiB\n"
                 "run_path: /x\n");
    assert_int_equal(s->cfg.store_max_bytes, 256 << 20);
    load_text(s, "forwarder_retry_queue_payloads_max_size: 4MiB\n"
                 "store_max_bytes: 5MiB\n");
    assert_int_equal(s->cfg.store_max_bytes, 5 << 20);
}

static void names_of_the_agent_that_lose_data_here_are_warned_about(
    void **state)
{
    struct state *s = *state;

    s->env[1] = "DD_DOGSTATSD_FLUSH_ON_STOP=false";
    s->env[2] = "DD_FORWARDER_STOP_WAIT_FOR_INFLIGHT=false";
    load(s);
    assert_int_equal(s->rep.errors.n, 0);
    assert_int_equal(s->rep.warnings.n, 2);
    assert_false(s->cfg.flush_incomplete_buckets);
    assert_false(s->cfg.forwarder_stop_wait_for_inflight);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(defaults_are_those_of_the_documentation),
        T(exec_has_defaults_of_its_own),
        T(stronger_sources_win),
        T(every_error_is_named_with_its_place),
        T(a_missing_key_stops_run_and_not_exec),
        T(secrets_appear_nowhere),
        T(unknown_names_get_the_nearest_one),
        T(an_empty_variable_is_off_for_sockets_only),
        T(lists_come_in_each_form),
        T(units_and_words_are_understood),
        T(the_reserve_is_at_most_half_of_the_budget),
        T(given_twice_is_an_error_when_it_differs),
        T(policy_and_priority_are_checked_together),
        T(each_spelling_has_its_variable),
        T(spellings_must_agree),
        T(a_high_priority_is_warned_about),
        T(hostile_files_cost_one_error),
        T(the_key_file_wins_and_is_read_again),
        T(a_proxy_is_left_out_for_the_exact_host),
        T(memory_follows_the_container),
        T(the_agents_queue_size_counts_without_run_path),
        T(names_of_the_agent_that_lose_data_here_are_warned_about),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
