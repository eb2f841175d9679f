/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager is told: the bytes, the descriptors, and no waiting. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/notify.h"

struct fixture {
    char folder[64];
    char path[96];
    int manager;
};

static int listen_at(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(a.sun_path, name, n);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&a,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                                      n + (name[0] != '@'))),
                     0);
    return fd;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/retriever-tell-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->path, sizeof(f->path), "%s/notify", f->folder);
    f->manager = listen_at(f->path);
    (void)setenv("NOTIFY_SOCKET", f->path, 1);
    (void)setenv("FDSTORE", "7", 1);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("FDSTORE");
    close(f->manager);
    (void)unlink(f->path);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

/* One message; returns how many descriptors came with it, which are stored. */
static unsigned get(int manager, const char *expected, int *fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(NOTIFY_MAX_FDS * sizeof(int))];
    } control;
    char text[1024];
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(manager, &msg, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c;
    size_t bytes;

    assert_true(n > 0);
    assert_int_equal(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC), 0);
    text[n] = '\0';
    assert_string_equal(text, expected);
    c = CMSG_FIRSTHDR(&msg);
    if (c == NULL)
        return 0;
    assert_int_equal(c->cmsg_type, SCM_RIGHTS);
    bytes = c->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(c), bytes);
    return (unsigned)(bytes / sizeof(int));
}

static void the_words_are_those_of_the_protocol(void **state)
{
    struct fixture *f = *state;
    struct notify n;

    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(n.store_max, 7);
    assert_int_equal(notify_ready(&n, "Serving 3 sockets"), 0);
    assert_int_equal(get(f->manager, "READY=1\nSTATUS=Serving 3 sockets", NULL),
                     0);
    assert_int_equal(notify_stopping(&n, "Stopping"), 0);
    assert_int_equal(get(f->manager, "STOPPING=1\nSTATUS=Stopping", NULL), 0);
    assert_int_equal(notify_unstore(&n, "a name"), 0);
    assert_int_equal(get(f->manager, "FDSTOREREMOVE=1\nFDNAME=a name", NULL),
                     0);
    assert_int_equal(notify_unstore(&n, "a\nREADY=1"), -EINVAL);
}

static void descriptors_travel_with_their_name(void **state)
{
    struct fixture *f = *state;
    const char *expected = "FDSTORE=1\nFDNAME=x\nFDPOLL=0";
    int got[NOTIFY_MAX_FDS];
    int many[NOTIFY_MAX_FDS];
    struct stat a, b;
    struct notify n;
    int p[2];

    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(pipe(p), 0);
    assert_int_equal(notify_store(&n, "x", p, 2), 0);
    close(p[0]); /* the message itself holds it */
    assert_int_equal(get(f->manager, expected, got), 2);
    assert_int_equal(fstat(got[1], &a), 0);
    assert_int_equal(fstat(p[1], &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    for (int i = 0; i < NOTIFY_MAX_FDS; i++)
        many[i] = p[1];
    assert_int_equal(notify_store(&n, "x", many, NOTIFY_MAX_FDS), 0);
    close(got[0]);
    close(got[1]);
    assert_int_equal(get(f->manager, expected, got), NOTIFY_MAX_FDS);
    for (int i = 0; i < NOTIFY_MAX_FDS; i++)
        close(got[i]);
    close(p[1]);
}

static void an_abstract_address_is_reached(void **state)
{
    struct fixture *f = *state;
    char name[128];
    struct notify n;
    int manager;

    (void)snprintf(name, sizeof(name), "@%s", f->path);
    manager = listen_at(name);
    (void)setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(notify_ready(&n, ""), 0);
    assert_int_equal(get(manager, "READY=1\nSTATUS=", NULL), 0);
    close(manager);
}

static void nobody_is_told_where_there_is_no_manager(void **state)
{
    static const char *const bad[] = {"vsock:2:1", "x", "@", "/"};
    char text[200];
    struct notify n;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void)setenv("NOTIFY_SOCKET", bad[i], 1);
        assert_int_equal(notify_init(&n), -EINVAL);
        assert_int_equal(notify_ready(&n, "x"), 0);
        assert_int_equal(notify_store(&n, "x", &(int){0}, 1), -ENOTSUP);
    }
    memset(text, '/', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)setenv("NOTIFY_SOCKET", text, 1);
    assert_int_equal(notify_init(&n), -EINVAL);
    (void)setenv("NOTIFY_SOCKET", "", 1);
    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(notify_stopping(&n, "x"), 0);
    (void)setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(notify_ready(&n, "x"), -ENOENT);
}

static void a_store_is_a_number_above_zero(void **state)
{
    static const struct {
        const char *text;
        uint32_t max;
    } cases[] = {{"0", 0},
                 {"-1", 0},
                 {"x", 0},
                 {"", 0},
                 {"3x", 0},
                 {"12", 12},
                 {"99999999999", UINT32_MAX}};
    struct notify n;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)setenv("FDSTORE", cases[i].text, 1);
        assert_int_equal(notify_init(&n), 0);
        assert_int_equal(n.store_max, cases[i].max);
    }
    (void)unsetenv("FDSTORE");
    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(n.store_max, 0);
    assert_int_equal(notify_store(&n, "x", &(int){0}, 1), -ENOTSUP);
}

static void a_manager_that_does_not_read_is_not_waited_for(void **state)
{
    uint64_t from_ns, took_ns;
    struct notify n;

    (void)state;
    assert_int_equal(notify_init(&n), 0);
    while (notify_stopping(&n, "x") == 0)
        ; /* until its queue is full: this one never waits */
    from_ns = clock_mono_ns(&clock_real);
    assert_int_equal(notify_ready(&n, "x"), -EAGAIN);
    took_ns = clock_mono_ns(&clock_real) - from_ns;
    assert_in_range(took_ns, NOTIFY_WAIT_MS * UINT64_C(900000),
                    NOTIFY_WAIT_MS * UINT64_C(20000000));
}

static void *obey_one(void *arg)
{
    int fds[NOTIFY_MAX_FDS];
    int manager = *(int *)arg;
    struct pollfd pfd = {.fd = manager, .events = POLLIN};

    assert_int_equal(poll(&pfd, 1, 20000), 1);
    assert_int_equal(get(manager, "BARRIER=1", fds), 1);
    close(fds[0]);
    return NULL;
}

static void a_barrier_ends_when_the_manager_came_to_it(void **state)
{
    struct fixture *f = *state;
    int fds[NOTIFY_MAX_FDS];
    pthread_t thread;
    struct notify n;

    assert_int_equal(notify_init(&n), 0);
    assert_int_equal(notify_barrier(&n), -ETIMEDOUT);
    assert_int_equal(get(f->manager, "BARRIER=1", fds), 1);
    close(fds[0]);
    assert_int_equal(pthread_create(&thread, NULL, obey_one, &f->manager), 0);
    assert_int_equal(notify_barrier(&n), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_words_are_those_of_the_protocol,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(descriptors_travel_with_their_name,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_abstract_address_is_reached, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            nobody_is_told_where_there_is_no_manager, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_store_is_a_number_above_zero, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_manager_that_does_not_read_is_not_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_barrier_ends_when_the_manager_came_to_it, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
