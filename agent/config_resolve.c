/* SPDX-License-Identifier: Apache-2.0 */
/* Fields that follow from several keys, or from the system around us. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/num.h"
#include "agent/config_check.h"
#include "agent/config_table.h"
#include "bpf/family_rule.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY_DEFAULT (256 * MIB)
#define MEMORY_LEAST (8 * MIB)
#define STORE_VOLATILE (16 * MIB)
#define STORE_DURABLE (256 * MIB)
#define RING_DEFAULT (256u << 10)
#define PRIORITY_HIGH 50 /* where real-time kernels run interrupt threads */
#define CONTROL_FOLDER "/run/retriever"
#define CONTROL_SOCKET CONTROL_FOLDER "/control.sock"

static bool is_set(const struct config_loader *l, const char *name)
{
    return config_value(l, name)->layer != 0;
}

/* A number or switch that has no field of its own. */
static void parse_into(const struct config_loader *l, const char *name,
                       void *dest, uint32_t size)
{
    struct config_key key = *config_key_find(name);
    char why[CONFIG_WHY];

    key.size = size;
    (void)config_parse(&key, config_text(l, name), dest, why);
}

static int replace(char **field, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

/* @name has its value from @origin, whatever was given for it. */
static int set_origin(struct config_loader *l, const char *name,
                      const char *origin)
{
    struct config_value *v =
        &l->values[config_key_index(config_key_find(name))];

    v->name = name;
    v->layer = l->layer;
    return replace(&v->origin, origin);
}

/* ---- API key ------------------------------------------------------------ */

/* What was refused was named already, with the place. */
static void report_no_key(const struct config *c, struct config_loader *l)
{
    static const char dropped[] =
        "the job runs, its samples are dropped and counted";
    bool named =
        config_value(l, "api_key")->refused || c->api_key_file[0] != '\0';

    if (named && l->exec_mode)
        config_found(l, FINDING_WARNING, NULL, "api_key: without one %s",
                     dropped);
    if (!named)
        config_found(l, l->exec_mode ? FINDING_WARNING : FINDING_ERROR, NULL,
                     "api_key: there is none: set DD_API_KEY or api_key_file; "
                     "for a first look without an account start `retriever "
                     "intake` and set DD_DD_URL=http://127.0.0.1:9000 and any "
                     "key%s%s",
                     l->exec_mode ? "; " : "", l->exec_mode ? dropped : "");
}

static int resolve_key(struct config *c, struct config_loader *l)
{
    struct config_place at = config_place_of(l, "api_key_file");
    char why[CONFIG_WHY];
    char *key = NULL;
    unsigned mode = 0;
    int rc;

    if (c->api_key_file[0] != '\0') {
        rc = config_read_key_file(c->api_key_file, &key, &c->api_key_stamp,
                                  &mode, why);
        if (rc == -ENOMEM)
            return rc;
        if (rc == 0) {
            free(c->api_key);
            c->api_key = key;
            rc = set_origin(l, "api_key", c->api_key_file);
            if (rc != 0)
                return rc;
            if ((mode & 07) != 0)
                config_found(l, FINDING_WARNING, &at,
                             "api_key_file: %s is open to every user (mode "
                             "%04o); chmod 0600",
                             c->api_key_file, mode);
        } else {
            config_found(l,
                         c->api_key[0] != '\0' ? FINDING_WARNING
                                               : FINDING_ERROR,
                         &at, "api_key_file: %s: %s%s", c->api_key_file, why,
                         c->api_key[0] != '\0' ? "; api_key is used" : "");
        }
    }
    if (c->api_key[0] != '\0')
        log_set_secret(c->api_key);
    else
        report_no_key(c, l);
    return 0;
}

/* ---- Tags and names ----------------------------------------------------- */

static int add_tag(struct string_list *tags, const char *tag)
{
    if (tag[0] == '\0' || string_list_has(tags, tag))
        return 0;
    return string_list_add(tags, tag, strlen(tag));
}

static int resolve_tags(struct config *c, const struct config_loader *l)
{
    static const char *const lists[] = {"dogstatsd_tags", "tags", "extra_tags"};
    static const char *const words[] = {"env", "service", "version"};
    char tag[CONFIG_MAX_TEXT];
    int rc = 0;

    for (size_t i = 0; i < 3 && rc == 0; i++) {
        const struct string_list *items = &config_value(l, lists[i])->list;

        for (size_t j = 0; j < items->n && rc == 0; j++)
            rc = add_tag(&c->tags, items->items[j]);
    }
    for (size_t i = 0; i < 3 && rc == 0; i++) {
        const char *word = config_text(l, words[i]);

        (void)snprintf(tag, sizeof(tag), "%s:%s", words[i], word);
        if (word[0] != '\0')
            rc = add_tag(&c->tags, tag);
    }
    return rc;
}

static int resolve_names(struct config *c, const struct config_loader *l)
{
    const char *space = config_text(l, "statsd_metric_namespace");
    size_t n = strlen(space);
    char with_dot[CONFIG_MAX_TEXT + 1];

    (void)snprintf(with_dot, sizeof(with_dot), "%s%s", space,
                   n > 0 && space[n - 1] != '.' ? "." : "");
    return replace(&c->statsd_metric_namespace, with_dot);
}

/* ---- Histograms and listeners ------------------------------------------- */

/* What was set, else the default split: the caller's to free. */
static int items_of(const struct config_loader *l, const char *name,
                    struct string_list *out)
{
    const struct config_value *v = config_value(l, name);
    const struct config_key *key = config_key_find(name);

    if (v->layer == 0)
        return config_split(key, key->def, out);
    for (size_t i = 0; i < v->list.n; i++) {
        const char *item = v->list.items[i];

        if (string_list_add(out, item, strlen(item)) != 0) {
            string_list_fini(out);
            return -ENOMEM;
        }
    }
    return 0;
}

/* Ascending, each once. False: no room. */
static bool insert_percentile(struct config *c, uint8_t p)
{
    uint32_t i = c->n_hist_percentiles;

    for (uint32_t j = 0; j < c->n_hist_percentiles; j++) {
        if (c->hist_percentiles[j] == p)
            return true;
    }
    if (i == CONFIG_MAX_PERCENTILES)
        return false;
    for (; i > 0 && c->hist_percentiles[i - 1] > p; i--)
        c->hist_percentiles[i] = c->hist_percentiles[i - 1];
    c->hist_percentiles[i] = p;
    c->n_hist_percentiles++;
    return true;
}

static int resolve_histograms(struct config *c, struct config_loader *l)
{
    struct config_place at = config_place_of(l, "histogram_percentiles");
    struct string_list aggregates = {0};
    struct string_list percentiles = {0};
    int rc = items_of(l, "histogram_aggregates", &aggregates);

    if (rc == 0)
        rc = items_of(l, "histogram_percentiles", &percentiles);
    for (size_t i = 0; i < aggregates.n; i++) {
        unsigned bit = 0;

        if (check_aggregate_bit(aggregates.items[i], &bit))
            c->hist_aggregates |= bit;
    }
    for (size_t i = 0; i < percentiles.n; i++) {
        unsigned p = 0;

        if (check_percentile_value(percentiles.items[i], &p) &&
            !insert_percentile(c, (uint8_t)p)) {
            config_found(l, FINDING_ERROR, &at,
                         "histogram_percentiles: more than %d; the first are "
                         "used",
                         CONFIG_MAX_PERCENTILES);
            break;
        }
    }
    string_list_fini(&aggregates);
    string_list_fini(&percentiles);
    return rc;
}

static void resolve_eol(struct config *c, const struct config_loader *l)
{
    const struct string_list *items =
        &config_value(l, "dogstatsd_eol_required")->list;

    c->eol_required_udp = string_list_has(items, "udp");
    c->eol_required_uds = string_list_has(items, "uds");
}

/* ---- Sizes, times ------------------------------------------------------- */

static void resolve_sizes(struct config *c, const struct config_loader *l,
                          const char *root)
{
    static const char agents_name[] = "forwarder_retry_queue_payloads_max_size";

    if (c->memory_limit_bytes == 0) {
        uint64_t limit = config_container_limit(root) / 4;

        c->memory_limit_bytes = MEMORY_DEFAULT;
        if (limit > 0 && limit < MEMORY_DEFAULT)
            c->memory_limit_bytes = limit > MEMORY_LEAST ? limit : MEMORY_LEAST;
    }
    if (c->store_max_bytes == 0 && c->run_path[0] == '\0' &&
        is_set(l, agents_name))
        parse_into(l, agents_name, &c->store_max_bytes,
                   sizeof(c->store_max_bytes));
    if (c->store_max_bytes == 0)
        c->store_max_bytes =
            c->run_path[0] != '\0' ? STORE_DURABLE : STORE_VOLATILE;
}

static void resolve_stop(struct config *c, struct config_loader *l)
{
    struct config_place at = config_place_of(l, "stop_reserve_ms");

    if (c->stop_reserve_ms > c->stop_timeout_ms / 2) {
        if (is_set(l, "stop_reserve_ms"))
            config_found(l, FINDING_WARNING, &at,
                         "stop_reserve_ms: cut to %u, half of stop_timeout",
                         c->stop_timeout_ms / 2);
        c->stop_reserve_ms = c->stop_timeout_ms / 2;
    }
    if (!c->flush_incomplete_buckets) {
        at = config_place_of(l, "dogstatsd_flush_incomplete_buckets");
        config_found(l, FINDING_WARNING, &at,
                     "dogstatsd_flush_incomplete_buckets: false: each stop "
                     "drops the samples of the open bucket");
    }
    if (!c->forwarder_stop_wait_for_inflight) {
        at = config_place_of(l, "forwarder_stop_wait_for_inflight");
        config_found(l, FINDING_WARNING, &at,
                     "forwarder_stop_wait_for_inflight: false: requests on "
                     "their way at a stop are given up");
    }
    if (c->forwarder_backoff_max_ms < c->forwarder_backoff_base_ms) {
        at = config_place_of(l, "forwarder_backoff_max");
        config_found(l, FINDING_WARNING, &at,
                     "forwarder_backoff_max: raised to forwarder_backoff_base");
        c->forwarder_backoff_max_ms = c->forwarder_backoff_base_ms;
    }
    if (c->skip_ssl_validation) {
        at = config_place_of(l, "skip_ssl_validation");
        config_found(l, FINDING_WARNING, &at,
                     "skip_ssl_validation: anybody on the way to the intake "
                     "can read the API key");
    }
}

/* ---- The event ring ----------------------------------------------------- */

/* A power of two; the bounds are such, too. */
static void resolve_ring(struct config *c, struct config_loader *l)
{
    static const char name[] = "ebpf.reader.ring_bytes";
    struct config_place at = config_place_of(l, name);
    uint32_t below = 1;

    while (below <= c->ebpf_ring_bytes / 2)
        below *= 2;
    if (below == c->ebpf_ring_bytes)
        return;
    config_found(l, FINDING_ERROR, &at,
                 "%s: %u is no power of two; the nearest are %u and %u", name,
                 c->ebpf_ring_bytes, below, 2 * below);
    c->ebpf_ring_bytes = RING_DEFAULT;
}

/* ---- Process families ---------------------------------------------------- */

static void check_families(const struct config *c, struct config_loader *l)
{
    const struct string_list *lines = &c->ebpf_activity_families;
    struct config_place at = config_place_of(l, "ebpf.activity.families");
    struct family_rule *rules = calloc(FAMILY_MAX_RULES, sizeof(*rules));
    char why[300];

    if (rules != NULL &&
        family_rule_parse_all(rules, FAMILY_MAX_RULES,
                              (const char *const *)lines->items, lines->n, why,
                              sizeof(why)) < 0)
        config_found(l, FINDING_ERROR, &at, "%s", why);
    free(rules);
}

/* ---- Priority ----------------------------------------------------------- */

/* The one check of two keys; what is wrong switches both off. */
static void resolve_priority(struct config *c, struct config_loader *l)
{
    static const char policy_key[] =
        "event_monitoring_config.event_stream.scheduling_policy";
    static const char priority_key[] =
        "event_monitoring_config.event_stream.scheduling_priority";
    const struct config_place policy_at = config_place_of(l, policy_key);
    const struct config_place at = config_place_of(l, priority_key);
    const char *policy = config_text(l, policy_key);
    const char *text = config_text(l, priority_key);
    int64_t priority;

    c->reader_policy = SCHED_OTHER;
    c->reader_priority = 0;
    if (num_parse_i64(text, &priority) != 0)
        priority = -1; /* more digits than that: out of any range */
    if (policy[0] == '\0') {
        if (priority != 0)
            config_found(l, FINDING_ERROR, &at,
                         "%s: %s is set, but %s is empty: set it to SCHED_FIFO "
                         "or SCHED_RR, too",
                         config_name_of(l, priority_key), text,
                         config_name_of(l, policy_key));
    } else if (strcmp(policy, "SCHED_FIFO") != 0 &&
               strcmp(policy, "SCHED_RR") != 0) {
        config_found(l, FINDING_ERROR, &policy_at,
                     "%s: %s is invalid: it must be SCHED_FIFO or SCHED_RR",
                     config_name_of(l, policy_key), policy);
    } else if (priority < 1 || priority > 99) {
        config_found(l, FINDING_ERROR, &at,
                     "%s: %s is invalid: with %s it must be between 1 and 99",
                     config_name_of(l, priority_key), text, policy);
    } else {
        c->reader_policy = policy[6] == 'F' ? SCHED_FIFO : SCHED_RR;
        c->reader_priority = (int)priority;
    }
    if (c->reader_priority >= PRIORITY_HIGH)
        config_found(l, FINDING_WARNING, &at,
                     "%s: %s: from %d on interrupt threads of real-time "
                     "kernels wait for the reader; 1 to 10 is enough",
                     config_name_of(l, priority_key), text, PRIORITY_HIGH);
}

/* ---- Paths -------------------------------------------------------------- */

/* A folder that we, or our package, made for this user. */
static bool folder_is_ours(const char *root)
{
    char path[600];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s%s", root, CONTROL_FOLDER);
    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
               access(path, W_OK | X_OK) == 0;
    *strrchr(path, '/') = '\0';
    return errno == ENOENT && access(path, W_OK | X_OK) == 0; /* ours to make */
}

static int resolve_control(struct config *c, const struct config_loader *l,
                           const char *root)
{
    char path[600];

    if (is_set(l, "control_socket") || l->exec_mode || !folder_is_ours(root))
        return 0;
    (void)snprintf(path, sizeof(path), "%s%s", root, CONTROL_SOCKET);
    return replace(&c->control_socket, path);
}

/* ---- Proxy -------------------------------------------------------------- */

/* Host of the intake, without scheme, port and path. */
static void intake_host(const struct config *c, char *out, size_t size)
{
    const char *sep = strstr(c->dd_url, "://");
    const char *host = sep != NULL ? sep + 3 : c->dd_url;

    if (host[0] == '\0')
        (void)snprintf(out, size, "api.%s", c->site);
    else if (host[0] == '[')
        (void)snprintf(out, size, "%.*s", (int)strcspn(host + 1, "]"),
                       host + 1);
    else
        (void)snprintf(out, size, "%.*s", (int)strcspn(host, ":/"), host);
}

static bool is_host(const char *entry, const char *host)
{
    size_t n = strlen(host);

    return strncasecmp(entry, host, n) == 0 &&
           (entry[n] == '\0' || entry[n] == ':');
}

/* libcurl always matches subdomains and networks. Where only the exact host is
 * meant, that is decided here: there is but one host we talk to. */
static int resolve_no_proxy(struct config *c, const struct config_loader *l)
{
    const struct config_value *v = config_value(l, "proxy.no_proxy");
    bool wide = false;
    char list[CONFIG_MAX_TEXT + CONFIG_MAX_ITEMS] = "";
    char host[300];
    size_t n = 0;

    parse_into(l, "no_proxy_nonexact_match", &wide, sizeof(wide));
    if (v->layer != 0 && strcasecmp(v->origin, "NO_PROXY") == 0)
        wide = true;
    intake_host(c, host, sizeof(host));
    for (size_t i = 0; i < v->list.n; i++) {
        const char *entry = v->list.items[i];

        if (!wide && !is_host(entry, host) && strcmp(entry, "*") != 0)
            continue;
        if (n + strlen(entry) + 2 > sizeof(list))
            break;
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s",
                              n > 0 ? "," : "", entry);
    }
    return replace(&c->no_proxy, list);
}

/* A proxy's password must not come out in any log line. */
static void register_password(const char *url)
{
    const char *sep = strstr(url, "://");
    const char *begin = sep != NULL ? sep + 3 : url;
    const char *at = strrchr(begin, '@');
    const char *colon = strchr(begin, ':');
    char password[256];

    if (at == NULL || colon == NULL || colon > at)
        return;
    (void)snprintf(password, sizeof(password), "%.*s", (int)(at - colon - 1),
                   colon + 1);
    log_set_secret(password);
    explicit_bzero(password, sizeof(password));
}

int config_resolve(struct config *c, struct config_loader *l, const char *root)
{
    int rc = resolve_key(c, l);

    if (rc == 0)
        rc = resolve_tags(c, l);
    if (rc == 0)
        rc = resolve_names(c, l);
    if (rc == 0)
        rc = resolve_histograms(c, l);
    if (rc == 0)
        rc = resolve_control(c, l, root);
    if (rc == 0)
        rc = resolve_no_proxy(c, l);
    if (rc == 0)
        rc = config_check_listeners(c, l);
    if (rc != 0)
        return rc;
    resolve_eol(c, l);
    resolve_sizes(c, l, root);
    resolve_stop(c, l);
    resolve_ring(c, l);
    check_families(c, l);
    resolve_priority(c, l);
    config_check_owners(c, l);
    config_check_tls_files(c, l);
    register_password(c->proxy_http);
    register_password(c->proxy_https);
    return 0;
}
