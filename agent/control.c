/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client is freed when both its handles are closed and no flush answer is owed
 * to it: a flush holds the struct, not the connection.
 */
#include "agent/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/contract.h"
#include "agent/base/log.h"

/* One connected client. */
struct control_request {
    struct control *control;
    uv_pipe_t pipe;
    uv_timer_t idle;
    uv_write_t write;
    struct buf answer;
    char request[CONTROL_MAX_REQUEST];
    size_t n_request;
    int n_handles; /* open ones */
    bool closing;
    bool busy; /* a request was taken: further bytes are ignored */
    bool owed; /* a flush answer is */
};

struct control {
    uv_loop_t *loop;
    uv_pipe_t listener;
    struct control_ops ops;
    void *arg;
    struct control_request *clients[CONTROL_MAX_CLIENTS];
    bool listener_open;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void finish_if_over(struct control *c)
{
    if (c->closed == NULL || c->listener_open)
        return;
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (c->clients[i] != NULL)
            return;
    }
    c->closed(c->closed_arg);
    free(c);
}

static void free_if_over(struct control_request *cl)
{
    struct control *c = cl->control;

    if (cl->n_handles > 0 || cl->owed)
        return;
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (c->clients[i] == cl)
            c->clients[i] = NULL;
    }
    buf_fini(&cl->answer);
    free(cl);
    finish_if_over(c);
}

static void on_client_handle_closed(uv_handle_t *h)
{
    struct control_request *cl = h->data;

    cl->n_handles--;
    free_if_over(cl);
}

static void close_client(struct control_request *cl)
{
    if (cl->closing)
        return;
    cl->closing = true;
    uv_close((uv_handle_t *)&cl->pipe, on_client_handle_closed);
    uv_close((uv_handle_t *)&cl->idle, on_client_handle_closed);
}

static void on_written(uv_write_t *w, int status)
{
    (void)status; /* the client left: nothing more to do for it */
    close_client(w->data);
}

static void send_answer(struct control_request *cl)
{
    uv_buf_t b = uv_buf_init(cl->answer.data, (unsigned)cl->answer.n);

    if (cl->closing)
        return;
    cl->write.data = cl;
    if (cl->answer.n == 0 ||
        uv_write(&cl->write, (uv_stream_t *)&cl->pipe, &b, 1, on_written) != 0)
        close_client(cl);
}

static void take_request(struct control_request *cl, const char *line)
{
    struct control *c = cl->control;

    cl->busy = true;
    (void)uv_timer_stop(&cl->idle);
    if (strcmp(line, "status") == 0) {
        c->ops.status(c->arg, false, &cl->answer);
    } else if (strcmp(line, "status json") == 0) {
        c->ops.status(c->arg, true, &cl->answer);
    } else if (strcmp(line, "flush") == 0) {
        cl->owed = true;
        c->ops.flush(c->arg, cl);
        return;
    } else if (strcmp(line, "stop") == 0) {
        c->ops.stop(c->arg);
        (void)buf_puts(&cl->answer, "{\"stopping\":true}\n");
    } else if (strcmp(line, "version") == 0) {
        (void)buf_puts(&cl->answer,
                       "{\"version\":\"" RETRIEVER_VERSION "\"}\n");
    } else {
        (void)buf_puts(&cl->answer, "{\"error\":\"unknown request\"}\n");
    }
    send_answer(cl);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
    struct control_request *cl = h->data;

    (void)suggested;
    *b = uv_buf_init(cl->request + cl->n_request,
                     (unsigned)(sizeof(cl->request) - 1 - cl->n_request));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct control_request *cl = s->data;
    char *end;

    (void)b;
    if (n < 0) { /* UV_EOF, UV_ENOBUFS: a line longer than any request */
        /* A client may shut its sending side and wait for its flush. */
        if (!cl->busy || n != UV_EOF)
            close_client(cl);
        return;
    }
    if (cl->busy) {
        cl->n_request = 0; /* ignored, and never a full buffer */
        return;
    }
    cl->n_request += (size_t)n;
    cl->request[cl->n_request] = '\0';
    end = strchr(cl->request, '\n');
    if (end == NULL)
        return;
    *end = '\0';
    cl->n_request = 0;
    take_request(cl, cl->request);
}

static void on_idle(uv_timer_t *t)
{
    close_client(t->data);
}

static void on_connection(uv_stream_t *s, int status)
{
    struct control *c = s->data;
    struct control_request *cl;
    int slot = 0;

    if (status != 0)
        return;
    while (slot < CONTROL_MAX_CLIENTS && c->clients[slot] != NULL)
        slot++;
    cl = calloc(1, sizeof(*cl));
    if (cl == NULL)
        return;
    buf_init(&cl->answer, CONTROL_MAX_ANSWER);
    cl->control = c;
    (void)uv_pipe_init(c->loop, &cl->pipe, 0);
    (void)uv_timer_init(c->loop, &cl->idle);
    cl->pipe.data = cl->idle.data = cl;
    cl->n_handles = 2;
    if (uv_accept(s, (uv_stream_t *)&cl->pipe) != 0 ||
        slot == CONTROL_MAX_CLIENTS) {
        close_client(cl);
        return;
    }
    c->clients[slot] = cl;
    (void)uv_timer_start(&cl->idle, on_idle, CONTROL_IDLE_MS, 0);
    (void)uv_read_start((uv_stream_t *)&cl->pipe, on_alloc, on_read);
}

int control_start(struct control **out, uv_loop_t *loop, int fd,
                  const struct control_ops *ops, void *arg)
{
    struct control *c = calloc(1, sizeof(*c));
    int dup_fd = -1;
    int rc;

    if (c == NULL)
        return -ENOMEM;
    c->loop = loop;
    c->ops = *ops;
    c->arg = arg;
    /* libuv closes what it is given; the listener is the keeper's. */
    dup_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (dup_fd < 0) {
        rc = -errno;
        goto out;
    }
    rc = uv_pipe_init(loop, &c->listener, 0);
    if (rc != 0)
        goto out;
    c->listener.data = c;
    rc = uv_pipe_open(&c->listener, dup_fd);
    if (rc == 0)
        dup_fd = -1; /* handed over */
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&c->listener, CONTROL_MAX_CLIENTS,
                       on_connection);
    c->listener_open = true;
    *out = c;
    if (rc != 0) {
        control_stop(c, NULL, NULL);
        *out = NULL;
    }
    c = NULL; /* handed over, or closing itself */
out:
    if (dup_fd >= 0)
        close(dup_fd);
    free(c);
    return rc;
}

void control_answer(struct control_request *cl, const char *text, size_t n)
{
    REQUIRE(cl->owed);
    cl->owed = false;
    if (cl->closing) {
        free_if_over(cl);
        return;
    }
    (void)buf_append(&cl->answer, text, n);
    send_answer(cl);
}

static void on_listener_closed(uv_handle_t *h)
{
    struct control *c = h->data;

    c->listener_open = false;
    finish_if_over(c);
}

static void nobody(void *arg)
{
    (void)arg;
}

void control_stop(struct control *c, void (*closed)(void *arg), void *arg)
{
    c->closed = closed != NULL ? closed : nobody;
    c->closed_arg = arg;
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (c->clients[i] == NULL)
            continue;
        REQUIRE(!c->clients[i]->owed);
        close_client(c->clients[i]);
    }
    uv_close((uv_handle_t *)&c->listener, on_listener_closed);
}
