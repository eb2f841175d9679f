/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration through its public face: sources, precedence, findings. */
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
#include "aggregator/agg.h"
#include "forwarder/store.h"
#include "tests/support/config_rig.h"

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
    struct config_rig *s = *state;
    const struct config *c = &s->cfg;

    config_rig_load(s);
    config_rig_assert_clean(s);
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
    struct config_rig *s = *state;
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/run", s->root);
    assert_int_equal(mkdir(path, 0700), 0);
    config_rig_load(s); /* the folder can be made */
    assert_non_null(strstr(s->cfg.control_socket, "/run/retriever/control."));
    (void)snprintf(path, sizeof(path), "%s/run/retriever", s->root);
    assert_int_equal(mkdir(path, 0700), 0);
    config_rig_load(s);
    assert_non_null(strstr(s->cfg.control_socket, "/run/retriever/control."));
    s->src.exec_mode = true;
    config_rig_load(s);
    assert_string_equal(s->cfg.control_socket, "");
    assert_int_equal(s->cfg.log_level, LOG_LEVEL_WARN);
}

static void stronger_sources_win(void **state)
{
    struct config_rig *s = *state;
    char *text;

    config_rig_put_text(s, "/etc/datadog-agent/datadog.yaml",
                        "site: agent.example\n");
    config_rig_load(s);
    assert_string_equal(s->cfg.site, "agent.example");

    config_rig_put_text(
        s, "/etc/retriever/retriever.yaml",
        "site: ours.example\nstop_timeout: 2\nservice: a\nenv: e\n");
    config_rig_put_text(s, "/etc/retriever/conf.d/20-b.yaml", "service: c\n");
    config_rig_put_text(s, "/etc/retriever/conf.d/10-a.yaml",
                        "service: b\nenv: f\n");
    config_rig_put_text(s, "/etc/retriever/conf.d/note.txt", "service: no\n");
    s->env[1] = "DD_STOP_TIMEOUT=3";
    s->env[2] = "DD_ENV=g";
    s->sets[0] = "stop_timeout=4";
    s->sets[1] = "stop_timeout=5";
    config_rig_load(s);
    config_rig_assert_clean(s);
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
    struct config_rig *s = *state;

    s->env[1] = "DD_STOP_TIMEOUT=99999";
    s->sets[0] = "health_port=-1";
    s->sets[1] = "stop_timout=1";
    config_rig_load_text(s, "dogstatsd_port: 99999\n"
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
    config_rig_assert_line(
        &s->rep.errors,
        "/x.yaml:1:17: dogstatsd_port: 99999 is above the maximum "
        "65535");
    config_rig_assert_line(&s->rep.errors,
                           "/x.yaml:2:15: memory_limit: 1KiB is below");
    config_rig_assert_line(&s->rep.errors,
                           "/x.yaml:3:9: keeper: perhaps must be true");
    config_rig_assert_line(&s->rep.errors,
                           ":4:20: forwarder_timeout: fast must be");
    config_rig_assert_line(&s->rep.errors,
                           ":5:23: histogram_aggregates: most must be");
    config_rig_assert_line(&s->rep.errors,
                           ":6:24: dogstatsd_socket_mode: 0999 must be");
    config_rig_assert_line(&s->rep.errors,
                           "tcp://127.0.0.1:1 is not supported yet");
    config_rig_assert_line(&s->rep.errors, "stop_linger_ms: 0.5 must be whole");
    config_rig_assert_line(&s->rep.errors,
                           "compressor: lzma must be one of zstd, zlib");
    config_rig_assert_line(&s->rep.errors, "proxy: takes a map");
    config_rig_assert_line(&s->rep.errors, "tags: takes a list, not a map");
    config_rig_assert_line(&s->rep.errors, "hostname: takes one value");
    config_rig_assert_line(&s->rep.errors, "dd_url: gopher://x ");
    config_rig_assert_line(&s->rep.errors, "secret backends are not supported");
    config_rig_assert_line(
        &s->rep.errors,
        "DD_STOP_TIMEOUT: stop_timeout: 99999 is above the maximum "
        "3600 s");
    config_rig_assert_line(&s->rep.errors, "--set: health_port: -1 is below");
    config_rig_assert_line(&s->rep.errors,
                           "--set: stop_timout: there is no such key; "
                           "did you mean stop_timeout");
    /* What was refused left its default. */
    assert_int_equal(s->cfg.dogstatsd_port, 8125);
    assert_int_equal(s->cfg.stop_timeout_ms, 9000);
    assert_true(s->cfg.keeper);
}

static void a_missing_key_stops_run_and_not_exec(void **state)
{
    struct config_rig *s = *state;

    s->env[0] = "DD_API_KEY=";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "DD_API_KEY");
    config_rig_assert_line(&s->rep.errors, "retriever intake");
    s->src.exec_mode = true;
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 0);
    config_rig_assert_line(&s->rep.warnings, "DD_API_KEY");
    assert_string_equal(s->cfg.api_key, "");
}

static void a_key_is_taken_without_its_line_end(void **state)
{
    struct config_rig *s = *state;

    s->env[0] = "DD_API_KEY=\t " KEY "\r\n";
    config_rig_load(s);
    config_rig_assert_clean(s);
    assert_string_equal(s->cfg.api_key, KEY);
}

static void a_refused_key_is_not_called_missing(void **state)
{
    struct config_rig *s = *state;

    s->env[0] = "DD_API_KEY=two\nlines";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(&s->rep.errors,
                           "api_key: the value holds a control character");
    s->src.exec_mode = true;
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
    assert_int_equal(s->rep.warnings.n, 1);
    config_rig_assert_line(&s->rep.warnings, "its samples are dropped");
    s->src.exec_mode = false;
    s->env[0] = "X=";
    config_rig_load_text(s, "api_key: [a, b]\n");
    assert_int_equal(s->rep.errors.n, 1);
}

static void secrets_appear_nowhere(void **state)
{
    struct config_rig *s = *state;
    char *text;

    s->sets[0] = "api_key=" KEY;
    s->env[1] = "DD_PROXY_HTTPS=http://user:pass word@p:1";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "not taken from the command line");
    for (size_t i = 0; i < s->rep.errors.n; i++) {
        assert_null(strstr(s->rep.errors.items[i], KEY));
        assert_null(strstr(s->rep.errors.items[i], "pass word"));
    }
    s->env[0] = "DD_API_KEY=secret\x01secret";
    config_rig_load(s);
    for (size_t i = 0; i < s->rep.errors.n; i++)
        assert_null(strstr(s->rep.errors.items[i], "secret\\x01"));
    s->env[0] = "DD_API_KEY=" KEY;
    s->env[1] = "DD_DD_URL=http://bob:hunter2@h";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "dd_url: http://*****@h contains");
    assert_false(config_rig_has_line(&s->rep.errors, "hunter2"));
    s->env[0] = "DD_API_KEY=  " KEY "  ";
    s->env[1] = "DD_PROXY_HTTPS=http://user:hushhush@p:1";
    config_rig_load(s);
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
    struct config_rig *s = *state;

    s->env[1] = "DD_DOGSTATSD_PROT=1";
    s->env[2] = "DD_TRACE_AGENT_PORT=1";
    s->env[3] = "DD_LOGS_INJECTION=true";
    s->env[4] = "DD_AGENT_HOST=x";
    s->env[5] = "DD_APM_ENABLED=1";
    s->env[6] = "DD_ADDITIONAL_ENDPOINTS={\"https://x\":[\"k\"]}";
    s->env[7] = "DD_DOGSTATSD_QUEUE_SIZE=1";
    s->env[8] = "DD_DOGSTATSD_WONDERFUL_THING=1";
    config_rig_load_text(s, "stop_timout: 5\n"
                            "proxy:\n  htps: x\n"
                            "logs_config: {a: {b: c}}\n"
                            "dogstatsd_mapper_profiles: [{name: a}]\n"
                            "dogstatsd_origin_detection: false\n"
                            "\"odd\\nname\": 1\n");
    assert_int_equal(s->rep.errors.n, 0);
    assert_int_equal(s->rep.warnings.n, 7);
    config_rig_assert_line(
        &s->rep.warnings,
        ":1:1: stop_timout: unknown key; did you mean stop_timeout");
    config_rig_assert_line(&s->rep.warnings,
                           "proxy.htps: unknown key; did you mean "
                           "proxy.https");
    config_rig_assert_line(&s->rep.warnings,
                           "dogstatsd_mapper_profiles: not supported");
    config_rig_assert_line(&s->rep.warnings, "odd\\x0aname: unknown key");
    config_rig_assert_line(&s->rep.warnings,
                           "DD_DOGSTATSD_PROT: unknown variable; did "
                           "you mean DD_DOGSTATSD_PORT");
    config_rig_assert_line(&s->rep.warnings,
                           "DD_ADDITIONAL_ENDPOINTS: not supported");
    config_rig_assert_line(&s->rep.warnings,
                           "DD_DOGSTATSD_WONDERFUL_THING: unknown");
    config_rig_assert_line(&s->rep.notes,
                           "logs_config: a key of the Datadog Agent");
    config_rig_assert_line(&s->rep.notes, "DD_DOGSTATSD_QUEUE_SIZE");
}

static void an_empty_variable_is_off_for_sockets_only(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_DOGSTATSD_SOCKET=";
    s->env[2] = "DD_SITE=";
    config_rig_load(s);
    config_rig_assert_clean(s);
    assert_string_equal(s->cfg.dogstatsd_socket, "");
    assert_true(config_is_set(&s->cfg, "dogstatsd_socket"));
    assert_string_equal(s->cfg.site, "datadoghq.com");
}

static void lists_come_in_each_form(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_TAGS=a:1,b:2";
    s->env[2] = "DD_EXTRA_TAGS=c:x,y d:4";
    s->env[3] = "DD_DOGSTATSD_TAGS=[\"e:5 6\", \"a:1\"]";
    s->env[4] = "DD_SERVICE=web";
    s->env[5] = "DD_DOGSTATSD_SOCKETS=udp://[::1]:9 unixgram://@x";
    config_rig_load_text(s, "histogram_aggregates: max sum\n"
                            "histogram_percentiles: [0.99, 0.5, '0.99']\n");
    /* c:x,y holds a comma: refused as a whole list. */
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(&s->rep.errors, "DD_EXTRA_TAGS: extra_tags: c:x,y");
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

static void each_bad_item_of_a_list_is_named(void **state)
{
    struct config_rig *s = *state;

    config_rig_load_text(s, "histogram_aggregates: [most, max, least]\n");
    assert_int_equal(s->rep.errors.n, 2);
    config_rig_assert_line(&s->rep.errors, "histogram_aggregates: most must");
    config_rig_assert_line(&s->rep.errors, "histogram_aggregates: least must");
    assert_int_equal(s->cfg.hist_aggregates,
                     HIST_MAX | HIST_MEDIAN | HIST_AVG | HIST_COUNT);
}

static void a_broken_json_list_is_called_one(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_TAGS=[\"x\"";
    s->env[2] = "DD_DOGSTATSD_SOCKETS=[1,";
    s->env[3] = "DD_EXTRA_TAGS=[a:1,b:2";
    s->env[4] = "NO_PROXY=[::1],api.datadoghq.com";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 3);
    config_rig_assert_line(&s->rep.errors, "DD_TAGS: tags: [\"x\" is no JSON");
    config_rig_assert_line(&s->rep.errors, "sockets: [1, is no JSON list");
    config_rig_assert_line(&s->rep.errors, "[a:1,b:2 is no JSON list");
    assert_string_equal(s->cfg.no_proxy, "[::1],api.datadoghq.com");
}

static void an_unknown_key_is_named_once(void **state)
{
    struct config_rig *s = *state;

    config_rig_load_text(s, "stop_timout: 5\nstop_timout: 5\n");
    assert_int_equal(s->rep.warnings.n, 1);
}

static void units_and_words_are_understood(void **state)
{
    struct config_rig *s = *state;

    config_rig_load_text(s, "stop_timeout: 1m30s\n"
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
    config_rig_assert_clean(s);
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
    struct config_rig *s = *state;

    s->env[1] = "DD_STOP_TIMEOUT=2";
    config_rig_load(s);
    config_rig_assert_clean(s); /* nobody asked for the 3000 */
    assert_int_equal(s->cfg.stop_reserve_ms, 1000);
    s->env[2] = "DD_STOP_RESERVE_MS=1500";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.warnings, "stop_reserve_ms: cut to 1000");
}

static void given_twice_is_an_error_when_it_differs(void **state)
{
    struct config_rig *s = *state;

    config_rig_load_text(
        s, "stop_timeout: 4\nsite: a.b\nstop_timeout: 5\nsite: a.b\n");
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(&s->rep.errors, ":3:15: stop_timeout: given twice");
    config_rig_load_text(
        s, "compressor: zstd\nserializer_compressor_kind: none\n");
    config_rig_assert_line(&s->rep.errors,
                           "serializer_compressor_kind: given twice with "
                           "different values (the other: compressor, ");
    s->env[1] = "DD_DD_URL=https://a.example";
    s->env[2] = "DD_URL=https://b.example";
    config_rig_load_text(s, "{}");
    assert_string_equal(s->cfg.dd_url, "https://a.example");
    config_rig_assert_line(&s->rep.warnings, "DD_URL: ignored: DD_DD_URL");
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
    struct config_rig *s = *state;
    char path[128];
    size_t n;
    char *big;

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        config_rig_load_text(s, files[i]);
        assert_int_equal(s->rep.errors.n, 1);
        assert_string_equal(s->cfg.site, "datadoghq.com");
    }
    big = malloc(CONFIG_MAX_FILE_BYTES + 1);
    assert_non_null(big);
    memset(big, '#', CONFIG_MAX_FILE_BYTES + 1);
    config_rig_put(s, "/x.yaml", big, CONFIG_MAX_FILE_BYTES + 1);
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "is larger than 1 MiB");
    n = 0; /* far more unknown keys than findings are kept */
    for (unsigned i = 0; i < 90000; i++)
        n += (size_t)snprintf(big + n, 16, "k%05u: 1\n", i);
    config_rig_put(s, "/x.yaml", big, n);
    config_rig_load(s);
    assert_int_equal(s->rep.warnings.n, CONFIG_MAX_FINDINGS);
    assert_int_equal(s->rep.n_dropped, 90000 - CONFIG_MAX_FINDINGS);
    n = 0; /* anchors that libyaml would compare with each other */
    for (unsigned i = 0; i < 60000; i++)
        n += (size_t)snprintf(big + n, 20, "k%05u: &a%05u\n", i, i);
    config_rig_put(s, "/x.yaml", big, n);
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "anchors");
    free(big);
    (void)snprintf(path, sizeof(path), "%s/nowhere.yaml", s->root);
    s->src.file = path;
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "there is no such file");
}

static void the_key_file_wins_and_is_read_again(void **state)
{
    struct config_rig *s = *state;
    struct config_key_stamp stamp;
    char text[256];
    char path[128];
    char *key = NULL;
    char *dumped;
    char shown[200];

    (void)snprintf(path, sizeof(path), "%s/key", s->root);
    (void)snprintf(text, sizeof(text), "api_key_file: %s\n", path);
    config_rig_put_text(s, "/key", "  filefilefilefile\n");
    assert_int_equal(chmod(path, 0600), 0);
    config_rig_load_text(s, text);
    config_rig_assert_clean(s);
    assert_string_equal(s->cfg.api_key, "filefilefilefile");
    (void)snprintf(shown, sizeof(shown), "api_key: \"*****efile\"  # %s\n",
                   path);
    dumped = dump(&s->cfg);
    assert_non_null(strstr(dumped, shown));
    free(dumped);
    stamp = s->cfg.api_key_stamp;
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key), 0);
    config_rig_put_text(s, "/key", "nextnextnextnextnext");
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key),
                     CONFIG_KEY_CHANGED);
    assert_string_equal(key, "nextnextnextnextnext");
    free(key);
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key), 0);
    config_rig_put_text(s, "/key", ""); /* half written */
    assert_int_equal(config_poll_key_file(&s->cfg, &stamp, &key), 0);
    config_rig_load_text(s, text);
    config_rig_assert_line(&s->rep.warnings, "is empty; api_key is used");
    config_rig_put_text(s, "/key", "two words");
    s->env[0] = "X=";
    config_rig_load_text(s, text);
    config_rig_assert_line(&s->rep.errors, "api_key_file: ");
    assert_false(config_rig_has_line(&s->rep.errors, "two words"));
}

static void a_proxy_is_left_out_for_the_exact_host(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_PROXY_NO_PROXY=api.datadoghq.com datadoghq.eu";
    config_rig_load(s);
    assert_string_equal(s->cfg.no_proxy, "api.datadoghq.com");
    s->env[1] = "DD_PROXY_NO_PROXY=datadoghq.com";
    config_rig_load(s);
    assert_string_equal(s->cfg.no_proxy, "");
    s->env[2] = "DD_NO_PROXY_NONEXACT_MATCH=true";
    config_rig_load(s);
    assert_string_equal(s->cfg.no_proxy, "datadoghq.com");
    s->env[1] = "no_proxy=datadoghq.com,10.0.0.0/8";
    s->env[2] = "https_proxy=http://p:1";
    config_rig_load(s);
    assert_string_equal(s->cfg.no_proxy, "datadoghq.com,10.0.0.0/8");
    assert_string_equal(s->cfg.proxy_https, "http://p:1");
    /* A strange variable of the system must not stop us. */
    s->env[2] = "HTTPS_PROXY=gopher://p";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 0);
    config_rig_assert_line(&s->rep.warnings,
                           "HTTPS_PROXY: proxy.https: gopher://p");
}

static void memory_follows_the_container(void **state)
{
    struct config_rig *s = *state;

    config_rig_put_text(s, "/proc/self/cgroup", "0::/a/b\n");
    config_rig_put_text(s, "/sys/fs/cgroup/memory.max", "max\n");
    config_rig_put_text(s, "/sys/fs/cgroup/a/memory.max", "268435456\n");
    config_rig_load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 64 << 20);
    config_rig_put_text(s, "/sys/fs/cgroup/a/memory.max", "1048576\n");
    config_rig_load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 8 << 20);
    config_rig_put_text(s, "/proc/self/cgroup",
                        "5:cpu:/\n4:hugetlb,memory:/d\n");
    config_rig_put_text(s, "/sys/fs/cgroup/memory/d/memory.limit_in_bytes",
                        "536870912\n");
    config_rig_load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 128 << 20);
    config_rig_put_text(s, "/sys/fs/cgroup/memory/d/memory.limit_in_bytes",
                        "9223372036854771712\n");
    config_rig_load(s);
    assert_int_equal(s->cfg.memory_limit_bytes, 256 << 20);
}

static void the_agents_queue_size_counts_without_run_path(void **state)
{
    struct config_rig *s = *state;

    config_rig_load_text(s, "forwarder_retry_queue_payloads_max_size: 4MiB\n");
    assert_int_equal(s->cfg.store_max_bytes, 4 << 20);
    config_rig_load_text(s, "forwarder_retry_queue_payloads_max_size: 4MiB\n"
                            "run_path: /x\n");
    assert_int_equal(s->cfg.store_max_bytes, 256 << 20);
    config_rig_load_text(s, "forwarder_retry_queue_payloads_max_size: 4MiB\n"
                            "store_max_bytes: 5MiB\n");
    assert_int_equal(s->cfg.store_max_bytes, 5 << 20);
}

static void names_of_the_agent_that_lose_data_here_are_warned_about(
    void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_DOGSTATSD_FLUSH_ON_STOP=false";
    s->env[2] = "DD_FORWARDER_STOP_WAIT_FOR_INFLIGHT=false";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 0);
    assert_int_equal(s->rep.warnings.n, 2);
    assert_false(s->cfg.flush_incomplete_buckets);
    assert_false(s->cfg.forwarder_stop_wait_for_inflight);
}

int main(void)
{
#define T(f)                                                                   \
    cmocka_unit_test_setup_teardown(f, config_rig_setup, config_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(defaults_are_those_of_the_documentation),
        T(exec_has_defaults_of_its_own),
        T(stronger_sources_win),
        T(every_error_is_named_with_its_place),
        T(a_missing_key_stops_run_and_not_exec),
        T(a_key_is_taken_without_its_line_end),
        T(a_refused_key_is_not_called_missing),
        T(secrets_appear_nowhere),
        T(unknown_names_get_the_nearest_one),
        T(an_empty_variable_is_off_for_sockets_only),
        T(lists_come_in_each_form),
        T(each_bad_item_of_a_list_is_named),
        T(a_broken_json_list_is_called_one),
        T(an_unknown_key_is_named_once),
        T(units_and_words_are_understood),
        T(the_reserve_is_at_most_half_of_the_budget),
        T(given_twice_is_an_error_when_it_differs),
        T(hostile_files_cost_one_error),
        T(the_key_file_wins_and_is_read_again),
        T(a_proxy_is_left_out_for_the_exact_host),
        T(memory_follows_the_container),
        T(the_agents_queue_size_counts_without_run_path),
        T(names_of_the_agent_that_lose_data_here_are_warned_about),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
