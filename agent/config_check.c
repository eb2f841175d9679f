/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_check.h"

#include <ctype.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "agent/base/num.h"
#include "aggregator/agg.h"
#include "forwarder/endpoint.h"

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static bool only(const char *text, const char *allowed)
{
    return text[strspn(text, allowed)] == '\0';
}

const char *check_api_key(const char *text)
{
    const char *why = NULL;

    return endpoint_check_key(text, &why) ? NULL : why;
}

const char *check_site(const char *text)
{
    const char *why = NULL;

    return endpoint_check_site(text, &why) ? NULL : why;
}

const char *check_url(const char *text)
{
    const char *why = NULL;

    return endpoint_check_url(text, &why) ? NULL : why;
}

/* What libcurl takes: [scheme://][user:password@]host[:port][/]. */
const char *check_proxy(const char *text)
{
    static const char *const schemes[] = {"http",    "https",  "socks4",
                                          "socks4a", "socks5", "socks5h"};
    const char *sep = strstr(text, "://");
    bool known = sep == NULL;

    for (size_t i = 0; sep != NULL && i < sizeof(schemes) / sizeof(*schemes);
         i++) {
        size_t n = strlen(schemes[i]);

        if ((size_t)(sep - text) == n && strncasecmp(text, schemes[i], n) == 0)
            known = true;
    }
    if (!known)
        return "must begin with http://, https:// or socks5://";
    if (strpbrk(text, " \t\"<>\\") != NULL)
        return "must be one URL, without blanks";
    if (strlen(text) > 1024)
        return "is longer than 1024 characters";
    if (sep != NULL && (sep[3] == '\0' || sep[3] == '/'))
        return "names no host";
    return NULL;
}

const char *check_no_proxy(const char *text)
{
    if (strlen(text) > 255)
        return "is longer than 255 characters";
    return only(text, ALNUM ".-_:/*[]%") ? NULL : "is no host name or network";
}

const char *check_tls_version(const char *text)
{
    static const char *const known[] = {"tlsv1.0", "tlsv1.1", "tlsv1.2",
                                        "tlsv1.3"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(text, known[i]) == 0)
            return NULL;
    }
    return "must be one of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3";
}

const char *check_hostname(const char *text)
{
    if (strlen(text) > 255)
        return "is longer than 255 characters";
    return only(text, ALNUM ".-_")
               ? NULL
               : "may hold letters, digits, dots, hyphens and underscores";
}

const char *check_instance(const char *text)
{
    if (strlen(text) > 180)
        return "is longer than 180 characters";
    return only(text, ALNUM ".-_:/")
               ? NULL
               : "may hold letters, digits and the characters . - _ : /";
}

const char *check_tag(const char *text)
{
    if (strlen(text) > 1024)
        return "is longer than 1024 characters";
    return strpbrk(text, ",|") == NULL ? NULL : "may not hold a comma or a bar";
}

const char *check_bind_host(const char *text)
{
    if (strlen(text) > 255)
        return "is longer than 255 characters";
    return only(text, ALNUM ".-_:%[]") ? NULL : "is no address or host name";
}

const char *check_absolute(const char *text)
{
    return text[0] == '/' ? NULL : "must be an absolute path";
}

const char *check_socket_path(const char *text)
{
    if (text[0] != '/' && (text[0] != '@' || text[1] == '\0'))
        return "must be an absolute path, or @name for an abstract socket";
    if (strlen(text) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return "is longer than 107 characters, the limit of Unix sockets";
    return NULL;
}

const char *check_private_socket(const char *text)
{
    if (text[0] == '@')
        return "has no file mode and would obey every user: give an absolute "
               "path";
    return check_socket_path(text);
}

/* The port behind the last colon, so that "[::]:8125" works. */
const char *check_host_port(const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (colon == NULL || num_parse_u64(colon + 1, &port) != 0 || port == 0 ||
        port > 65535)
        return "must end in a port from 1 to 65535";
    if (text[0] == '[' ? colon[-1] != ']'
                       : memchr(text, ':', (size_t)(colon - text)) != NULL)
        return "must have its IPv6 address in brackets";
    return NULL;
}

const char *check_socket_url(const char *text)
{
    if (strncmp(text, "udp://", 6) == 0)
        return check_host_port(text + 6);
    if (strncmp(text, "unixgram://", 11) == 0)
        return check_socket_path(text + 11);
    if (strncmp(text, "unixstream://", 13) == 0)
        return check_socket_path(text + 13);
    if (strncmp(text, "tcp://", 6) == 0)
        return "is not supported yet: TCP listeners";
    return "must begin with udp://, unixgram:// or unixstream://";
}

const char *check_user(const char *text)
{
    if (strlen(text) > 255)
        return "is longer than 255 characters";
    return only(text, ALNUM ".-_@$") ? NULL : "is no name or number of one";
}

const char *check_eol(const char *text)
{
    if (strcmp(text, "udp") == 0 || strcmp(text, "uds") == 0 ||
        strcmp(text, "named_pipe") == 0)
        return NULL;
    return "must be udp or uds";
}

const char *check_namespace(const char *text)
{
    if (strlen(text) > 200)
        return "is longer than 200 characters";
    if (!isalpha((unsigned char)text[0]))
        return "must begin with a letter";
    return only(text, ALNUM "._-") ? NULL
                                   : "may hold letters, digits, . _ and -";
}

bool check_aggregate_bit(const char *text, unsigned *bit)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"max", HIST_MAX}, {"median", HIST_MEDIAN},
                 {"avg", HIST_AVG}, {"count", HIST_COUNT},
                 {"min", HIST_MIN}, {"sum", HIST_SUM}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(text, known[i].name) == 0) {
            *bit = known[i].bit;
            return true;
        }
    }
    return false;
}

const char *check_aggregate(const char *text)
{
    unsigned bit;

    return check_aggregate_bit(text, &bit)
               ? NULL
               : "must be one of max, median, avg, count, min, sum";
}

bool check_percentile_value(const char *text, unsigned *percent)
{
    double v;

    if (num_parse_double(text, &v) != 0 || !(v > 0 && v <= 1))
        return false;
    *percent = (unsigned)lround(v * 100);
    return *percent > 0;
}

const char *check_percentile(const char *text)
{
    unsigned percent;

    return check_percentile_value(text, &percent)
               ? NULL
               : "must be a number from 0.01 to 1";
}
