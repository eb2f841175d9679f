/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/health.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/httpd.h"

#define MODULE "health"

struct health {
    const struct httpd_module *module;
    struct httpd_health *server;
    struct supervision *sup;
};

/* Serving, and not beyond the drain of a stop: from there on nobody should send
 * to us any more. */
static int healthy(void *arg)
{
    struct health *h = arg;

    return atomic_load(&h->sup->serving) != 0 &&
           atomic_load(&h->sup->stage) <= STAGE_LINGER;
}

void health_start(struct health **out, const struct worker_env *env)
{
    struct health *h = calloc(1, sizeof(*h));
    char why[256] = "the module retriever-httpd.so is missing";
    int rc;

    if (h == NULL)
        return;
    h->sup = env->sup;
    if (env->httpd_module < 0 ||
        httpd_module_load(env->httpd_module, &h->module, why, sizeof(why)) !=
            0) {
        log_warn(MODULE, "health_port is not served: %s", why);
        free(h);
        return;
    }
    rc = h->module->health_start(&h->server, env->config->health_port, healthy,
                                 h);
    if (rc != 0) {
        log_warn(MODULE, "health_port %u is not served: %s",
                 env->config->health_port, strerror(-rc));
        free(h);
        return;
    }
    *out = h;
}

void health_stop(struct health *h)
{
    if (h == NULL)
        return;
    h->module->health_stop(h->server);
    free(h);
}
