/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket and its clients, good and bad, on one loop. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "agent/control.h"

#define PATIENCE_NS UINT64_C(10000000000) /* then the test fails */
#define IDLE_MS 60
#define LONG_ANSWER (CONTROL_MAX_ANSWER - 100)

struct fixture {
    uv_loop_t loop;
    struct control *c;
    struct sockaddr_un addr;
    socklen_t n_addr;
    int listener;
    struct control_request *owed[CONTROL_MAX_CLIENTS];
    int n_flush, n_left, n_stop, n_closed;
    int end_fd; /* -1 = none */
    uint32_t upgrade_n;
    size_t n_status; /* bytes of a status */
};

static void on_status(void *arg, bool json, struct buf *out)
{
    struct fixture *f = arg;

    assert_int_equal(buf_puts(out, json ? "{}\n" : "text\n"), 0);
    while (out->n < f->n_status)
        assert_int_equal(buf_putc(out, '.'), 0);
}

static void on_ebpf(void *arg, bool json, struct buf *out)
{
    (void)arg;
    assert_int_equal(buf_puts(out, json ? "{\"ebpf\":1}\n" : "features\n"), 0);
}

static void on_flush(void *arg, struct control_request *rq)
{
    struct fixture *f = arg;

    assert_in_range(f->n_flush, 0, CONTROL_MAX_CLIENTS - 1);
    f->owed[f->n_flush++] = rq;
}

static void on_left(void *arg, struct control_request *rq)
{
    struct fixture *f = arg;
    int i = 0;

    while (f->owed[i] != rq)
        assert_in_range(++i, 0, CONTROL_MAX_CLIENTS - 1);
    f->owed[i] = NULL;
    f->n_left++;
}

static void on_upgrade(void *arg, struct control_request *rq, uint32_t n)
{
    struct fixture *f = arg;

    f->upgrade_n = n;
    on_flush(arg, rq);
}

static void on_version(void *arg, struct buf *out)
{
    (void)arg;
    (void)buf_puts(out, "{\"version\":\"7\"}\n");
}

static void on_stop(void *arg)
{
    struct fixture *f = arg;

    f->n_stop++;
}

static int on_end_fd(void *arg)
{
    struct fixture *f = arg;

    return f->end_fd < 0 ? -ENOSYS : dup(f->end_fd);
}

static void on_closed(void *arg)
{
    struct fixture *f = arg;

    f->n_closed++;
}

static void begin_idle(struct fixture *f, uint32_t idle_ms)
{
    const struct control_ops ops = {.status = on_status,
                                    .ebpf = on_ebpf,
                                    .flush = on_flush,
                                    .upgrade = on_upgrade,
                                    .version = on_version,
                                    .left = on_left,
                                    .stop = on_stop,
                                    .end_fd = on_end_fd,
                                    .idle_ms = idle_ms};

    memset(f, 0, sizeof(*f));
    f->end_fd = -1;
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    f->addr.sun_family = AF_UNIX;
    f->n_addr = sizeof(sa_family_t); /* a name of the kernel's choice */
    assert_int_equal(bind(f->listener, (struct sockaddr *)&f->addr, f->n_addr),
                     0);
    f->n_addr = sizeof(f->addr);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&f->addr,
                                 &f->n_addr),
                     0);
    assert_int_equal(listen(f->listener, 64), 0);
    assert_int_equal(control_start(&f->c, &f->loop, f->listener, &ops, f), 0);
}

static void begin(struct fixture *f)
{
    begin_idle(f, 0);
}

static void end(struct fixture *f)
{
    control_stop(f->c, on_closed, f);
    assert_int_equal(f->n_closed, 0); /* never from inside */
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(f->n_closed, 1);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    close(f->listener);
}

static void turn(struct fixture *f)
{
    (void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

/* A blocking client would wait where the queue is full. */
static int connect_client(struct fixture *f)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    while (connect(fd, (struct sockaddr *)&f->addr, f->n_addr) != 0) {
        assert_int_equal(errno, EAGAIN);
        turn(f);
    }
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int client(struct fixture *f, const char *text)
{
    int fd = connect_client(f);

    say(fd, text);
    return fd;
}

/* Turns until @fd has something; returns what recv() said. */
static ssize_t hear(struct fixture *f, int fd, char *to, size_t n)
{
    uint64_t end_ns = uv_hrtime() + PATIENCE_NS;
    ssize_t got;

    while ((got = recv(fd, to, n, 0)) < 0 && errno == EAGAIN) {
        assert_true(uv_hrtime() < end_ns);
        turn(f);
    }
    return got;
}

static void assert_answer(struct fixture *f, int fd, const char *expected)
{
    char text[256];
    ssize_t n = hear(f, fd, text, sizeof(text) - 1);

    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, expected);
    assert_int_equal(hear(f, fd, text, sizeof(text)), 0); /* and the end */
    close(fd);
}

/* The connection ended without a word. */
static void assert_closed(struct fixture *f, int fd)
{
    char c;

    assert_true(hear(f, fd, &c, 1) <= 0);
    close(fd);
}

static void wait_for_flushes(struct fixture *f, int n)
{
    uint64_t end_ns = uv_hrtime() + PATIENCE_NS;

    while (f->n_flush < n) {
        assert_true(uv_hrtime() < end_ns);
        turn(f);
    }
}

static void wait_for_left(struct fixture *f, int n)
{
    uint64_t end_ns = uv_hrtime() + PATIENCE_NS;

    while (f->n_left < n) {
        assert_true(uv_hrtime() < end_ns);
        turn(f);
    }
}

/* ---- The tests ---------------------------------------------------------- */

static void each_request_gets_its_answer(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    assert_answer(&f, client(&f, "status\n"), "text\n");
    assert_answer(&f, client(&f, "status json\n"), "{}\n");
    assert_answer(&f, client(&f, "ebpf\n"), "features\n");
    assert_answer(&f, client(&f, "ebpf json\n"), "{\"ebpf\":1}\n");
    assert_answer(&f, client(&f, "version\n"), "{\"version\":\"7\"}\n");
    assert_answer(&f, client(&f, "stop\n"), "{\"stopping\":true}\n");
    assert_int_equal(f.n_stop, 1);
    assert_answer(&f, client(&f, "reboot\n"),
                  "{\"error\":\"unknown request\"}\n");
    assert_answer(&f, client(&f, "\n"), "{\"error\":\"unknown request\"}\n");
    end(&f);
}

/* The descriptor that came with the answer to @fd's `stop wait`; -1 = none. */
static int take_end_fd(struct fixture *f, int fd)
{
    static const char expected[] = "{\"stopping\":true}\n";
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } u;
    char text[64] = "";
    struct iovec v = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = &u,
                       .msg_controllen = sizeof(u)};
    const struct cmsghdr *c;
    int end_fd = -1;

    while (recvmsg(fd, &m, 0) < 0) {
        assert_int_equal(errno, EAGAIN);
        turn(f);
    }
    assert_string_equal(text, expected);
    c = CMSG_FIRSTHDR(&m);
    if (c != NULL)
        memcpy(&end_fd, CMSG_DATA(c), sizeof(end_fd));
    assert_closed(f, fd);
    return end_fd;
}

static void who_waits_for_the_end_gets_a_descriptor(void **state)
{
    struct fixture f;
    int ends[2];
    int fd;
    char c;

    (void)state;
    begin(&f);
    assert_int_equal(pipe(ends), 0);
    f.end_fd = ends[0];
    fd = take_end_fd(&f, client(&f, "stop wait\n"));
    assert_int_equal(f.n_stop, 1);
    assert_true(fd >= 0);
    assert_int_equal(write(ends[1], "e", 1), 1);
    assert_int_equal(read(fd, &c, 1), 1);
    close(fd);
    f.end_fd = -1; /* it stops all the same */
    assert_int_equal(take_end_fd(&f, client(&f, "stop wait\n")), -1);
    assert_int_equal(f.n_stop, 2);
    f.end_fd = ends[0]; /* who does not wait gets none */
    assert_int_equal(take_end_fd(&f, client(&f, "stop\n")), -1);
    close(ends[0]);
    close(ends[1]);
    end(&f);
}

static void a_request_may_come_in_pieces(void **state)
{
    struct fixture f;
    int fd;

    (void)state;
    begin(&f);
    fd = client(&f, "sta");
    turn(&f);
    turn(&f);
    say(fd, "tus");
    turn(&f);
    say(fd, "\nand more that nobody reads");
    assert_answer(&f, fd, "text\n");
    end(&f);
}

static void what_is_no_request_ends_the_connection(void **state)
{
    char line[4 * CONTROL_MAX_REQUEST];
    struct fixture f;
    int fd;

    (void)state;
    begin(&f);
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\0';
    assert_closed(&f, client(&f, line));
    fd = client(&f, "status"); /* no end of line */
    turn(&f);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_closed(&f, fd);
    fd = connect_client(&f);
    assert_int_equal(send(fd, "\0status\n", 8, 0), 8);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_closed(&f, fd);
    end(&f);
}

static void a_flush_is_answered_when_it_is_over(void **state)
{
    struct fixture f;
    char c;
    int fd;

    (void)state;
    begin(&f);
    fd = client(&f, "flush\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* as nc does; it waits */
    wait_for_flushes(&f, 1);
    turn(&f);
    turn(&f);
    assert_int_equal(f.n_left, 0);
    assert_int_equal(recv(fd, &c, 1, 0), -1);
    control_answer(f.owed[0], "done\n", 5);
    assert_answer(&f, fd, "done\n");
    end(&f);
}

static void who_leaves_during_a_flush_is_forgotten(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    for (int i = 0; i < 3 * CONTROL_MAX_CLIENTS; i++) {
        int fd = client(&f, "flush\n");

        if (i % 2 == 0) { /* at once, or while it waits */
            close(fd);
            wait_for_left(&f, i + 1);
        } else {
            wait_for_flushes(&f, 1);
            close(fd);
            wait_for_left(&f, i + 1);
        }
        f.n_flush = 0;
    }
    assert_answer(&f, client(&f, "status\n"), "text\n");
    end(&f);
}

static void more_clients_than_slots_wait_their_turn(void **state)
{
    struct fixture f;
    int fds[CONTROL_MAX_CLIENTS + 5];
    int n = CONTROL_MAX_CLIENTS + 5;
    char c;

    (void)state;
    begin(&f);
    for (int i = 0; i < n; i++)
        fds[i] = i < CONTROL_MAX_CLIENTS ? connect_client(&f)
                                         : client(&f, "status\n");
    for (int i = 0; i < 50; i++)
        turn(&f);
    for (int i = CONTROL_MAX_CLIENTS; i < n; i++)
        assert_int_equal(recv(fds[i], &c, 1, 0), -1);
    close(fds[3]);
    for (int i = CONTROL_MAX_CLIENTS; i < n; i++)
        assert_answer(&f, fds[i], "text\n");
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (i != 3)
            close(fds[i]);
    }
    end(&f);
}

static void an_upgrade_names_how_many_there_were(void **state)
{
    static const char *const bad[] = {"upgrade\n", "upgrade \n", "upgrade -1\n",
                                      "upgrade 1x\n",
                                      "upgrade 99999999999999999999\n"};
    struct fixture f;
    int fd;

    (void)state;
    begin(&f);
    fd = client(&f, "upgrade 41\n");
    wait_for_flushes(&f, 1);
    assert_int_equal(f.upgrade_n, 41);
    control_answer(f.owed[0], "done\n", 5);
    assert_answer(&f, fd, "done\n");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_answer(&f, client(&f, bad[i]),
                      "{\"error\":\"unknown request\"}\n");
    end(&f);
}

static void flushes_that_wait_leave_room_for_status(void **state)
{
    struct fixture f;
    int fds[CONTROL_MAX_WAITING];

    (void)state;
    begin(&f);
    for (int i = 0; i < CONTROL_MAX_WAITING; i++)
        fds[i] = client(&f, "flush\n");
    wait_for_flushes(&f, CONTROL_MAX_WAITING);
    assert_answer(&f, client(&f, "flush\n"),
                  "{\"flushed\":false,\"error\":\"too many requests wait "
                  "already\"}\n");
    assert_answer(&f, client(&f, "status\n"), "text\n");
    control_answer(f.owed[0], "done\n", 5);
    assert_answer(&f, fds[0], "done\n");
    f.n_flush = 0;
    fds[0] = client(&f, "flush\n"); /* there is room again */
    wait_for_flushes(&f, 1);
    for (int i = 0; i < CONTROL_MAX_WAITING; i++)
        close(fds[i]);
    wait_for_left(&f, CONTROL_MAX_WAITING);
    end(&f);
}

static void who_says_nothing_is_let_go(void **state)
{
    struct fixture f;

    (void)state;
    begin_idle(&f, IDLE_MS);
    assert_closed(&f, connect_client(&f));
    assert_closed(&f, client(&f, "stat"));
    end(&f);
}

static void who_does_not_read_is_let_go(void **state)
{
    struct fixture f;
    int fds[CONTROL_MAX_CLIENTS];
    int small = 1;

    (void)state;
    begin_idle(&f, IDLE_MS);
    f.n_status = LONG_ANSWER;
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        fds[i] = connect_client(&f);
        (void)setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        say(fds[i], "status\n");
    }
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
        turn(&f);
    f.n_status = 0;
    assert_answer(&f, client(&f, "version\n"), "{\"version\":\"7\"}\n");
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
        close(fds[i]);
    end(&f);
}

static void a_long_answer_arrives_whole(void **state)
{
    struct fixture f;
    char text[4096];
    size_t sum = 0;
    ssize_t n;
    int fd;

    (void)state;
    begin(&f);
    f.n_status = LONG_ANSWER;
    fd = client(&f, "status\n");
    while ((n = hear(&f, fd, text, sizeof(text))) > 0)
        sum += (size_t)n;
    assert_int_equal(n, 0);
    assert_int_equal(sum, LONG_ANSWER);
    close(fd);
    end(&f);
}

/* Silent, in the middle of a line, of an answer, answered just now, not yet
 * accepted, beyond the slots: in any turn. */
static void it_stops_with_any_clients(void **state)
{
    (void)state;
    for (int turns = 0; turns < 12; turns++) {
        int fds[CONTROL_MAX_CLIENTS + 8];
        int n = turns % 2 == 0 ? CONTROL_MAX_CLIENTS + 8 : 5;
        static const char *const words[] = {"", "sta", "status\n", "flush\n",
                                            "x\n"};
        struct fixture f;

        begin(&f);
        f.n_status = LONG_ANSWER;
        for (int i = 0; i < n; i++)
            fds[i] = client(&f, words[i % 5]);
        for (int i = 0; i < turns / 2; i++)
            turn(&f);
        if (turns % 3 == 0)
            close(fds[3]);
        for (int i = 0; i < f.n_flush; i++) {
            if (f.owed[i] != NULL)
                control_answer(f.owed[i], "over\n", 5);
        }
        end(&f);
        for (int i = 0; i < n; i++) {
            if (i != 3 || turns % 3 != 0)
                close(fds[i]);
        }
    }
}

static void a_socket_that_does_not_listen_is_refused(void **state)
{
    static const struct control_ops ops = {.status = on_status};
    struct control *c = NULL;
    uv_loop_t loop;
    int fds[2];

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_true(control_start(&c, &loop, fds[0], &ops, NULL) < 0);
    assert_null(c);
    assert_true(control_start(&c, &loop, -1, &ops, NULL) < 0);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_request_gets_its_answer),
        cmocka_unit_test(who_waits_for_the_end_gets_a_descriptor),
        cmocka_unit_test(a_request_may_come_in_pieces),
        cmocka_unit_test(what_is_no_request_ends_the_connection),
        cmocka_unit_test(a_flush_is_answered_when_it_is_over),
        cmocka_unit_test(who_leaves_during_a_flush_is_forgotten),
        cmocka_unit_test(more_clients_than_slots_wait_their_turn),
        cmocka_unit_test(an_upgrade_names_how_many_there_were),
        cmocka_unit_test(flushes_that_wait_leave_room_for_status),
        cmocka_unit_test(who_says_nothing_is_let_go),
        cmocka_unit_test(who_does_not_read_is_let_go),
        cmocka_unit_test(a_long_answer_arrives_whole),
        cmocka_unit_test(it_stops_with_any_clients),
        cmocka_unit_test(a_socket_that_does_not_listen_is_refused),
    };

    (void)sigaction(SIGPIPE, &ignore, NULL); /* in the agent it is blocked */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
