/* SPDX-License-Identifier: Apache-2.0 */
/* What configuration asks of the system: kinds of files, users, files of TLS. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/config_rig.h"

static void a_pipe_is_read_when_somebody_writes_to_it(void **state)
{
    struct config_rig *s = *state;
    char path[128];
    int ends[2];

    (void)snprintf(path, sizeof(path), "%s/fifo.yaml", s->root);
    assert_int_equal(mkfifo(path, 0600), 0);
    s->src.file = path;
    config_rig_load(s); /* nobody does: not a wait for ever */
    config_rig_assert_line(&s->rep.errors,
                           "cannot be read: is a pipe that nobody");
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], "site: b.example\n", 16), 16);
    (void)close(ends[1]);
    (void)snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    config_rig_load(s); /* as a shell's <(command) */
    config_rig_assert_clean(s);
    assert_string_equal(s->cfg.site, "b.example");
    (void)close(ends[0]);
}

static void what_is_no_file_is_named(void **state)
{
    struct config_rig *s = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/sock", s->root);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    s->src.file = a.sun_path;
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "cannot be read: is a socket");
    s->src.file = s->root;
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "cannot be read: is a folder");
    s->src.file = "/dev/zero";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "cannot be read: is a device");
    s->src.file = "/dev/null";
    config_rig_load(s);
    config_rig_assert_clean(s);
    (void)close(fd);
}

static void owners_of_sockets_must_exist(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_DOGSTATSD_SOCKET_OWNER=nosuch.user";
    s->env[2] = "DD_DOGSTATSD_SOCKET_GROUP=nosuch.group";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 2);
    config_rig_assert_line(&s->rep.errors,
                           "DD_DOGSTATSD_SOCKET_OWNER: dogstatsd_socket_owner: "
                           "nosuch.user names no user");
    config_rig_assert_line(&s->rep.errors, "nosuch.group names no group");
    assert_string_equal(s->cfg.dogstatsd_socket_owner, "");
    s->env[1] = "DD_DOGSTATSD_SOCKET_OWNER=root";
    s->env[2] = "DD_DOGSTATSD_SOCKET_GROUP=12345";
    config_rig_load(s);
    config_rig_assert_clean(s);
}

static void files_of_tls_are_looked_at(void **state)
{
    struct config_rig *s = *state;
    char ca[128], keys[128];

    (void)snprintf(ca, sizeof(ca), "DD_TLS_CA_FILE=%s/ca.pem", s->root);
    (void)snprintf(keys, sizeof(keys), "DD_SSLKEYLOGFILE=%s/no/keys", s->root);
    s->env[1] = ca;
    s->env[2] = keys;
    config_rig_put_text(s, "/ca.pem", "root:x:0:0\n");
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 2);
    config_rig_assert_line(&s->rep.errors,
                           "/ca.pem: holds no certificate in PEM form");
    config_rig_assert_line(&s->rep.errors, "/no/keys: cannot be written: No "
                                           "such file or directory");
    s->env[1] = "DD_TLS_CA_FILE=/nowhere/ca.pem";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors, "No such file or directory");

    s->env[1] = ca;
    config_rig_put_text(s, "/ca.pem", "# ours\n-----BEGIN CERTIFICATE-----\n");
    config_rig_put_text(s, "/no/other", "");
    config_rig_load(s);
    config_rig_assert_clean(s);
    config_rig_put_text(s, "/no/keys", "");
    config_rig_load(s);
    config_rig_assert_clean(s);
}

int main(void)
{
#define T(f)                                                                   \
    cmocka_unit_test_setup_teardown(f, config_rig_setup, config_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(a_pipe_is_read_when_somebody_writes_to_it),
        T(what_is_no_file_is_named),
        T(owners_of_sockets_must_exist),
        T(files_of_tls_are_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
