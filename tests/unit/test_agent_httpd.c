/* SPDX-License-Identifier: Apache-2.0 */
/* The module as the agent loads it, and its health port over a real socket. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/httpd.h"

static const struct httpd_module *module;
static atomic_int healthy;

static int load(void **state)
{
    char why[256] = "";
    int fd = open(HTTPD_MODULE_PATH, O_RDONLY | O_CLOEXEC);
    int rc;

    (void)state;
    if (fd < 0)
        return -1;
    rc = httpd_module_load(fd, &module, why, sizeof(why));
    (void)close(fd);
    if (rc != 0)
        (void)fprintf(stderr, "%s\n", why);
    return rc;
}

static int is_healthy(void *arg)
{
    assert_ptr_equal(arg, &healthy);
    return atomic_load(&healthy);
}

/* A port that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t n = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    (void)close(fd);
    return ntohs(sa.sin_port);
}

/* The whole answer to @request; "" when nobody listens. */
static void ask(uint16_t port, const char *request, char *answer, size_t max)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t n = 0;
    ssize_t got = 0;

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 &&
        write(fd, request, strlen(request)) == (ssize_t)strlen(request)) {
        while (n < max - 1 && (got = read(fd, answer + n, max - 1 - n)) > 0)
            n += (size_t)got;
    }
    answer[n] = '\0';
    (void)close(fd);
}

static unsigned n_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

#define GET "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void health_says_200_or_500_and_nothing_else(void **state)
{
    unsigned before = n_descriptors();
    uint16_t port = free_port();
    struct httpd_health *h = NULL;
    char text[1000];

    (void)state;
    assert_int_equal(module->health_start(&h, port, is_healthy, &healthy), 0);
    atomic_store(&healthy, 1);
    ask(port, GET, text, sizeof(text));
    assert_memory_equal(text, "HTTP/1.1 200 ", 13);
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    atomic_store(&healthy, 0);
    ask(port, GET, text, sizeof(text));
    assert_memory_equal(text, "HTTP/1.1 500 ", 13);
    ask(port, "nonsense\r\n\r\n", text, sizeof(text));
    module->health_stop(h);
    ask(port, GET, text, sizeof(text));
    assert_string_equal(text, "");
    assert_int_equal(n_descriptors(), before);
}

static void health_refuses_a_taken_port(void **state)
{
    uint16_t port = free_port();
    struct httpd_health *h = NULL;
    struct httpd_health *second = NULL;

    (void)state;
    assert_int_equal(module->health_start(&h, port, is_healthy, &healthy), 0);
    assert_int_equal(module->health_start(&second, port, is_healthy, &healthy),
                     -EADDRINUSE);
    assert_null(second);
    module->health_stop(h);
    module->health_stop(NULL);
}

static void what_is_no_module_is_refused(void **state)
{
    const struct httpd_module *m = NULL;
    char why[256] = "";
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_int_equal(httpd_module_load(fd, &m, why, sizeof(why)), -ENOEXEC);
    assert_true(why[0] != '\0');
    assert_null(m);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health_says_200_or_500_and_nothing_else),
        cmocka_unit_test(health_refuses_a_taken_port),
        cmocka_unit_test(what_is_no_module_is_refused),
    };

    return cmocka_run_group_tests(tests, load, NULL);
}
