/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RTLD_NOW: a missing library shows here, as one line of the log, and not as the
 * end of the process at the first request. RTLD_LOCAL: its symbols are nobody
 * else's.
 */
#include "forwarder/http_module.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/contract.h"

const struct http_ops *http_module_open(int fd, const char *key_log_file,
                                        char *error)
{
    const struct http_ops *ops;
    char path[64];
    void *handle;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();

        snprintf(error, HTTP_MODULE_ERROR_MAX, "%s",
                 why != NULL ? why : "dlopen failed");
        return NULL;
    }
    ops = dlsym(handle, HTTP_MODULE_SYMBOL);
    if (ops == NULL) {
        snprintf(error, HTTP_MODULE_ERROR_MAX, "no symbol %s in it",
                 HTTP_MODULE_SYMBOL);
    } else if (strcmp(ops->build, RETRIEVER_VERSION) != 0) {
        snprintf(error, HTTP_MODULE_ERROR_MAX,
                 "it is of version %.32s, this program of " RETRIEVER_VERSION,
                 ops->build);
        ops = NULL;
    } else if (ops->prepare(key_log_file) != 0) {
        snprintf(error, HTTP_MODULE_ERROR_MAX, "libcurl could not start");
        ops = NULL;
    }
    return ops; /* never dlclose()d: TLS libraries keep exit handlers */
}

static void *helper(void *arg)
{
    struct http_module *m = arg;

    m->ops = http_module_open(m->fd, m->key_log_file, m->error);
    (void)uv_async_send(&m->bell);
    return NULL;
}

static void join(struct http_module *m)
{
    if (m->joinable)
        (void)pthread_join(m->thread, NULL);
    m->joinable = false;
}

static void on_bell(uv_async_t *bell)
{
    struct http_module *m = bell->data;
    http_module_loaded_fn *loaded = m->loaded;

    if (loaded == NULL)
        return; /* told already */
    join(m);
    m->loaded = NULL;
    loaded(m->arg, m->ops, m->error);
}

int http_module_load(struct http_module *m, uv_loop_t *loop, int fd,
                     const char *key_log_file, http_module_loaded_fn *loaded,
                     void *arg)
{
    sigset_t all, old;
    int rc;

    memset(m, 0, sizeof(*m));
    m->fd = fd;
    m->key_log_file = key_log_file;
    m->loaded = loaded;
    m->arg = arg;
    rc = uv_async_init(loop, &m->bell, on_bell);
    if (rc != 0)
        return rc;
    m->bell.data = m;
    sigfillset(&all); /* signals are the loop's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&m->thread, NULL, helper, m);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    m->joinable = rc == 0;
    if (rc != 0) { /* told from the loop, as everything else */
        snprintf(m->error, sizeof(m->error), "no thread to load it: %s",
                 strerror(rc));
        (void)uv_async_send(&m->bell);
    }
    return 0;
}

static void on_bell_closed(uv_handle_t *bell)
{
    struct http_module *m = bell->data;

    m->closed(m->arg);
}

void http_module_close(struct http_module *m, http_module_closed_fn *closed)
{
    REQUIRE(m->closed == NULL);
    m->loaded = NULL;
    m->closed = closed;
    join(m);
    uv_close((uv_handle_t *)&m->bell, on_bell_closed);
}
