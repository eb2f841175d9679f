/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every client has a slot, and each slot comes back: by its answer, by the
 * client's leaving, or by the timer that runs whenever it is the client's turn.
 * Only a flush that waits for the intake (and an upgrade, for the new program) has
 * no limit in time; so those get no more than a part of the slots.
 */
#include "agent/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/contract.h"
#include "agent/base/log.h"

/* A slot, and the client in it. */
struct control_request {
    struct control *control;
    uv_pipe_t pipe;
    uv_timer_t idle;
    uv_write_t write;
    struct buf answer;
    char request[CONTROL_MAX_REQUEST];
    size_t n_request;
    int n_handles; /* open ones; 0 = a free slot */
    bool closing;
    bool busy; /* a request was taken: further bytes are ignored */
    bool owed; /* the answer to a flush or an upgrade is */
};

struct control {
    uv_loop_t *loop;
    uv_pipe_t listener;
    struct control_ops ops;
    void *arg;
    struct control_request clients[CONTROL_MAX_CLIENTS];
    unsigned n_clients, n_waiting;
    bool waiting; /* a connection does, for a slot */
    bool paused;
    bool listener_open;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void take_connection(struct control *c);

static void finish_if_over(struct control *c)
{
    void (*closed)(void *arg) = c->closed;
    void *arg = c->closed_arg;

    if (closed == NULL || c->listener_open || c->n_clients > 0)
        return;
    free(c);
    closed(arg);
}

static void on_client_handle_closed(uv_handle_t *h)
{
    struct control_request *cl = h->data;
    struct control *c = cl->control;

    if (--cl->n_handles > 0)
        return;
    buf_fini(&cl->answer);
    c->n_clients--;
    if (c->waiting && c->closed == NULL)
        take_connection(c);
    finish_if_over(c);
}

static void close_client(struct control_request *cl)
{
    struct control *c = cl->control;

    if (cl->closing)
        return;
    cl->closing = true;
    if (cl->owed) {
        cl->owed = false;
        c->n_waiting--;
        c->ops.left(c->arg, cl);
    }
    uv_close((uv_handle_t *)&cl->pipe, on_client_handle_closed);
    uv_close((uv_handle_t *)&cl->idle, on_client_handle_closed);
}

static void on_idle(uv_timer_t *t)
{
    close_client(t->data);
}

static void on_written(uv_write_t *w, int status)
{
    (void)status; /* the client left: nothing more to do for it */
    close_client(w->data);
}

static void send_answer(struct control_request *cl)
{
    uv_buf_t b = uv_buf_init(cl->answer.data, (unsigned)cl->answer.n);

    cl->write.data = cl;
    (void)uv_timer_start(&cl->idle, on_idle, cl->control->ops.idle_ms, 0);
    if (cl->answer.n == 0 ||
        uv_write(&cl->write, (uv_stream_t *)&cl->pipe, &b, 1, on_written) != 0)
        close_client(cl);
}

/* The answer and @fd with it. Nothing was written on this connection yet, so that it
 * fits without waiting; a client that gets none asks again. */
static void send_with_fd(struct control_request *cl, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(fd))];
    } u = {.header = {.cmsg_len = CMSG_LEN(sizeof(fd)),
                      .cmsg_level = SOL_SOCKET,
                      .cmsg_type = SCM_RIGHTS}};
    struct iovec text = {.iov_base = cl->answer.data, .iov_len = cl->answer.n};
    const struct msghdr m = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = &u,
                             .msg_controllen = sizeof(u)};
    int to = -1;

    memcpy(CMSG_DATA(&u.header), &fd, sizeof(fd));
    if (uv_fileno((const uv_handle_t *)&cl->pipe, &to) == 0)
        (void)sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    close_client(cl);
}

static void take_stop(struct control_request *cl, bool wait)
{
    struct control *c = cl->control;
    int fd = wait ? c->ops.end_fd(c->arg) : -1;

    c->ops.stop(c->arg);
    (void)buf_puts(&cl->answer, "{\"stopping\":true}\n");
    if (fd < 0) {
        send_answer(cl);
        return;
    }
    send_with_fd(cl, fd);
    close(fd);
}

/* It is somebody else's turn. False: too many wait, which was answered. */
static bool begin_waiting(struct control_request *cl, const char *what)
{
    struct control *c = cl->control;

    if (c->n_waiting == CONTROL_MAX_WAITING) {
        (void)buf_printf(&cl->answer,
                         "{\"%s\":false,\"error\":\"too many requests wait "
                         "already\"}\n",
                         what);
        send_answer(cl);
        return false;
    }
    (void)uv_timer_stop(&cl->idle);
    cl->owed = true;
    c->n_waiting++;
    return true;
}

/* "upgrade 3" */
static bool upgrade_number(const char *line, uint32_t *n)
{
    static const char word[] = "upgrade ";
    char *end;
    unsigned long v;

    if (strncmp(line, word, sizeof(word) - 1) != 0)
        return false;
    line += sizeof(word) - 1;
    v = strtoul(line, &end, 10);
    *n = (uint32_t)v;
    return line[0] >= '0' && line[0] <= '9' && *end == '\0' && v < UINT32_MAX;
}

static void take_request(struct control_request *cl, const char *line)
{
    struct control *c = cl->control;
    uint32_t n;

    cl->busy = true;
    if (c->paused) {
        close_client(cl);
        return;
    }
    if (strcmp(line, "flush") == 0) {
        if (begin_waiting(cl, "flushed"))
            c->ops.flush(c->arg, cl);
        return;
    }
    if (upgrade_number(line, &n)) {
        if (begin_waiting(cl, "upgraded"))
            c->ops.upgrade(c->arg, cl, n);
        return;
    }
    if (strcmp(line, "stop") == 0 || strcmp(line, "stop wait") == 0) {
        take_stop(cl, line[4] != '\0');
        return;
    }
    if (strcmp(line, "status") == 0) {
        c->ops.status(c->arg, false, &cl->answer);
    } else if (strcmp(line, "status json") == 0) {
        c->ops.status(c->arg, true, &cl->answer);
    } else if (strcmp(line, "ebpf") == 0) {
        c->ops.ebpf(c->arg, false, &cl->answer);
    } else if (strcmp(line, "ebpf json") == 0) {
        c->ops.ebpf(c->arg, true, &cl->answer);
    } else if (strcmp(line, "version") == 0) {
        c->ops.version(c->arg, &cl->answer);
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

/* At the end of its sending side: a client may have shut that alone, and wait. */
static bool has_left(const struct control_request *cl)
{
    struct pollfd p = {.events = 0};

    return uv_fileno((const uv_handle_t *)&cl->pipe, &p.fd) != 0 ||
           (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct control_request *cl = s->data;
    char *end;

    (void)b;
    if (n < 0) { /* UV_EOF, UV_ENOBUFS: a line longer than any request */
        if (!cl->busy || n != UV_EOF || has_left(cl))
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

/* The connection that is there, into a slot. Without a free one it waits: libuv
 * asks the listener for no other until this one is taken. */
static void take_connection(struct control *c)
{
    struct control_request *cl = c->clients;

    c->waiting = c->paused || c->n_clients == CONTROL_MAX_CLIENTS;
    if (c->waiting)
        return;
    while (cl->n_handles > 0)
        cl++;
    memset(cl, 0, sizeof(*cl));
    buf_init(&cl->answer, CONTROL_MAX_ANSWER);
    cl->control = c;
    (void)uv_pipe_init(c->loop, &cl->pipe, 0);
    (void)uv_timer_init(c->loop, &cl->idle);
    cl->pipe.data = cl->idle.data = cl;
    cl->n_handles = 2;
    c->n_clients++;
    if (uv_accept((uv_stream_t *)&c->listener, (uv_stream_t *)&cl->pipe) != 0) {
        close_client(cl);
        return;
    }
    (void)uv_timer_start(&cl->idle, on_idle, cl->control->ops.idle_ms, 0);
    (void)uv_read_start((uv_stream_t *)&cl->pipe, on_alloc, on_read);
}

static void on_connection(uv_stream_t *s, int status)
{
    if (status == 0)
        take_connection(s->data);
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
    if (c->ops.idle_ms == 0)
        c->ops.idle_ms = CONTROL_IDLE_MS;
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
    REQUIRE(cl->owed && !cl->closing);
    cl->owed = false;
    cl->control->n_waiting--;
    (void)buf_append(&cl->answer, text, n);
    send_answer(cl);
}

void control_pause(struct control *c, bool paused)
{
    c->paused = paused;
    if (!paused && c->waiting)
        take_connection(c);
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

/* An answer that was given just now is still written: libuv tries at once, and a
 * client that does not take it is not waited for. */
void control_stop(struct control *c, void (*closed)(void *arg), void *arg)
{
    c->closed = closed != NULL ? closed : nobody;
    c->closed_arg = arg;
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (c->clients[i].n_handles == 0)
            continue;
        REQUIRE(!c->clients[i].owed);
        close_client(&c->clients[i]);
    }
    uv_close((uv_handle_t *)&c->listener, on_listener_closed);
}
