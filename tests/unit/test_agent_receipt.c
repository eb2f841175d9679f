/* SPDX-License-Identifier: Apache-2.0 */
/* The receipt's way to stderr: whole, once, in time, whatever stderr is. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/ledger.h"
#include "agent/receipt.h"

#define MS UINT64_C(1000000)

static const struct ledger_facts facts = {.reason = "SIGTERM",
                                          .exit_status = 3};

static uint64_t now_ns(void)
{
    return clock_mono_ns(&clock_real);
}

/* Print @r with @fd as stderr; returns how long it took. SIGPIPE at its default:
 * it would end this program. */
static uint64_t print_to(struct receipt *r, int fd, int run_dir,
                         uint64_t budget_ns)
{
    int was = dup(STDERR_FILENO);
    uint64_t from_ns = now_ns();

    assert_true(was >= 0);
    (void)fflush(stderr);
    if (fd >= 0)
        assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    else
        close(STDERR_FILENO);
    receipt_print(r, run_dir, from_ns + budget_ns);
    assert_int_equal(dup2(was, STDERR_FILENO), STDERR_FILENO);
    close(was);
    return now_ns() - from_ns;
}

/* Compose one and print it. */
static uint64_t emit_to(int fd, int run_dir, uint64_t budget_ns)
{
    struct receipt *r = calloc(1, sizeof(*r));
    const struct ledger l = {0};
    uint64_t ns;

    assert_non_null(r);
    receipt_compose(r, &l, &facts);
    assert_true(receipt_is_ready(r));
    assert_int_equal(r->exit_status, 3);
    ns = print_to(r, fd, run_dir, budget_ns);
    assert_int_equal(r->state, RECEIPT_PRINTED);
    free(r);
    return ns;
}

static void assert_is_receipt(const char *text, size_t n)
{
    assert_true(n > 100);
    assert_memory_equal(text, "{\"retriever\":", 13);
    assert_memory_equal(text + n - 3, "}}\n", 3);
}

static void fill(int fd)
{
    char bytes[4096] = {0};
    int flags = fcntl(fd, F_GETFL);

    assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(fd, bytes, sizeof(bytes)) > 0)
        ;
    while (write(fd, bytes, 1) > 0)
        ;
    assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
}

static void a_pipe_gets_the_whole_line(void **state)
{
    char text[8192];
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    emit_to(p[1], -1, 5000 * MS);
    assert_is_receipt(text, (size_t)read(p[0], text, sizeof(text)));
    assert_int_equal(fcntl(p[1], F_GETFL) & O_NONBLOCK, 0); /* not ours */
    close(p[0]);
    close(p[1]);
}

static void a_closed_pipe_costs_nothing(void **state)
{
    sigset_t pending;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    close(p[0]);
    assert_true(emit_to(p[1], -1, 60000 * MS) < 10000 * MS);
    assert_int_equal(sigpending(&pending), 0);
    assert_int_equal(sigismember(&pending, SIGPIPE), 0);
    close(p[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    close(p[0]);
    assert_true(emit_to(p[1], -1, 60000 * MS) < 10000 * MS);
    close(p[1]);
    assert_true(emit_to(-1, -1, 60000 * MS) < 10000 * MS);
}

static void a_full_pipe_is_waited_for_until_the_deadline(void **state)
{
    uint64_t ns;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    fill(p[1]);
    ns = emit_to(p[1], -1, 150 * MS);
    assert_in_range(ns, 150 * MS, 5000 * MS);
    assert_true(emit_to(p[1], -1, 0) < 5000 * MS); /* over already */
    close(p[0]);
    close(p[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    fill(p[1]);
    ns = emit_to(p[1], -1, 150 * MS);
    assert_in_range(ns, 150 * MS, 5000 * MS);
    close(p[0]);
    close(p[1]);
}

struct slow_reader {
    int fd;
    char text[256 * 1024];
    size_t n;
};

static void *read_slowly(void *arg)
{
    struct slow_reader *r = arg;
    ssize_t n;

    while ((n = read(r->fd, r->text + r->n, 97)) > 0)
        r->n += (size_t)n;
    return NULL;
}

static void a_slow_reader_of_a_full_pipe_gets_all(void **state)
{
    struct slow_reader *r = calloc(1, sizeof(*r));
    pthread_t thread;
    char *line;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    fill(p[1]);
    r->fd = p[0];
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, r), 0);
    emit_to(p[1], -1, 20000 * MS);
    close(p[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    line = memchr(r->text, '{', r->n);
    assert_non_null(line);
    assert_is_receipt(line, r->n - (size_t)(line - r->text));
    close(p[0]);
    free(r);
}

static void a_file_and_run_path_get_the_same_line(void **state)
{
    char dir[] = "/tmp/retriever-receipt-XXXXXX";
    char a[8192];
    char b[8192];
    struct stat st;
    int run_dir, fd, copy;
    ssize_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    run_dir = open(dir, O_RDONLY | O_DIRECTORY);
    fd = openat(run_dir, "stderr", O_RDWR | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "before\n", 7), 7);
    emit_to(fd, run_dir, 5000 * MS);
    n = pread(fd, a, sizeof(a), 7);
    assert_is_receipt(a, (size_t)n);
    copy = openat(run_dir, "receipt.json", O_RDONLY);
    assert_true(copy >= 0);
    assert_int_equal(fstat(copy, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(read(copy, b, sizeof(b)), n);
    assert_memory_equal(a, b, (size_t)n);
    assert_int_equal(faccessat(run_dir, "receipt.json.new", F_OK, 0), -1);
    close(copy);
    close(fd);
    assert_int_equal(unlinkat(run_dir, "receipt.json", 0), 0);
    assert_int_equal(unlinkat(run_dir, "stderr", 0), 0);
    close(run_dir);
    assert_int_equal(rmdir(dir), 0);
}

/* Who composes may die at any byte, and another composes again. */
static void what_a_dead_composer_left_is_composed_anew_and_printed_once(
    void **state)
{
    struct receipt *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct ledger l = {.received = 7};
    char text[8192];
    ssize_t n;
    int p[2];

    (void)state;
    assert_true(r != MAP_FAILED);
    assert_int_equal(pipe(p), 0);
    memset(r->text, 'x', sizeof(r->text));
    r->n_bytes = 100;
    print_to(r, p[1], -1, 0); /* not ready: nothing */
    assert_false(receipt_is_ready(r));
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            l.received += (uint64_t)i; /* the first one counts */
            receipt_compose(r, &l, &facts);
            (void)raise(SIGKILL);
        }
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
    print_to(r, p[1], -1, 5000 * MS);
    print_to(r, p[1], -1, 5000 * MS);
    n = read(p[0], text, sizeof(text) - 1);
    assert_is_receipt(text, (size_t)n);
    text[n] = '\0';
    assert_non_null(strstr(text, "\"samples\":7,"));
    assert_null(strstr(text, "xx"));
    assert_ptr_equal(memchr(text, '\n', (size_t)n), text + n - 1);
    close(p[0]);
    close(p[1]);
    assert_int_equal(munmap(r, sizeof(*r)), 0);
}

static void a_length_that_was_scribbled_over_is_not_trusted(void **state)
{
    struct receipt *r = calloc(1, sizeof(*r));
    char text[8192];
    ssize_t n;
    int p[2];

    (void)state;
    assert_non_null(r);
    assert_int_equal(pipe(p), 0);
    r->n_bytes = UINT32_MAX;
    r->state = RECEIPT_READY;
    print_to(r, p[1], -1, 5000 * MS);
    assert_int_equal(r->state, RECEIPT_PRINTED);
    n = read(p[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "could not be composed"));
    close(p[0]);
    close(p[1]);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_gets_the_whole_line),
        cmocka_unit_test(a_closed_pipe_costs_nothing),
        cmocka_unit_test(a_full_pipe_is_waited_for_until_the_deadline),
        cmocka_unit_test(a_slow_reader_of_a_full_pipe_gets_all),
        cmocka_unit_test(a_file_and_run_path_get_the_same_line),
        cmocka_unit_test(
            what_a_dead_composer_left_is_composed_anew_and_printed_once),
        cmocka_unit_test(a_length_that_was_scribbled_over_is_not_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
