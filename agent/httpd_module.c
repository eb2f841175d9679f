/* SPDX-License-Identifier: Apache-2.0 */
/* What retriever-httpd.so exports: the health port and the intake. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/httpd.h"
#include "agent/httpd_server.h"
#include "agent/intake_main.h"

#define HEALTH_CONNECTIONS_MAX 16
#define HEALTH_IDLE_S 5

struct httpd_health {
    struct httpd *http;
    httpd_health_fn *fn;
    void *arg;
};

/* The port is open to the network: it says one bit and nothing else. */
static void on_health(void *arg, const struct httpd_request *r,
                      struct httpd_reply *reply)
{
    struct httpd_health *h = arg;

    (void)r;
    reply->status = h->fn(h->arg) ? 200 : 500;
}

static int health_start(struct httpd_health **out, uint16_t port,
                        httpd_health_fn *fn, void *arg)
{
    struct httpd_health *h = calloc(1, sizeof(*h));
    struct httpd_options o = {
        .max_connections = HEALTH_CONNECTIONS_MAX,
        .idle_timeout_s = HEALTH_IDLE_S,
        .handle = on_health,
        .arg = h,
    };
    char address[32];
    char where[64];
    int rc;

    if (h == NULL)
        return -ENOMEM;
    h->fn = fn;
    h->arg = arg;
    (void)snprintf(address, sizeof(address), "[::]:%u", port);
    o.listen_fd = httpd_listen(address, where, sizeof(where));
    if (o.listen_fd == -EAFNOSUPPORT || o.listen_fd == -EADDRNOTAVAIL) {
        (void)snprintf(address, sizeof(address), "0.0.0.0:%u", port);
        o.listen_fd = httpd_listen(address, where, sizeof(where));
    }
    rc = o.listen_fd < 0 ? o.listen_fd : httpd_start(&h->http, &o);
    if (rc != 0) {
        free(h);
        return rc;
    }
    *out = h;
    return 0;
}

static void health_stop(struct httpd_health *h)
{
    if (h == NULL)
        return;
    httpd_stop(h->http);
    free(h);
}

/* The only symbol that leaves the module. */
extern const struct httpd_module retriever_httpd_module;
__attribute__((visibility("default")))
const struct httpd_module retriever_httpd_module = {
    .build_id = RETRIEVER_VERSION,
    .health_start = health_start,
    .health_stop = health_stop,
    .intake_main = intake_main,
};
