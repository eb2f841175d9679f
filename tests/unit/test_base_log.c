/* SPDX-License-Identifier: Apache-2.0 */
/* Each test gives the log a stderr of its own and reads what came out of it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/log.h"

#define KEY "0123456789abcdef0123456789abcdef"

struct capture {
    int real_stderr;
    int fd;             /* the end to read from */
    char text[1 << 18]; /* more than a pipe holds */
};

static void begin_on(struct capture *c, int fds[2], enum log_level level,
                     bool json)
{
    c->real_stderr = dup(STDERR_FILENO);
    assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
    close(fds[1]);
    c->fd = fds[0];
    assert_int_equal(fcntl(c->fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(log_init(&(struct log_opts){.level = level, .json = json}),
                     0);
}

static void begin(struct capture *c, enum log_level level, bool json)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    begin_on(c, fds, level, json);
}

static const char *take(struct capture *c)
{
    ssize_t n;
    size_t at = 0;

    while (at < sizeof(c->text) - 1 &&
           (n = read(c->fd, c->text + at, sizeof(c->text) - 1 - at)) > 0)
        at += (size_t)n;
    c->text[at] = '\0';
    return c->text;
}

static void end(struct capture *c)
{
    log_fini();
    dup2(c->real_stderr, STDERR_FILENO);
    close(c->real_stderr);
    close(c->fd);
}

static size_t n_lines(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++)
        n += *s == '\n';
    return n;
}

static void line_names_time_level_and_module(void **state)
{
    struct capture c;
    unsigned y, mo, d, h, mi, s, ms;
    int end_at = 0;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    log_warn("forwarder", "request failed status=%d", 503);
    log_debug("forwarder", "not shown");
    take(&c);
    assert_int_equal(sscanf(c.text, "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ%n", &y, &mo,
                            &d, &h, &mi, &s, &ms, &end_at),
                     7);
    assert_true(y >= 2024 && mo >= 1 && mo <= 12 && d >= 1 && d <= 31);
    assert_string_equal(c.text + end_at,
                        " WARN forwarder request failed status=503\n");
    end(&c);
}

static void json_line_has_the_same_keys(void **state)
{
    struct capture c;

    (void)state;
    begin(&c, LOG_LEVEL_DEBUG, true);
    log_debug("config", "bad byte \"%s\"", "\n\xff");
    take(&c);
    assert_non_null(strstr(c.text,
                           "\",\"level\":\"debug\",\"module\":\"config\","
                           "\"message\":\"bad byte \\\"\\n\xef\xbf\xbd"
                           "\\\"\"}\n"));
    assert_int_equal(n_lines(c.text), 1);
    end(&c);
}

static void secrets_never_appear(void **state)
{
    struct capture c;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    log_set_secret(KEY);
    log_set_secret("hunter2");
    log_info("x", "key=%s%s, password=%s", KEY, KEY, "hunter2");
    take(&c);
    assert_non_null(
        strstr(c.text, "key=*****bcdef*****bcdef, password=*****\n"));
    end(&c);
    begin(&c, LOG_LEVEL_INFO, true);
    log_set_secret("a\"quoted\"\nsecret");
    log_info("x", "%s", "a\"quoted\"\nsecret");
    take(&c);
    assert_non_null(strstr(c.text, "\"message\":\"*****ecret\""));
    end(&c);
}

static void secret_cut_by_the_line_limit_does_not_appear(void **state)
{
    char text[3 * LOG_LINE_BYTES];
    struct capture c;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    log_set_secret(KEY);
    /* Every offset of a key relative to the places where text is cut. */
    for (size_t pad = 0; pad < 33; pad++) {
        size_t at = pad;

        memset(text, 'x', pad);
        while (at + 32 < sizeof(text)) {
            memcpy(text + at, KEY, 32);
            at += 32;
        }
        text[at] = '\0';
        log_write(NULL, LOG_LEVEL_INFO, "x", "%s", text);
        take(&c);
        assert_int_equal(n_lines(c.text), 1);
        assert_null(strstr(c.text, "01234"));
        assert_true(strlen(c.text) <= LOG_LINE_BYTES);
    }
    end(&c);
}

static void record_stays_one_line(void **state)
{
    struct capture c;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    log_info("x", "%s", "one\ntwo\x1b[31m");
    take(&c);
    assert_int_equal(n_lines(c.text), 1);
    assert_non_null(strstr(c.text, "one\\x0atwo\\x1b[31m\n"));
    end(&c);
}

static void longest_json_line_is_still_one_whole_line(void **state)
{
    char text[3 * LOG_LINE_BYTES];
    struct capture c;

    (void)state;
    memset(text, 1, sizeof(text) - 1); /* each byte takes six when escaped */
    text[sizeof(text) - 1] = '\0';
    begin(&c, LOG_LEVEL_INFO, true);
    log_info("x", "%s", text);
    take(&c);
    assert_int_equal(n_lines(c.text), 1);
    assert_true(strlen(c.text) > 1000 && strlen(c.text) <= LOG_LINE_BYTES);
    assert_string_equal(c.text + strlen(c.text) - 3, "\"}\n");
    end(&c);
}

static void full_pipe_drops_counts_and_says_so(void **state)
{
    struct capture c;
    uint64_t before = log_n_dropped();
    char expected[80];
    size_t n_written;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    for (int i = 0; i < 3000; i++) /* more than a pipe holds; must return */
        log_write(NULL, LOG_LEVEL_INFO, "x", "line %d of many, many lines", i);
    take(&c);
    n_written = n_lines(c.text);
    assert_true(n_written > 100);
    assert_int_equal(log_n_dropped() - before, 3000 - n_written);
    log_info("x", "room again");
    take(&c);
    snprintf(expected, sizeof(expected), "room again log_lines_dropped=%zu\n",
             3000 - n_written);
    assert_non_null(strstr(c.text, expected));
    assert_int_equal(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
    end(&c);
}

static void full_socket_drops_and_closed_one_does_not_kill(void **state)
{
    struct capture c;
    uint64_t before = log_n_dropped();
    int fds[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    begin_on(&c, fds, LOG_LEVEL_INFO, false);
    for (int i = 0; i < 20000; i++)
        log_write(NULL, LOG_LEVEL_INFO, "x", "line %d of many, many lines", i);
    assert_true(log_n_dropped() > before);
    close(c.fd);
    before = log_n_dropped();
    log_info("x", "to nobody");
    assert_int_equal(log_n_dropped(), before + 1);
    end(&c);
}

static void chatty_site_is_limited_and_others_are_not(void **state)
{
    struct capture c;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    for (int i = 0; i < 1000; i++)
        log_info("x", "again");
    log_info("x", "another site");
    take(&c);
    /* The window may have changed once in between. */
    assert_true(n_lines(c.text) >= LOG_BURST_LINES + 1);
    assert_true(n_lines(c.text) <= 2 * LOG_BURST_LINES + 1);
    assert_non_null(strstr(c.text, "another site"));
    end(&c);
}

static void file_is_reopened_under_its_name(void **state)
{
    char dir[] = "/tmp/test_base_log.XXXXXX";
    char path[64];
    char moved[64];
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(moved, sizeof(moved), "%s/log.1", dir);
    assert_int_equal(log_init(&(struct log_opts){.level = LOG_LEVEL_INFO,
                                                 .file = path}),
                     0);
    log_info("x", "first");
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(log_reopen(), 0);
    log_info("x", "second file");
    assert_int_equal(stat(moved, &st), 0);
    assert_true(st.st_size > 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > 0);
    assert_int_equal(log_init(
                         &(struct log_opts){.level = LOG_LEVEL_INFO,
                                            .file = "/nonexistent/folder/log"}),
                     -ENOENT);
    log_fini();
    unlink(path);
    unlink(moved);
    rmdir(dir);
}

static void child_of_a_fork_can_log(void **state)
{
    struct capture c;
    pid_t pid;
    int status = -1;

    (void)state;
    begin(&c, LOG_LEVEL_INFO, false);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        log_info("child", "hello");
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    take(&c);
    assert_non_null(strstr(c.text, " INFO child hello\n"));
    end(&c);
}

static void levels_have_the_names_of_the_agent(void **state)
{
    enum log_level l = LOG_LEVEL_OFF;

    (void)state;
    assert_int_equal(log_parse_level("WARNING", &l), 0);
    assert_int_equal(l, LOG_LEVEL_WARN);
    assert_int_equal(log_parse_level("trace", &l), 0);
    assert_int_equal(l, LOG_LEVEL_DEBUG);
    assert_int_equal(log_parse_level("loud", &l), -EINVAL);
    assert_int_equal(l, LOG_LEVEL_DEBUG);
    assert_string_equal(log_level_name(LOG_LEVEL_ERROR), "error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_names_time_level_and_module),
        cmocka_unit_test(json_line_has_the_same_keys),
        cmocka_unit_test(secrets_never_appear),
        cmocka_unit_test(secret_cut_by_the_line_limit_does_not_appear),
        cmocka_unit_test(record_stays_one_line),
        cmocka_unit_test(longest_json_line_is_still_one_whole_line),
        cmocka_unit_test(full_pipe_drops_counts_and_says_so),
        cmocka_unit_test(full_socket_drops_and_closed_one_does_not_kill),
        cmocka_unit_test(chatty_site_is_limited_and_others_are_not),
        cmocka_unit_test(file_is_reopened_under_its_name),
        cmocka_unit_test(child_of_a_fork_can_log),
        cmocka_unit_test(levels_have_the_names_of_the_agent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
