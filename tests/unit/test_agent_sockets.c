/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/config.h"
#include "agent/ingress.h"
#include "agent/sockets_private.h"

struct fixture {
    char folder[64];
    char path[96];
    struct config cfg;
    struct sockets s;
    unsigned n_failed;
};

static char *no_env[] = {NULL};
static const struct notify no_manager;

/* @sets: NULL-terminated key=value. */
static void load(struct fixture *f, const char *const *sets)
{
    struct config_sources src = {.sets = sets,
                                 .env = no_env,
                                 .root = f->folder};
    struct config_report rep = {0};

    while (sets[src.n_sets] != NULL)
        src.n_sets++;
    config_fini(&f->cfg);
    memset(&f->cfg, 0, sizeof(f->cfg));
    assert_int_equal(config_load(&f->cfg, &src, &rep), 0);
    config_report_fini(&rep);
}

static void open_with(struct fixture *f, const char *a, const char *b,
                      const char *c)
{
    const char *sets[] = {
        "control_socket=", "dogstatsd_socket=", a, b, c, NULL};

    load(f, sets);
    assert_int_equal(sockets_open(&f->s, &f->cfg, NULL, &f->n_failed), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct log_opts quiet = {.level = LOG_LEVEL_OFF};

    assert_non_null(f);
    (void)log_init(&quiet);
    (void)setenv("RETRIEVER_TEST", "1", 1);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/retriever-sock-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->path, sizeof(f->path), "%s/dsd.socket", f->folder);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    sockets_close(&f->s);
    config_fini(&f->cfg);
    (void)unlink(f->path);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

static char *setting(const char *key, const char *value)
{
    static char text[4][400];
    static unsigned at;
    char *t = text[at++ % 4];

    (void)snprintf(t, sizeof(text[0]), "%s=%s", key, value);
    return t;
}

static int connect_to(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    return fd;
}

static void a_random_port_is_one_that_was_bound(void **state)
{
    struct fixture *f = *state;

    open_with(f, "dogstatsd_port=__random__", NULL, NULL);
    assert_int_equal(f->s.n, 1);
    assert_true(f->s.entries[0].port > 0);
    assert_non_null(strstr(f->s.entries[0].name, "udp 127.0.0.1:"));
    assert_true(f->s.entries[0].granted_rcvbuf_bytes > 0);
}

static void port_zero_is_off(void **state)
{
    struct fixture *f = *state;

    open_with(f, "dogstatsd_port=0", NULL, NULL);
    assert_int_equal(f->s.n, 0);
    assert_int_equal(f->n_failed, 0);
}

static void a_taken_port_fails_and_the_others_come_up(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    char port[8];

    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    (void)snprintf(port, sizeof(port), "%u", ntohs(a.sin_port));
    open_with(f, setting("dogstatsd_port", port),
              setting("dogstatsd_stream_socket", f->path), NULL);
    assert_int_equal(f->n_failed, 1);
    assert_int_equal(f->s.n, 1);
    assert_int_equal(f->s.entries[0].kind, SOCKET_UNIXSTREAM);
    close(fd);
}

static void non_local_traffic_takes_both_families(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    char got[4];

    open_with(f, "dogstatsd_port=__random__",
              "dogstatsd_non_local_traffic=true", NULL);
    assert_int_equal(f->s.n, 1);
    a.sin_port = htons(f->s.entries[0].port);
    assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)),
                     1);
    assert_int_equal(recv(f->s.entries[0].fd, got, sizeof(got), 0), 1);
    close(fd);
}

static void a_path_is_made_with_its_mode_and_removed_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    open_with(f, "dogstatsd_port=0", setting("dogstatsd_socket", f->path),
              "dogstatsd_socket_mode=0722");
    assert_int_equal(f->s.n, 1);
    assert_int_equal(lstat(f->path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0722);
    sockets_close(&f->s);
    assert_int_equal(lstat(f->path, &st), -1);
}

static void a_stale_socket_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    close(fd); /* the path stays, nobody is behind it */
    open_with(f, "dogstatsd_port=0", setting("dogstatsd_socket", f->path),
              NULL);
    assert_int_equal(f->n_failed, 0);
    fd = connect_to(f->path, SOCK_DGRAM);
    assert_true(fd >= 0);
    close(fd);
}

static void a_served_socket_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    static const int types[] = {SOCK_DGRAM, SOCK_STREAM};

    for (unsigned i = 0; i < 2; i++) {
        int other = socket(AF_UNIX, types[i], 0);
        int fd;

        (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
        assert_int_equal(bind(other, (struct sockaddr *)&a, sizeof(a)), 0);
        if (types[i] == SOCK_STREAM)
            assert_int_equal(listen(other, 1), 0);
        open_with(f, "dogstatsd_port=0", setting("dogstatsd_socket", f->path),
                  NULL);
        assert_int_equal(f->n_failed, 1);
        assert_int_equal(f->s.n, 0);
        fd = connect_to(f->path, types[i]);
        assert_true(fd >= 0);
        close(fd);
        close(other);
        assert_int_equal(unlink(f->path), 0);
    }
}

static void what_is_no_socket_is_never_removed(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    int fd = open(f->path, O_CREAT | O_WRONLY, 0600);

    assert_true(fd >= 0);
    close(fd);
    open_with(f, "dogstatsd_port=0", setting("dogstatsd_socket", f->path),
              NULL);
    assert_int_equal(f->n_failed, 1);
    assert_int_equal(lstat(f->path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
}

static void a_path_that_another_took_over_is_left_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    int other;

    open_with(f, "dogstatsd_port=0", setting("dogstatsd_socket", f->path),
              NULL);
    assert_int_equal(f->s.n, 1);
    assert_int_equal(unlink(f->path), 0);
    other = socket(AF_UNIX, SOCK_DGRAM, 0);
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
    assert_int_equal(bind(other, (struct sockaddr *)&a, sizeof(a)), 0);
    sockets_close(&f->s);
    assert_int_equal(lstat(f->path, &st), 0);
    close(other);
}

static void an_explicit_path_without_folder_fails(void **state)
{
    struct fixture *f = *state;
    char path[160];

    (void)snprintf(path, sizeof(path), "%s/none/dsd.socket", f->folder);
    open_with(f, "dogstatsd_port=0", setting("dogstatsd_socket", path), NULL);
    assert_int_equal(f->n_failed, 1);
}

/* sockets_bind_unix(), with no descriptor left where @full. */
static int bind_unix(const struct fixture *f, const char *path, bool full)
{
    const struct unix_opts opts = {.path = path,
                                   .mode = 0600,
                                   .owner = "",
                                   .group = ""};
    struct socket_entry e = {.fd = -1, .kind = SOCKET_UNIXGRAM};
    struct rlimit had, low;
    int fd = dup(STDERR_FILENO);
    int rc;

    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &had), 0);
    low = had;
    if (full)
        low.rlim_cur = (rlim_t)fd; /* which would be the next */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    rc = sockets_bind_unix(&e, &f->cfg, &opts);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &had), 0);
    return rc;
}

/* The bind fails, and @part is in what is logged. */
static void assert_logged(const struct fixture *f, const char *path, bool full,
                          const char *part)
{
    const struct log_opts quiet = {.level = LOG_LEVEL_OFF};
    struct log_opts to_file = {.level = LOG_LEVEL_ERROR};
    char file[96];
    char text[2048] = "";
    FILE *log;

    (void)snprintf(file, sizeof(file), "%s/log", f->folder);
    to_file.file = file;
    assert_int_equal(log_init(&to_file), 0);
    log = fopen(file, "re");
    assert_non_null(log);
    assert_true(bind_unix(f, path, full) < 0);
    (void)fread(text, 1, sizeof(text) - 1, log);
    (void)fclose(log);
    (void)unlink(file);
    (void)log_init(&quiet);
    if (strstr(text, part) == NULL)
        fail_msg("%s: no \"%s\" in: %s", path, part, text);
}

static void a_failed_bind_says_what_to_do(void **state)
{
    struct fixture *f = *state;
    char path[100];
    char part[160];

    (void)snprintf(path, sizeof(path), "%s/no/dsd.socket", f->folder);
    (void)snprintf(part, sizeof(part),
                   "make the folder %s/no socket=", f->folder);
    assert_logged(f, path, false, part);
    (void)snprintf(path, sizeof(path), "%s/log/dsd.socket", f->folder);
    assert_logged(f, path, false, "choose another path");
    assert_logged(f, f->path, true, "no descriptor is left: raise the limit");
}

static void urls_open_all_kinds(void **state)
{
    struct fixture *f = *state;
    char urls[300];
    int fd;

    /* An address of its own: nobody else binds there. */
    (void)snprintf(urls, sizeof(urls),
                   "udp://127.77.%d.%d:18125 unixgram://@retriever-test-%d "
                   "unixstream://%s",
                   getpid() / 250 % 250, getpid() % 250 + 1, getpid(), f->path);
    open_with(f, "dogstatsd_port=0", setting("dogstatsd_sockets", urls), NULL);
    assert_int_equal(f->n_failed, 0);
    assert_int_equal(f->s.n, 3);
    assert_int_equal(f->s.entries[0].kind, SOCKET_UDP);
    assert_int_equal(f->s.entries[1].kind, SOCKET_UNIXGRAM);
    assert_string_equal(f->s.entries[1].path, "");
    assert_int_equal(f->s.entries[2].kind, SOCKET_UNIXSTREAM);
    fd = connect_to(f->path, SOCK_STREAM);
    assert_true(fd >= 0);
    close(fd);
}

static void a_connection_knows_its_listener(void **state)
{
    struct fixture *f = *state;
    int peer;
    int conn;

    open_with(f, "dogstatsd_port=__random__",
              setting("dogstatsd_stream_socket", f->path), NULL);
    assert_int_equal(f->s.n, 2);
    peer = connect_to(f->path, SOCK_STREAM);
    conn = accept(f->s.entries[1].fd, NULL, NULL);
    assert_true(conn >= 0);
    assert_true(sockets_is_conn_of(&f->s, 1, conn));
    assert_false(sockets_is_conn_of(&f->s, 0, conn));
    assert_false(sockets_is_conn_of(&f->s, 1, peer));
    assert_false(sockets_is_conn_of(&f->s, 1, f->s.entries[1].fd));
    assert_false(sockets_is_conn_of(&f->s, 1, -1));
    assert_false(sockets_is_conn_of(&f->s, 7, conn));
    close(peer);
    close(conn);
}

static void sockets_of_a_service_manager_are_adopted(void **state)
{
    struct fixture *f = *state;
    const char *sets[] = {"control_socket=", "dogstatsd_port=0",
                          setting("dogstatsd_socket", f->path), NULL};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int saved[2] = {fcntl(3, F_DUPFD_CLOEXEC, 100),
                    fcntl(4, F_DUPFD_CLOEXEC, 100)};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct stat st;
    char pid[16];

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    for (int i = 3; i <= 4; i++) { /* twice the same */
        if (fd != i)
            assert_int_equal(dup2(fd, i), i);
    }
    (void)snprintf(pid, sizeof(pid), "%d", getpid());
    (void)setenv("LISTEN_PID", pid, 1);
    (void)setenv("LISTEN_FDS", "2", 1);
    load(f, sets);
    assert_int_equal(sockets_open(&f->s, &f->cfg, &no_manager, &f->n_failed),
                     0);
    assert_null(getenv("LISTEN_PID")); /* not adopted a second time */
    assert_null(getenv("LISTEN_FDS"));
    assert_int_equal(f->n_failed, 0);
    assert_int_equal(f->s.n, 1); /* not bound a second time */
    assert_true(f->s.entries[0].shared_outside);
    assert_string_equal(f->s.entries[0].name, f->path);
    sockets_close(&f->s);
    assert_int_equal(lstat(f->path, &st), 0); /* the manager's, not ours */
    if (fd > 4)
        close(fd);
    for (int i = 0; i < 2; i++) {
        if (saved[i] < 0)
            continue;
        (void)dup2(saved[i], 3 + i);
        close(saved[i]);
    }
}

static void what_was_not_handed_to_us_is_not_adopted(void **state)
{
    struct fixture *f = *state;
    char us[16];
    const char *const cases[][2] = {
        {"1", "1"}, {us, "x"}, {us, ""}, {us, "-1"}, {us, "0"}, {"", "1"},
    };

    (void)snprintf(us, sizeof(us), "%d", getpid());
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *sets[] = {"control_socket=", "dogstatsd_port=0",
                              "dogstatsd_socket=", NULL};
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0); /* the lowest number */

        (void)setenv("LISTEN_PID", cases[i][0], 1);
        (void)setenv("LISTEN_FDS", cases[i][1], 1);
        load(f, sets);
        assert_int_equal(sockets_open(&f->s, &f->cfg, &no_manager,
                                      &f->n_failed),
                         0);
        assert_int_equal(f->s.n, 0);
        assert_int_equal(close(fd), 0);
    }
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
}

/* ---- IPv6 switched off ------------------------------------------------- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

/* A network of its own with loopback and no IPv6, as containers have it. */
static bool enter_network_without_v6(void)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd;
    bool ok;

    if (unshare(CLONE_NEWNET) != 0)
        return false;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ok = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
    if (fd >= 0)
        close(fd);
    return ok && write_text("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
}

enum { STOPPED, SKIPPED, NOT_SET_UP, NOT_STOPPED, STILL_TAKEN };

static int stop_without_v6(struct fixture *f)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (f->s.n != 1 || f->s.entries[0].port == 0)
        return NOT_SET_UP;
    to.sin_port = htons(f->s.entries[0].port);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        send(fd, "a:1|c", 5, 0) != 5)
        return NOT_SET_UP;
    if (ingress_udp_stop(f->s.entries[0].fd) != 0)
        return NOT_STOPPED;
    (void)send(fd, "b:1|c", 5, 0); /* tells the next one */
    if (send(fd, "c:1|c", 5, 0) == 5 || errno != ECONNREFUSED)
        return STILL_TAKEN;
    close(fd);
    return STOPPED;
}

static void a_socket_of_both_families_stops_where_ipv6_is_off(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (!enter_network_without_v6())
            _exit(SKIPPED);
        open_with(f, "dogstatsd_port=__random__",
                  "dogstatsd_non_local_traffic=true", NULL);
        _exit(stop_without_v6(f));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED) {
        print_message("skipped: no network namespace without IPv6 here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), STOPPED);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_random_port_is_one_that_was_bound),
        T(port_zero_is_off),
        T(a_taken_port_fails_and_the_others_come_up),
        T(non_local_traffic_takes_both_families),
        T(a_path_is_made_with_its_mode_and_removed_at_the_end),
        T(a_stale_socket_is_replaced),
        T(a_served_socket_is_left_alone),
        T(what_is_no_socket_is_never_removed),
        T(a_path_that_another_took_over_is_left_at_the_end),
        T(an_explicit_path_without_folder_fails),
        T(a_failed_bind_says_what_to_do),
        T(urls_open_all_kinds),
        T(a_connection_knows_its_listener),
        T(sockets_of_a_service_manager_are_adopted),
        T(what_was_not_handed_to_us_is_not_adopted),
        T(a_socket_of_both_families_stops_where_ipv6_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
