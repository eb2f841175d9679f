/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One host for everything, https://api.<site>: the same one validates the key, so
 * a single name has to be let through a firewall. dd_url stands in its place as
 * it was written, path included.
 */
#include "forwarder/endpoint.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Schema version of the public agent-payload definitions that the bodies
 * follow. */
#define AGENT_PAYLOAD_VERSION "5.0.0"

struct route {
    const char *name;
    const char *path;
    bool protobuf;
};

static const struct route routes[PAYLOAD_N_KINDS] = {
    [PAYLOAD_SERIES] = {"series", "/api/v2/series", true},
    [PAYLOAD_SKETCHES] = {"sketches", "/api/beta/sketches", true},
    [PAYLOAD_EVENTS] = {"events", "/intake/", false},
    [PAYLOAD_CHECKS] = {"checks", "/api/v1/check_run", false},
};

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9');
}

static bool is_host_char(char c)
{
    /* Bytes beyond ASCII: international names, converted by libcurl. */
    return is_alnum(c) || c == '.' || c == '-' || c == '_' ||
           (unsigned char)c >= 0x80;
}

static bool check_port(const char *s, size_t n, const char **why)
{
    uint32_t port = 0;

    *why = "has a port that is no number from 1 to 65535";
    if (n == 0 || n > 5)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(s[i] - '0');
    }
    return port >= 1 && port <= 65535;
}

/* "[v6]" or a name; returns its length, 0 when there is none. */
static size_t host_len(const char *s, size_t n, const char **why)
{
    size_t i = 0;

    if (n > 0 && s[0] == '[') {
        const char *end = memchr(s, ']', n);

        *why = "has an IPv6 address that is not closed by ']' or not one";
        if (end == NULL || end == s + 1)
            return 0;
        for (const char *p = s + 1; p < end; p++) {
            if (!strchr("0123456789abcdefABCDEF:.%", *p))
                return 0;
        }
        return (size_t)(end - s) + 1;
    }
    *why = "has no host, or a character in it that no host name has";
    while (i < n && is_host_char(s[i]))
        i++;
    if (i > 0 && (s[0] == '.' || s[0] == '-'))
        return 0;
    return i <= 253 ? i : 0;
}

bool endpoint_check_url(const char *url, const char **why)
{
    const char *host;
    size_t n, n_host;

    *why = "is longer than 511 bytes";
    if (strlen(url) >= ENDPOINT_URL_MAX)
        return false;
    for (const char *p = url; *p != '\0'; p++) {
        *why = "contains a blank or a control character";
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return false;
        *why = "contains a query or a fragment ('?' or '#')";
        if (*p == '?' || *p == '#')
            return false;
    }
    *why = "must begin with https:// (or http://)";
    if (strncasecmp(url, "https://", 8) == 0)
        host = url + 8;
    else if (strncasecmp(url, "http://", 7) == 0)
        host = url + 7;
    else
        return false;
    n = strcspn(host, "/");
    *why = "contains a user or password ('@')";
    if (memchr(host, '@', n) != NULL)
        return false;
    n_host = host_len(host, n, why);
    if (n_host == 0)
        return false;
    if (n_host < n) {
        if (host[n_host] != ':') {
            *why = "has a character in its host that no host name has";
            return false;
        }
        return check_port(host + n_host + 1, n - n_host - 1, why);
    }
    return true;
}

bool endpoint_check_site(const char *site, const char **why)
{
    size_t n = strlen(site);

    *why = "is empty";
    if (n == 0)
        return false;
    *why = "is a URL; write the bare site, such as datadoghq.eu, or set "
           "dd_url";
    if (strstr(site, "://") != NULL)
        return false;
    *why = "is not a host name, such as datadoghq.eu";
    return site[0] != '[' && host_len(site, n, why) == n && n <= 240;
}

bool endpoint_check_key(const char *key, const char **why)
{
    size_t n = strlen(key);

    *why = "is longer than 256 bytes";
    if (n > ENDPOINT_KEY_MAX)
        return false;
    *why = "contains a blank, a control character or a byte beyond ASCII";
    for (size_t i = 0; i < n; i++) {
        if (key[i] <= ' ' || key[i] >= 0x7f)
            return false;
    }
    return true;
}

int endpoint_init(struct endpoint *e, const char *site, const char *dd_url)
{
    const char *why;
    size_t n;

    if (dd_url != NULL && dd_url[0] != '\0') {
        if (!endpoint_check_url(dd_url, &why))
            return -EINVAL;
        n = strlen(dd_url);
        while (dd_url[n - 1] == '/')
            n--;
        memcpy(e->base, dd_url, n);
        e->base[n] = '\0';
        return 0;
    }
    if (site == NULL || !endpoint_check_site(site, &why))
        return -EINVAL;
    snprintf(e->base, sizeof(e->base), "https://api.%s", site);
    return 0;
}

void endpoint_url(const struct endpoint *e, enum payload_kind kind, char *url)
{
    snprintf(url, ENDPOINT_FULL_URL_MAX, "%s%s", e->base, routes[kind].path);
}

void endpoint_validate_url(const struct endpoint *e, char *url)
{
    snprintf(url, ENDPOINT_FULL_URL_MAX, "%s/api/v1/validate", e->base);
}

const char *endpoint_kind_name(enum payload_kind kind)
{
    return routes[kind].name;
}

static const char *encoding_header(enum payload_encoding encoding)
{
    switch (encoding) {
    case ENCODING_NONE:
        break;
    case ENCODING_DEFLATE:
        return "Content-Encoding: deflate";
    case ENCODING_GZIP:
        return "Content-Encoding: gzip";
    case ENCODING_ZSTD:
        return "Content-Encoding: zstd";
    }
    return NULL;
}

void endpoint_headers(struct endpoint_headers *h, enum payload_kind kind,
                      enum payload_encoding encoding, const char *key,
                      const char *version, bool allow_arbitrary_tags)
{
    const char *coding = encoding_header(encoding);
    size_t n = 0;

    snprintf(h->key, sizeof(h->key), "DD-API-KEY: %s", key);
    snprintf(h->version, sizeof(h->version), "DD-Agent-Version: %s", version);
    h->list[n++] = h->key;
    h->list[n++] = h->version;
    h->list[n++] = routes[kind].protobuf
                       ? "Content-Type: application/x-protobuf"
                       : "Content-Type: application/json";
    if (routes[kind].protobuf)
        h->list[n++] = "DD-Agent-Payload: " AGENT_PAYLOAD_VERSION;
    if (coding != NULL)
        h->list[n++] = coding;
    if (allow_arbitrary_tags)
        h->list[n++] = "Allow-Arbitrary-Tag-Value: true";
    h->list[n] = NULL;
}

void endpoint_validate_headers(struct endpoint_headers *h, const char *key,
                               const char *version)
{
    snprintf(h->key, sizeof(h->key), "DD-API-KEY: %s", key);
    snprintf(h->version, sizeof(h->version), "DD-Agent-Version: %s", version);
    h->list[0] = h->key;
    h->list[1] = h->version;
    h->list[2] = NULL;
}

void endpoint_headers_wipe(struct endpoint_headers *h)
{
    explicit_bzero(h, sizeof(*h));
}

void endpoint_mask_key(const char *key, char *out)
{
    size_t n = strlen(key);
    size_t shown = n / 4 < 5 ? n / 4 : 5;

    snprintf(out, ENDPOINT_MASK_MAX, "*****%s", key + n - shown);
}
