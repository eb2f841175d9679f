/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners of one configuration that stand in each other's way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/config_rig.h"

static void one_path_for_two_sockets_is_an_error(void **state)
{
    struct config_rig *s = *state;

    s->env[1] = "DD_DOGSTATSD_SOCKET=/x/s";
    s->env[2] = "DD_DOGSTATSD_STREAM_SOCKET=/x/s";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(&s->rep.errors,
                           "DD_DOGSTATSD_STREAM_SOCKET: "
                           "dogstatsd_stream_socket: /x/s is what "
                           "dogstatsd_socket listens on, too");
    assert_string_equal(s->cfg.dogstatsd_stream_socket, "");

    s->env[2] = "DD_CONTROL_SOCKET=/x/s";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(&s->rep.errors, "control_socket: /x/s is what "
                                           "dogstatsd_socket listens on");
    s->env[2] = "DD_DOGSTATSD_LISTEN=unixgram:///x/t unixstream:///x/s";
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
    config_rig_assert_line(&s->rep.errors, "dogstatsd_listen: /x/s is what "
                                           "dogstatsd_socket listens on");
    assert_int_equal(s->cfg.dogstatsd_sockets.n, 0);
}

static void a_folder_of_two_names_is_one(void **state)
{
    struct config_rig *s = *state;
    char folder[128], link[128], a[256], b[256];

    (void)snprintf(folder, sizeof(folder), "%s/run", s->root);
    (void)snprintf(link, sizeof(link), "%s/var-run", s->root);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(symlink(folder, link), 0);
    (void)snprintf(a, sizeof(a), "DD_DOGSTATSD_SOCKET=%s/s", folder);
    (void)snprintf(b, sizeof(b), "DD_DOGSTATSD_STREAM_SOCKET=%s/s", link);
    s->env[1] = a;
    s->env[2] = b;
    config_rig_load(s);
    assert_int_equal(s->rep.errors.n, 1);
}

static void one_port_twice_is_an_error(void **state)
{
    static const char *const clashes[] = {
        "DD_DOGSTATSD_SOCKETS=udp://127.0.0.1:8125",
        "DD_DOGSTATSD_SOCKETS=udp://localhost:8125",
        "DD_DOGSTATSD_SOCKETS=udp://0.0.0.0:8125",
        "DD_DOGSTATSD_SOCKETS=udp://[::]:8125",
        "DD_DOGSTATSD_SOCKETS=udp://[::1]:9 udp://[::1]:9",
    };
    struct config_rig *s = *state;

    for (size_t i = 0; i < sizeof(clashes) / sizeof(clashes[0]); i++) {
        s->env[1] = clashes[i];
        config_rig_load(s);
        assert_int_equal(s->rep.errors.n, 1);
        config_rig_assert_line(&s->rep.errors, "dogstatsd_sockets: ");
    }
    s->env[2] = "DD_DOGSTATSD_NON_LOCAL_TRAFFIC=true";
    s->env[1] = "DD_DOGSTATSD_SOCKETS=udp://10.0.0.1:8125";
    config_rig_load(s);
    config_rig_assert_line(&s->rep.errors,
                           "10.0.0.1:8125 is what dogstatsd_port listens on");
}

static void what_only_looks_alike_is_none(void **state)
{
    static const char *const good[] = {
        "DD_DOGSTATSD_SOCKETS=udp://127.0.0.1:8126 udp://[::1]:8125",
        "DD_DOGSTATSD_SOCKETS=udp://10.0.0.1:8125 udp://10.0.0.2:8125",
        "DD_DOGSTATSD_SOCKETS=unixgram://@a unixstream://@a",
        "DD_DOGSTATSD_SOCKETS=unixgram:///nowhere/a unixgram:///x/a",
    };
    struct config_rig *s = *state;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        s->env[1] = good[i];
        config_rig_load(s);
        config_rig_assert_clean(s);
    }
    s->env[1] = "DD_DOGSTATSD_SOCKETS=udp://127.0.0.1:8125";
    s->env[2] = "DD_DOGSTATSD_PORT=__random__";
    config_rig_load(s);
    config_rig_assert_clean(s);
    s->env[2] = "DD_USE_DOGSTATSD=false";
    config_rig_load(s);
    config_rig_assert_clean(s);
}

int main(void)
{
#define T(f)                                                                   \
    cmocka_unit_test_setup_teardown(f, config_rig_setup, config_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(one_path_for_two_sockets_is_an_error),
        T(a_folder_of_two_names_is_one),
        T(one_port_twice_is_an_error),
        T(what_only_looks_alike_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
