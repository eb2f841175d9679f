/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/family_rule.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void a_line_is_a_rule(void **state)
{
    static const char *const lines[] = {
        "name=agent;env=AGENT_MODE=1 sub=claude* sub=codex;skill=skill-*",
        "  name=batch\tcomm=\"my job\" exe=/opt/*/run argv0=*run pid=12 "
        "cgroup=*/docker/* by=container ",
    };
    struct family_rule r[2];
    char error[200] = "";

    (void)state;
    assert_int_equal(family_rule_parse_all(r, N(r), lines, 2, error,
                                           sizeof(error)),
                     2);
    assert_string_equal(error, "");
    assert_string_equal(r[0].name, "agent");
    assert_string_equal(r[0].env, "AGENT_MODE=1");
    assert_int_equal(r[0].n_sub, 2);
    assert_string_equal(r[0].sub[1], "codex");
    assert_int_equal(r[0].n_skill, 1);
    assert_false(r[0].by_container);
    assert_string_equal(r[1].comm, "my job");
    assert_string_equal(r[1].exe, "/opt/*/run");
    assert_string_equal(r[1].argv0, "*run");
    assert_string_equal(r[1].cgroup, "*/docker/*");
    assert_int_equal(r[1].pid, 12);
    assert_true(r[1].by_container);
}

static void an_error_names_index_and_key(void **state)
{
    static const struct {
        const char *line, *error;
    } rows[] = {
        {"", "[1].name: is missing"},
        {"comm=x", "[1].name: is missing"},
        {"name=x",
         "[1]: fits every process; give env, comm, exe, argv0, cgroup or pid"},
        {"name= comm=x", "[1].name: is empty"},
        {"name=first comm=x", "[1].name: is that of another (\"first\")"},
        {"name=a name=b comm=x", "[1].name: is given twice (\"b\")"},
        {"name=a env=FOO", "[1].env: is NAME=value (\"FOO\")"},
        {"name=a env==1", "[1].env: is NAME=value (\"=1\")"},
        {"name=a comm=[ab", "[1].comm: is a pattern with [ and no ] (\"[ab\")"},
        {"name=a comm=[]", "[1].comm: is a pattern with [ and no ] (\"[]\")"},
        {"name=a exe=a\\", "[1].exe: is a pattern that ends in \\ (\"a\\\")"},
        {"name=a sub=[ comm=x",
         "[1].sub: is a pattern with [ and no ] (\"[\")"},
        {"name=a pid=0", "[1].pid: is a process id (\"0\")"},
        {"name=a pid=1x", "[1].pid: is a process id (\"1x\")"},
        {"name=a comm=x by=me", "[1].by: is process or container (\"me\")"},
        {"name=a comm=\"x", "[1].comm: has a quote without its end"},
        {"name=a comm", "[1]: words are key=value (\"comm\")"},
        {"name=a =x", "[1]: words are key=value (\"=x\")"},
        {"name=a colour=x",
         "[1].colour: is unknown; there are name, env, comm, exe, argv0, "
         "cgroup, pid, sub, skill and by"},
        {"name=a comm=x sub=1 sub=2 sub=3 sub=4 sub=5 sub=6 sub=7 sub=8 sub=9",
         "[1].sub: is given more than 8 times (\"9\")"},
        {"name=a "
         "comm=0123456789012345678901234567890123456789012345678901234567"
         "890123",
         "[1].comm: is longer than 63 bytes (\"01234567890123456789012345678901"
         "23456789012345678901234567890123\")"},
    };

    (void)state;
    for (size_t i = 0; i < N(rows); i++) {
        const char *lines[] = {"name=first comm=x", rows[i].line};
        struct family_rule r[2];
        char error[300] = "";
        const char *key = "ebpf.activity.families";

        assert_int_equal(family_rule_parse_all(r, N(r), lines, 2, error,
                                               sizeof(error)),
                         -22);
        assert_int_equal(strncmp(error, key, strlen(key)), 0);
        assert_string_equal(error + strlen(key), rows[i].error);
    }
}

static void there_are_at_most_so_many(void **state)
{
    const char *lines[] = {"name=a comm=x", "name=b comm=x"};
    struct family_rule r[1];
    char error[100];

    (void)state;
    assert_int_equal(family_rule_parse_all(r, 1, lines, 2, error,
                                           sizeof(error)),
                     -22);
    assert_string_equal(error, "ebpf.activity.families: there are more than 1");
}

/* Whatever a file contains: an error or a rule, within the bounds. */
static void any_bytes_are_parsed(void **state)
{
    static const char alphabet[] = "name=exe\"comm sub[]\\*\t= pid1";
    uint32_t seed = 1;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        char line[300], error[64];
        const char *lines[] = {line};
        struct family_rule r;
        size_t n = (seed >> 8) % (sizeof(line) - 1);

        for (size_t k = 0; k < n; k++) {
            seed = seed * 1664525u + 1013904223u;
            line[k] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
        }
        line[n] = '\0';
        (void)family_rule_parse_all(&r, 1, lines, 1, error, sizeof(error));
        assert_true(strlen(error) < sizeof(error));
    }
}

static struct family_facts facts(void)
{
    static const char environ[] = "PATH=/bin\0AGENT_MODE=1\0LAST=x";

    return (struct family_facts){.comm = "node",
                                 .exe = "/usr/bin/node",
                                 .argv0 = "/opt/claude",
                                 .cgroup = "/docker/abc",
                                 .environ = environ,
                                 .n_environ = sizeof(environ) - 1,
                                 .pid = 12};
}

static bool matches(const char *line)
{
    struct family_rule r;
    struct family_facts f = facts();
    char error[200];

    assert_int_equal(family_rule_parse_all(&r, 1, &line, 1, error,
                                           sizeof(error)),
                     1);
    return family_rule_matches(&r, &f);
}

static void all_that_is_given_must_fit(void **state)
{
    (void)state;
    assert_true(matches("name=a comm=n?de"));
    assert_true(matches("name=a exe=/usr/*"));
    assert_true(matches("name=a argv0=*claude"));
    assert_true(matches("name=a cgroup=/docker/*"));
    assert_true(matches("name=a pid=12"));
    assert_false(matches("name=a comm=nod"));
    assert_false(matches("name=a pid=1"));
    assert_false(matches("name=a pid=12 comm=bash"));
    assert_true(matches("name=a pid=12 comm=[mn]ode env=AGENT_MODE=1"));
}

static void a_variable_is_matched_as_a_whole(void **state)
{
    struct family_facts none = facts();

    (void)state;
    assert_true(matches("name=a env=AGENT_MODE=1"));
    assert_true(matches("name=a env=PATH=/bin"));
    assert_true(matches("name=a env=LAST=x")); /* no NUL behind it */
    assert_false(matches("name=a env=AGENT_MODE=11"));
    assert_false(matches("name=a env=AGENT_MODE="));
    assert_false(matches("name=a env=MODE=1"));
    assert_false(matches("name=a env=LAST=xy"));
    none.n_environ = 0;
    assert_false(family_rule_matches(&family_rule_default, &none));
}

static void the_first_that_fits_counts(void **state)
{
    static const char *const lines[] = {"name=a comm=x", "name=b comm=no*",
                                        "name=c comm=node"};
    struct family_rule r[3];
    struct family_facts f = facts();
    char error[100];

    (void)state;
    assert_int_equal(family_rule_parse_all(r, 3, lines, 3, error,
                                           sizeof(error)),
                     3);
    assert_ptr_equal(family_rule_first(r, 3, &f), &r[1]);
    assert_null(family_rule_first(r, 1, &f));
    assert_null(family_rule_first(r, 0, &f));
}

static void a_skill_goes_before_a_sub_agent(void **state)
{
    const char *line = "name=a comm=x sub=claude sub=no* skill=nod* skill=y";
    struct family_rule r;
    struct family_facts f = facts();
    char error[100];

    (void)state;
    assert_int_equal(family_rule_parse_all(&r, 1, &line, 1, error,
                                           sizeof(error)),
                     1);
    assert_int_equal(family_rule_role(&r, &f), FAMILY_SKILL);
    f.comm = f.exe = "bash";
    assert_int_equal(family_rule_role(&r, &f), FAMILY_SUB_AGENT); /* argv0 */
    f.argv0 = "/bin/bash";
    assert_int_equal(family_rule_role(&r, &f), FAMILY_TOOL);
    assert_int_equal(family_rule_role(NULL, &f), FAMILY_TOOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_a_rule),
        cmocka_unit_test(an_error_names_index_and_key),
        cmocka_unit_test(there_are_at_most_so_many),
        cmocka_unit_test(any_bytes_are_parsed),
        cmocka_unit_test(all_that_is_given_must_fit),
        cmocka_unit_test(a_variable_is_matched_as_a_whole),
        cmocka_unit_test(the_first_that_fits_counts),
        cmocka_unit_test(a_skill_goes_before_a_sub_agent),
    };

    return cmocka_run_group_tests_name("bpf_family_rule", tests, NULL, NULL);
}
