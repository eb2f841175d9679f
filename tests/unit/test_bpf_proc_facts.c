/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/proc_facts.h"

#define ALL (PROC_ENVIRON | PROC_EXE | PROC_ARGV0 | PROC_CGROUP)

/* A /proc with process 12 in it. */
struct rig {
    char dir[64];
    struct proc_facts *p;
};

static void put(const struct rig *r, const char *name, const char *bytes,
                size_t n)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/12/%s", r->dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static int make(void **state)
{
    static struct rig r;
    char path[128];

    (void)snprintf(r.dir, sizeof(r.dir), "/tmp/proc_facts.XXXXXX");
    assert_non_null(mkdtemp(r.dir));
    (void)snprintf(path, sizeof(path), "%s/12", r.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(proc_facts_create(&r.p, r.dir), 0);
    *state = &r;
    return 0;
}

static int drop(void **state)
{
    static const char *const names[] = {"comm",    "exe",  "cmdline", "cgroup",
                                        "environ", "stat", ""};
    struct rig *r = *state;
    char path[128];

    proc_facts_close(r->p);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/12/%s", r->dir, names[i]);
        (void)(names[i][0] != '\0' ? unlink(path) : rmdir(path));
    }
    return rmdir(r->dir);
}

static void what_is_asked_for_is_read(void **state)
{
    struct rig *r = *state;
    static const char cgroup[] = "5:cpu:/\n4:memory:/docker/abc\n0::/\n";
    struct family_facts f;
    char path[128];

    put(r, "comm", "my job\n", 7);
    put(r, "cmdline", "/opt/run\0-x\0", 12);
    put(r, "environ", "A=1\0B=2\0", 8);
    put(r, "cgroup", cgroup, sizeof(cgroup) - 1);
    (void)snprintf(path, sizeof(path), "%s/12/exe", r->dir);
    assert_int_equal(symlink("/usr/bin/job", path), 0);
    f = proc_facts_read(r->p, 12, NULL, ALL);
    assert_string_equal(f.comm, "my job");
    assert_string_equal(f.exe, "/usr/bin/job");
    assert_string_equal(f.argv0, "/opt/run");
    assert_string_equal(f.cgroup, "/docker/abc");
    assert_int_equal(f.n_environ, 8);
    assert_memory_equal(f.environ, "A=1\0B=2", 8);
    assert_int_equal(f.pid, 12);
    f = proc_facts_read(r->p, 12, "given", 0);
    assert_string_equal(f.comm, "given");
    assert_string_equal(f.exe, "");
    assert_int_equal(f.n_environ, 0);
}

static void what_cannot_be_read_is_empty_and_counted(void **state)
{
    struct rig *r = *state;
    struct family_facts f = proc_facts_read(r->p, 13, NULL, ALL);
    char path[128];

    assert_string_equal(f.comm, "");
    assert_string_equal(f.exe, "");
    assert_string_equal(f.cgroup, "");
    assert_int_equal(f.n_environ, 0);
    assert_int_equal(r->p->n_unreadable, 0); /* there is no such process */
    (void)snprintf(path, sizeof(path), "%s/12/environ", r->dir);
    assert_int_equal(symlink("environ", path), 0); /* for root, too */
    f = proc_facts_read(r->p, 12, "x", PROC_ENVIRON);
    assert_int_equal(f.n_environ, 0);
    assert_int_equal(r->p->n_unreadable, 1);
    (void)proc_facts_read(r->p, 0, "x", PROC_ENVIRON);
    assert_int_equal(r->p->n_unreadable, 2);
    (void)proc_facts_read(r->p, 12, "x", PROC_EXE);
    assert_int_equal(r->p->n_unreadable, 2);
}

static void a_long_environment_is_cut(void **state)
{
    struct rig *r = *state;
    size_t n = 2 * (size_t)PROC_FACTS_BYTES;
    char *big = malloc(n);

    assert_non_null(big);
    memset(big, 'x', n);
    put(r, "environ", big, n);
    put(r, "cgroup", big, n);
    assert_int_equal(proc_facts_read(r->p, 12, "x", PROC_ENVIRON).n_environ,
                     PROC_FACTS_BYTES - 1);
    assert_string_equal(proc_facts_read(r->p, 12, "x", PROC_CGROUP).cgroup, "");
    free(big);
}

static void a_parent_stands_behind_any_name(void **state)
{
    static const struct {
        const char *text;
        uint32_t ppid;
    } rows[] = {
        {"12 (sh) S 7 12 12", 7},
        {"12 (a) R 1 (b) S 9 1 1", 9},
        {"12 (x) S", 0},
        {"12 (x)", 0},
        {"", 0},
        {"12 (x) S 99999999999 1", 0},
        {"12 (x) S -1 1", 0},
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put(r, "stat", rows[i].text, strlen(rows[i].text));
        assert_int_equal(proc_facts_parent(r->p, 12), rows[i].ppid);
    }
    assert_int_equal(proc_facts_parent(r->p, 13), 0);
}

static void only_what_rules_ask_for_is_needed(void **state)
{
    struct family_rule r[2] = {{.comm = "x", .pid = 1}, {.exe = "y"}};

    (void)state;
    assert_int_equal(proc_facts_needs(r, 1), 0);
    assert_int_equal(proc_facts_needs(r, 2), PROC_EXE);
    assert_int_equal(proc_facts_needs(&family_rule_default, 1), PROC_ENVIRON);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make, drop)
    const struct CMUnitTest tests[] = {
        TEST(what_is_asked_for_is_read),
        TEST(what_cannot_be_read_is_empty_and_counted),
        TEST(a_long_environment_is_cut),
        TEST(a_parent_stands_behind_any_name),
        TEST(only_what_rules_ask_for_is_needed),
    };

    return cmocka_run_group_tests_name("bpf_proc_facts", tests, NULL, NULL);
}
