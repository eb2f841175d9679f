/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl drives its sockets, we only say when: its socket callback becomes a
 * uv_poll per socket, its timer callback one uv_timer. Finished requests are
 * handed out from those two handles' callbacks and from nowhere else, so that
 * start() never runs a callback of its caller.
 *
 * A request that times out on a shared HTTP/2 connection ends its stream only;
 * libcurl would give the same, possibly dead, connection to the retry. So after a
 * timeout new requests get fresh connections until all old ones are gone with
 * the multi handle.
 *
 * Built into the module alone: nothing of agent/base may be linked twice, so
 * nothing here logs.
 */
#include "forwarder/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "forwarder/http_reply.h"

#define MAX_HEADER_BYTES (64 * 1024)
#define MAX_DISCARD_BYTES (256 * 1024)
#define NO_PROXY_MAX 4096
#define DEFAULT_TIMEOUT_MS 20000 /* never none: every request has an end */

struct request {
    struct request *prev, *next;
    struct http *h;
    CURL *easy;
    struct curl_slist *headers;
    const unsigned char *body;
    size_t n_body, body_pos;
    http_sending_fn *sending;
    http_done_fn *done;
    void *arg;
    bool body_sent;
    int status; /* of a head that came whole; 0 = none yet */
    uint32_t retry_after_ms;
    size_t n_header_bytes;
    size_t n_reply, n_discarded;
    char reply[HTTP_BODY_MAX];
    char error[CURL_ERROR_SIZE];
};

/* One socket of libcurl's. */
struct watch {
    uv_poll_t poll;
    struct http *h;
    curl_socket_t fd;
};

struct http {
    const struct http_config *cfg;
    uv_loop_t *loop;
    CURLM *multi;
    long tls_version;
    char *no_proxy; /* commas between the names; NULL = not configured */
    uv_timer_t timer;
    size_t n_handles; /* of ours on the loop */
    struct request *requests;
    size_t n_requests;
    bool stale; /* a connection may be dead: use no old one */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- callbacks of one transfer ---------------------------------------- */

static size_t on_read(char *to, size_t size, size_t n, void *arg)
{
    struct request *rq = arg;
    size_t left = rq->n_body - rq->body_pos;
    size_t take = size * n < left ? size * n : left;

    if (take == left && take > 0 && !rq->body_sent) {
        rq->body_sent = true;
        if (rq->sending != NULL)
            rq->sending(rq->arg); /* before libcurl has the last byte */
    }
    if (take > 0)
        memcpy(to, rq->body + rq->body_pos, take);
    rq->body_pos += take;
    return take;
}

/* A kept-alive connection that turned out closed: libcurl wants the body from the
 * start. Not once all of it was given away: it may have arrived, and a second
 * sending is for the caller to count. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct request *rq = arg;

    if (rq->body_sent || origin != SEEK_SET || offset < 0 ||
        (size_t)offset > rq->n_body)
        return CURL_SEEKFUNC_FAIL;
    rq->body_pos = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct request *rq = arg;
    const char *value;
    size_t n_value;
    long status = 0;

    n *= size;
    rq->n_header_bytes += n;
    if (rq->n_header_bytes > MAX_HEADER_BYTES)
        return 0;
    if (http_reply_header(line, n, "Retry-After", &value, &n_value))
        rq->retry_after_ms =
            http_reply_retry_after_ms(value, n_value, time(NULL));
    if (n <= 2 && (line[0] == '\r' || line[0] == '\n')) {
        /* End of a head; those of 1xx are followed by another. */
        (void)curl_easy_getinfo(rq->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status >= 200 && status <= 599)
            rq->status = (int)status;
        else
            rq->retry_after_ms = 0;
    }
    return n;
}

static size_t on_write(char *bytes, size_t size, size_t n, void *arg)
{
    struct request *rq = arg;
    size_t room = sizeof(rq->reply) - 1 - rq->n_reply;
    size_t keep;

    n *= size;
    keep = n < room ? n : room;
    memcpy(rq->reply + rq->n_reply, bytes, keep);
    rq->n_reply += keep;
    rq->n_discarded += n - keep;
    /* The status is known: a body without end is not worth reading. */
    return rq->n_discarded > MAX_DISCARD_BYTES ? 0 : n;
}

/* The descriptor table is shared with processes that exec. */
static curl_socket_t on_open(void *arg, curlsocktype purpose,
                             struct curl_sockaddr *a)
{
    (void)arg;
    (void)purpose;
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- the end of a transfer --------------------------------------------- */

static void request_free(struct request *rq)
{
    if (rq == NULL)
        return;
    if (rq->easy != NULL)
        curl_easy_cleanup(rq->easy);
    for (struct curl_slist *s = rq->headers; s != NULL; s = s->next)
        explicit_bzero(s->data, strlen(s->data)); /* one holds the key */
    curl_slist_free_all(rq->headers);
    free(rq);
}

static enum http_error map_error(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return HTTP_DNS;
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
    case CURLE_INTERFACE_FAILED:
        return HTTP_CONNECT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
        return HTTP_TLS;
    case CURLE_OPERATION_TIMEDOUT:
        return HTTP_TIMEOUT;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SEND_FAIL_REWIND:
        return HTTP_RESET;
    default:
        return HTTP_OTHER;
    }
}

static void unlink_request(struct request *rq)
{
    struct http *h = rq->h;

    if (rq->prev != NULL)
        rq->prev->next = rq->next;
    else
        h->requests = rq->next;
    if (rq->next != NULL)
        rq->next->prev = rq->prev;
    h->n_requests--;
}

/* @rq is out of the multi handle: tell, and free. */
static void finish(struct request *rq, CURLcode code, bool cancelled)
{
    struct http_result r = {
        .status = rq->status,
        .retry_after_ms = rq->status != 0 ? rq->retry_after_ms : 0,
        .body = rq->reply,
        .message = rq->error,
        .body_sent = rq->body_sent,
    };
    bool answered = rq->status != 0;

    rq->reply[rq->n_reply] = '\0';
    /* A 2xx that came before the whole body left counts only if the exchange
     * went on to its end. */
    if (answered && code != CURLE_OK && rq->status < 300 && rq->n_body > 0 &&
        !rq->body_sent)
        answered = false;
    if (answered) {
        r.error = HTTP_OK;
    } else if (cancelled) {
        r.error = HTTP_CANCELLED;
    } else {
        r.error = code == CURLE_OK ? HTTP_OTHER : map_error(code);
        r.status = 0;
        r.retry_after_ms = 0;
    }
    if (code == CURLE_OPERATION_TIMEDOUT)
        rq->h->stale = true;
    if (rq->error[0] == '\0')
        snprintf(rq->error, sizeof(rq->error), "%s",
                 cancelled ? "cancelled" : curl_easy_strerror(code));
    unlink_request(rq);
    rq->done(rq->arg, &r);
    request_free(rq);
}

static void hand_out(struct http *h)
{
    CURLMsg *msg;
    int n_left;

    /* A callback may start requests, replace the multi handle, or close. */
    while (!h->closing &&
           (msg = curl_multi_info_read(h->multi, &n_left)) != NULL) {
        struct request *rq = NULL;
        CURLcode code = msg->data.result;
        CURL *easy = msg->easy_handle;

        if (msg->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&rq);
        (void)curl_multi_remove_handle(h->multi, easy); /* msg is gone */
        finish(rq, code, false);
    }
}

/* ---- libcurl and the loop ----------------------------------------------- */

static void on_handle_closed(struct http *h)
{
    if (--h->n_handles == 0) {
        void (*closed)(void *) = h->closed;
        void *arg = h->closed_arg;

        free(h->no_proxy);
        free(h);
        closed(arg);
    }
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    struct http *h = w->h;

    free(w);
    on_handle_closed(h);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    struct http *h = w->h;
    int flags = 0;
    int n_running;

    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    (void)curl_multi_socket_action(h->multi, w->fd, flags, &n_running);
    hand_out(h);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
                     void *socket_arg)
{
    struct http *h = arg;
    struct watch *w = socket_arg;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL) {
            (void)curl_multi_assign(h->multi, fd, NULL);
            uv_close((uv_handle_t *)&w->poll, on_poll_closed);
        }
        return 0;
    }
    if (w == NULL) {
        w = calloc(1, sizeof(*w));
        if (w == NULL)
            return -1; /* libcurl fails the transfers */
        if (uv_poll_init(h->loop, &w->poll, fd) != 0) {
            free(w);
            return -1;
        }
        w->h = h;
        w->fd = fd;
        w->poll.data = w;
        h->n_handles++;
        (void)curl_multi_assign(h->multi, fd, w);
    }
    if (what & CURL_POLL_IN)
        events |= UV_READABLE;
    if (what & CURL_POLL_OUT)
        events |= UV_WRITABLE;
    (void)uv_poll_start(&w->poll, events, on_poll);
    return 0;
}

static void tear_down(struct http *h);

static void on_timer(uv_timer_t *timer)
{
    struct http *h = timer->data;
    int n_running;

    if (h->closing) {
        tear_down(h);
        return;
    }
    (void)curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0,
                                   &n_running);
    hand_out(h);
}

static int on_timeout(CURLM *multi, long ms, void *arg)
{
    struct http *h = arg;

    (void)multi;
    if (h->closing)
        return 0; /* the timer belongs to the close */
    if (ms < 0)
        (void)uv_timer_stop(&h->timer);
    else
        (void)uv_timer_start(&h->timer, on_timer, (uint64_t)ms, 0);
    return 0;
}

static CURLM *multi_new(struct http *h)
{
    CURLM *m = curl_multi_init();
    long n = (long)h->cfg->max_connections;

    if (m == NULL)
        return NULL;
    curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(m, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(m, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(m, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    if (n > 0) {
        curl_multi_setopt(m, CURLMOPT_MAX_HOST_CONNECTIONS, n);
        curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, n);
    }
    return m;
}

/* After a timeout: once nothing runs, all connections go with their multi. */
static void refresh(struct http *h)
{
    CURLM *fresh;

    if (!h->stale || h->n_requests > 0)
        return;
    fresh = multi_new(h);
    if (fresh == NULL)
        return; /* later; until then no old connection is used */
    (void)curl_multi_cleanup(h->multi);
    h->multi = fresh;
    h->stale = false;
}

/* ---- a request ------------------------------------------------------------ */

static bool tls_version(const char *word, long *out)
{
    static const struct {
        const char *word;
        long version;
    } words[] = {
        {"", CURL_SSLVERSION_TLSv1_2},
        {"tlsv1.0", CURL_SSLVERSION_TLSv1_0},
        {"tlsv1.1", CURL_SSLVERSION_TLSv1_1},
        {"tlsv1.2", CURL_SSLVERSION_TLSv1_2},
        {"tlsv1.3", CURL_SSLVERSION_TLSv1_3},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(word, words[i].word) == 0) {
            *out = words[i].version;
            return true;
        }
    }
    return false;
}

static void set_proxy(const struct http *h, CURL *e, bool tls)
{
    const char *proxy = tls ? h->cfg->proxy_https : h->cfg->proxy_http;

    /* libcurl reads http_proxy in lower case only, as a guard for CGI programs;
     * every other agent reads both. */
    if (proxy[0] == '\0' && !tls && getenv("http_proxy") == NULL)
        proxy = getenv("HTTP_PROXY");
    if (proxy != NULL && proxy[0] != '\0')
        curl_easy_setopt(e, CURLOPT_PROXY, proxy);
    if (h->no_proxy != NULL)
        curl_easy_setopt(e, CURLOPT_NOPROXY, h->no_proxy);
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
}

static void set_tls(const struct http *h, CURL *e)
{
    const struct http_config *cfg = h->cfg;

    curl_easy_setopt(e, CURLOPT_SSLVERSION, h->tls_version);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, cfg->skip_verify ? 0L : 1L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, cfg->skip_verify ? 0L : 2L);
    curl_easy_setopt(e, CURLOPT_PROXY_SSLVERSION, h->tls_version);
    if (cfg->ca_file[0] != '\0') {
        curl_easy_setopt(e, CURLOPT_CAINFO, cfg->ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(e, CURLOPT_PROXY_CAINFO, cfg->ca_file);
        curl_easy_setopt(e, CURLOPT_PROXY_CAPATH, NULL);
    }
}

static void set_connection(const struct http *h, CURL *e, bool tls,
                           uint32_t timeout_ms)
{
    const struct http_config *cfg = h->cfg;
    uint32_t connect_ms = cfg->tls_timeout_ms;

    if (connect_ms == 0 || connect_ms > timeout_ms)
        connect_ms = timeout_ms;
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION,
                     (long)(cfg->http1_only ? CURL_HTTP_VERSION_1_1
                                            : CURL_HTTP_VERSION_2TLS));
    /* Wait for the first connection: it may carry all requests. Plain HTTP
     * would learn that it cannot only from the first answer. */
    curl_easy_setopt(e, CURLOPT_PIPEWAIT, tls && !cfg->http1_only ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, h->stale ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open);
}

static void set_exchange(struct request *rq, const struct http_request *r)
{
    CURL *e = rq->easy;

    curl_easy_setopt(e, CURLOPT_URL, r->url);
    curl_easy_setopt(e, CURLOPT_PRIVATE, rq);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, rq->error);
    curl_easy_setopt(e, CURLOPT_USERAGENT, rq->h->cfg->user_agent);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, rq->headers);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, rq);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, rq);
    if (strcmp(r->method, "GET") == 0)
        return;
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    if (strcmp(r->method, "POST") != 0)
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->n_body);
    curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(e, CURLOPT_READDATA, rq);
    curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(e, CURLOPT_SEEKDATA, rq);
}

static bool add_header(struct request *rq, const char *line)
{
    struct curl_slist *more = curl_slist_append(rq->headers, line);

    if (more == NULL)
        return false;
    rq->headers = more;
    return true;
}

static bool copy_headers(struct request *rq, const char *const *lines)
{
    /* Names without a value: take out what libcurl adds by itself. */
    if (!add_header(rq, "Expect:") || !add_header(rq, "Accept-Encoding:"))
        return false;
    for (; lines != NULL && *lines != NULL; lines++) {
        if (!add_header(rq, *lines))
            return false;
    }
    return true;
}

static int http_start(struct http *h, const struct http_request *r)
{
    uint32_t timeout_ms =
        r->timeout_ms != 0 ? r->timeout_ms : h->cfg->timeout_ms;
    bool tls = strncasecmp(r->url, "https://", 8) == 0;
    struct request *rq = NULL;
    int rc = -ENOMEM;

    if (h->closing)
        return -ECANCELED;
    if (timeout_ms == 0)
        timeout_ms = DEFAULT_TIMEOUT_MS;
    refresh(h);
    rq = calloc(1, sizeof(*rq));
    if (rq == NULL)
        goto out;
    rq->h = h;
    rq->body = r->body;
    rq->n_body = r->n_body;
    rq->sending = r->sending;
    rq->done = r->done;
    rq->arg = r->arg;
    rq->easy = curl_easy_init();
    if (rq->easy == NULL || !copy_headers(rq, r->headers))
        goto out;
    set_exchange(rq, r);
    set_connection(h, rq->easy, tls, timeout_ms);
    set_tls(h, rq->easy);
    set_proxy(h, rq->easy, tls);
    if (curl_multi_add_handle(h->multi, rq->easy) != CURLM_OK)
        goto out;
    rq->next = h->requests;
    if (rq->next != NULL)
        rq->next->prev = rq;
    h->requests = rq;
    h->n_requests++;
    rq = NULL; /* handed over */
    rc = 0;
out:
    request_free(rq);
    return rc;
}

/* ---- life ------------------------------------------------------------------ */

static int http_prepare(const char *key_log_file)
{
    /* libcurl takes this from the environment alone, in curl_global_init(). */
    if (key_log_file[0] != '\0' &&
        setenv("SSLKEYLOGFILE", key_log_file, 1) != 0)
        return -ENOMEM;
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -ENOMEM;
}

static int http_create(struct http **out, uv_loop_t *loop,
                       const struct http_config *cfg)
{
    struct http *h = calloc(1, sizeof(*h));
    int rc = -ENOMEM;

    if (h == NULL)
        goto out;
    h->cfg = cfg;
    h->loop = loop;
    rc = -EINVAL;
    if (!tls_version(cfg->min_tls, &h->tls_version))
        goto out;
    rc = -ENOMEM;
    if (cfg->no_proxy[0] != '\0') {
        h->no_proxy = strndup(cfg->no_proxy, NO_PROXY_MAX);
        if (h->no_proxy == NULL)
            goto out;
        for (char *p = h->no_proxy; *p != '\0'; p++) {
            if (*p == ' ')
                *p = ',';
        }
    }
    h->multi = multi_new(h);
    if (h->multi == NULL)
        goto out;
    (void)uv_timer_init(loop, &h->timer); /* cannot fail */
    h->timer.data = h;
    h->n_handles = 1;
    *out = h;
    h = NULL; /* handed over */
    rc = 0;
out:
    if (h != NULL)
        free(h->no_proxy);
    free(h);
    return rc;
}

static void on_timer_closed(uv_handle_t *handle)
{
    on_handle_closed(handle->data);
}

static void tear_down(struct http *h)
{
    while (h->requests != NULL) {
        struct request *rq = h->requests;

        (void)curl_multi_remove_handle(h->multi, rq->easy);
        finish(rq, CURLE_ABORTED_BY_CALLBACK, true);
    }
    (void)curl_multi_cleanup(h->multi); /* closes connections and polls */
    h->multi = NULL;
    uv_close((uv_handle_t *)&h->timer, on_timer_closed);
}

static void http_close(struct http *h, void (*closed)(void *arg), void *arg)
{
    /* From the timer: the caller may stand in a callback of a request. */
    h->closing = true;
    h->closed = closed;
    h->closed_arg = arg;
    (void)uv_timer_start(&h->timer, on_timer, 0, 0);
}

extern const struct http_ops retriever_http_module;
__attribute__((visibility("default")))
const struct http_ops retriever_http_module = {
    .build = RETRIEVER_VERSION,
    .prepare = http_prepare,
    .create = http_create,
    .start = http_start,
    .close = http_close,
};
