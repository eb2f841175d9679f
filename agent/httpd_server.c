/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread per connection instead of an event loop: handlers wait (for a slow
 * or a stalled answer), and a tool for tests and first looks has few clients.
 */
#include "agent/httpd_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "agent/base/contract.h"

struct httpd {
    struct MHD_Daemon *daemon;
    struct httpd_options o;
    int stop_fd; /* readable for ever once stopping */
};

struct httpd_conn {
    struct httpd *h;
    struct MHD_Connection *mhd;
};

/* A request while its body comes in. */
struct upload {
    char *body;
    size_t n, cap;
    int too_large;
    int tell_over;
};

static int parse_address(const char *text, struct sockaddr_storage *sa,
                         socklen_t *n_sa)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)sa;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];
    unsigned long port;
    size_t n;
    char *end;

    if (colon == NULL || colon[1] < '0' || colon[1] > '9')
        return -EINVAL;
    port = strtoul(colon + 1, &end, 10);
    n = (size_t)(colon - text);
    if (*end != '\0' || port > 65535 || n >= sizeof(host))
        return -EINVAL;
    memset(sa, 0, sizeof(*sa));
    memcpy(host, text, n);
    host[n] = '\0';
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = '\0';
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *n_sa = sizeof(*v6);
        return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1 ? 0 : -EINVAL;
    }
    if (strcmp(host, "localhost") == 0)
        memcpy(host, "127.0.0.1", sizeof("127.0.0.1"));
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    *n_sa = sizeof(*v4);
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1 ? 0 : -EINVAL;
}

static void format_address(const struct sockaddr_storage *sa, char *where,
                           size_t n)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (sa->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sa;

        (void)inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        (void)snprintf(where, n, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)sa;

        (void)inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        (void)snprintf(where, n, "%s:%u", host, ntohs(v4->sin_port));
    }
}

int httpd_listen(const char *address, char *where, size_t n_where)
{
    struct sockaddr_storage sa;
    socklen_t n_sa;
    const int on = 1;
    const int off = 0;
    int rc = parse_address(address, &sa, &n_sa);
    int fd;

    if (rc != 0)
        return rc;
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (sa.ss_family == AF_INET6) /* [::] takes IPv4 as well */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, (struct sockaddr *)&sa, n_sa) != 0 || listen(fd, 512) != 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &n_sa) != 0) {
        rc = -errno;
        (void)close(fd);
        return rc;
    }
    format_address(&sa, where, n_where);
    return fd;
}

static int socket_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

    return info != NULL ? info->connect_fd : -1;
}

/* Disconnecting a TCP socket sends a reset at once, and the client sees what a
 * failing middlebox would give it; closing would end in good order first. */
static void cut(struct MHD_Connection *mhd)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};

    (void)connect(socket_of(mhd), &none, sizeof(none));
}

static void take_body(struct upload *u, const char *p, size_t n, size_t max)
{
    if (!u->too_large && n > max - u->n)
        u->too_large = 1;
    if (!u->too_large && u->n + n > u->cap) {
        size_t cap = u->cap == 0 ? 4096 : u->cap;
        char *body;

        while (cap < u->n + n)
            cap *= 2;
        body = realloc(u->body, cap);
        if (body == NULL) {
            u->too_large = 1; /* for us it is */
        } else {
            u->body = body;
            u->cap = cap;
        }
    }
    if (u->too_large) {
        free(u->body);
        u->body = NULL;
        u->n = u->cap = 0;
        return;
    }
    memcpy(u->body + u->n, p, n);
    u->n += n;
}

static enum MHD_Result send_reply(struct MHD_Connection *mhd,
                                  struct httpd_reply *reply)
{
    static char nothing[] = "";
    struct MHD_Response *r;
    enum MHD_Result rc = MHD_YES;
    char text[16];

    if (reply->cut) {
        free(reply->body);
        cut(mhd);
        return MHD_NO;
    }
    if (reply->body != NULL)
        r = MHD_create_response_from_buffer(reply->n_body, reply->body,
                                            MHD_RESPMEM_MUST_FREE);
    else
        r = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    if (r == NULL) {
        free(reply->body);
        return MHD_NO;
    }
    if (reply->content_type != NULL)
        rc &= MHD_add_response_header(r, "Content-Type", reply->content_type);
    if (reply->retry_after_s > 0) {
        (void)snprintf(text, sizeof(text), "%u", reply->retry_after_s);
        rc &= MHD_add_response_header(r, "Retry-After", text);
    }
    if (rc == MHD_YES)
        rc = MHD_queue_response(mhd, reply->status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mhd,
                                  const char *url, const char *method,
                                  const char *version, const char *data,
                                  size_t *n_data, void **state)
{
    struct httpd *h = arg;
    struct upload *u = *state;
    struct httpd_conn conn = {.h = h, .mhd = mhd};
    struct httpd_request request = {.method = method,
                                    .path = url,
                                    .body = "",
                                    .conn = &conn};
    struct httpd_reply reply = {.status = 500};

    (void)version;
    if (u == NULL) { /* the headers are in */
        *state = calloc(1, sizeof(*u));
        return *state != NULL ? MHD_YES : MHD_NO;
    }
    if (*n_data > 0) {
        take_body(u, data, *n_data, h->o.max_body_bytes);
        *n_data = 0;
        return MHD_YES;
    }
    if (u->body != NULL) {
        request.body = u->body;
        request.n_body = u->n;
    }
    request.body_too_large = u->too_large;
    h->o.handle(h->o.arg, &request, &reply);
    u->tell_over = reply.tell_over;
    return send_reply(mhd, &reply);
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **state,
                         enum MHD_RequestTerminationCode why)
{
    struct httpd *h = arg;
    struct upload *u = *state;

    (void)mhd;
    (void)why;
    if (u == NULL)
        return;
    if (u->tell_over && h->o.over != NULL)
        h->o.over(h->o.arg);
    free(u->body);
    free(u);
    *state = NULL;
}

int httpd_start(struct httpd **out, const struct httpd_options *o)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION |
                     MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                     MHD_USE_ITC;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0,
                                    (void *)(uintptr_t)o->tls_cert},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0,
                                    (void *)(uintptr_t)o->tls_key},
                                   {MHD_OPTION_END, 0, NULL}};
    struct httpd *h = calloc(1, sizeof(*h));

    if (h == NULL)
        goto fail;
    h->o = *o;
    h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->stop_fd < 0)
        goto fail;
    if (o->tls_cert != NULL)
        flags |= MHD_USE_TLS;
    else
        tls[0].option = MHD_OPTION_END;
    h->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_request, h,
                         MHD_OPTION_LISTEN_SOCKET, o->listen_fd,
                         MHD_OPTION_CONNECTION_LIMIT, o->max_connections,
                         MHD_OPTION_CONNECTION_TIMEOUT, o->idle_timeout_s,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
                         MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (h->daemon == NULL)
        goto fail;
    *out = h;
    return 0;
fail:
    (void)close(o->listen_fd);
    if (h != NULL && h->stop_fd > 0)
        (void)close(h->stop_fd);
    free(h);
    return -EINVAL;
}

void httpd_stop(struct httpd *h)
{
    const uint64_t one = 1;
    ssize_t n;

    if (h == NULL)
        return;
    n = write(h->stop_fd, &one, sizeof(one));
    REQUIRE(n == sizeof(one));
    MHD_stop_daemon(h->daemon); /* closes the listening socket as well */
    (void)close(h->stop_fd);
    free(h);
}

const char *httpd_header(const struct httpd_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name);
}

int httpd_wait(const struct httpd_request *r, int ms)
{
    struct pollfd fds[2] = {
        {.fd = r->conn->h->stop_fd, .events = POLLIN},
        {.fd = socket_of(r->conn->mhd), .events = POLLRDHUP},
    };
    int n;

    do {
        n = poll(fds, 2, ms);
    } while (n < 0 && errno == EINTR);
    if (n > 0 && fds[0].revents != 0)
        return HTTPD_WAIT_STOPPING;
    return n > 0 ? HTTPD_WAIT_GONE : 0;
}
