/* SPDX-License-Identifier: Apache-2.0 */
/* Why the kernel refused: from files as the kernel writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <zlib.h>

#include "agent/priority_cause.h"

#define WITH_CAP "Name:\tx\nCapPrm:\t0\nCapEff:\t000001fffeffffff\n"
#define WITHOUT_CAP "CapEff:\t00000000a80425fb\n"
#define LIMITS(n)                                                              \
    "Max nice priority         0                    0                    \n"   \
    "Max realtime priority     " n "                    " n                    \
    "                    \n"
#define INITIAL_NS "         0          0 4294967295\n"
#define INNER_NS "         0       1000          1\n"
#define V2 "0::/system.slice/retriever.service\n"
#define V1 "5:memory:/x\n1:cpu:/docker/abc\n0::/\n"
#define V1_JOINT "3:cpu,cpuacct:/docker/abc\n"
#define V1_ROOT "1:cpu:/\n"
#define V1_OTHER "1:cpuset:/docker/abc\n2:cpuacct:/docker/abc\n"
#define CFG_Y "# comment\nCONFIG_SMP=y\nCONFIG_RT_GROUP_SCHED=y\n"
#define CFG_N "CONFIG_SMP=y\n# CONFIG_RT_GROUP_SCHED is not set\n"
#define CPU "/sys/fs/cgroup/cpu"

struct fake {
    const char *what;
    const char *status, *limits, *uid_map, *cgroup; /* NULL: no such file */
    const char *budget_path, *budget;               /* of cpu.rt_runtime_us */
    const char *kernel;                             /* /proc/config.gz */
    int err;
    enum priority_cause want;
};

static const struct fake fakes[] = {
    {"granted", .err = 0, .want = PRIORITY_GRANTED},
    {"not known to the kernel", WITH_CAP, .err = ENOSYS,
     .want = PRIORITY_UNSUPPORTED},
    {"a policy that it has not", WITH_CAP, .err = EINVAL,
     .want = PRIORITY_UNSUPPORTED},
    {"neither capability nor limit", WITHOUT_CAP, LIMITS("0"), INITIAL_NS, V2,
     .err = EPERM, .want = PRIORITY_NO_CAPABILITY},
    {"a limit that is too low", WITHOUT_CAP, LIMITS("9"), INITIAL_NS, V2,
     .err = EPERM, .want = PRIORITY_NO_CAPABILITY},
    {"a group without budget does not hide a missing capability", WITHOUT_CAP,
     LIMITS("0"), INITIAL_NS, V1, CPU "/docker/abc", "0\n", CFG_Y, EPERM,
     PRIORITY_NO_CAPABILITY},
    {"no /proc at all", .err = EPERM, .want = PRIORITY_NO_CAPABILITY},
    {"the capability of a user namespace", WITH_CAP, LIMITS("0"), INNER_NS, V2,
     .err = EPERM, .want = PRIORITY_USER_NAMESPACE},
    {"a user namespace with a limit, in a sandbox", WITH_CAP, LIMITS("10"),
     INNER_NS, V2, .kernel = CFG_N, .err = EPERM, .want = PRIORITY_FORBIDDEN},
    {"v1 group without budget", WITH_CAP, LIMITS("0"), INITIAL_NS, V1,
     CPU "/docker/abc", "0\n", CFG_Y, EPERM, PRIORITY_NO_RUNTIME},
    {"the same by a limit", WITHOUT_CAP, LIMITS("10"), INITIAL_NS, V1,
     CPU "/docker/abc", "0\n", CFG_Y, EPERM, PRIORITY_NO_RUNTIME},
    {"joint controllers", WITH_CAP, LIMITS("0"), INITIAL_NS, V1_JOINT,
     "/sys/fs/cgroup/cpu,cpuacct/docker/abc", "0\n", CFG_Y, EPERM,
     PRIORITY_NO_RUNTIME},
    {"joint controllers behind a link", WITH_CAP, LIMITS("0"), INITIAL_NS,
     V1_JOINT, CPU "/docker/abc", "0\n", CFG_Y, EPERM, PRIORITY_NO_RUNTIME},
    {"a container that sees its own group as the root", WITH_CAP, LIMITS("0"),
     INITIAL_NS, V1, CPU, "0\n", CFG_Y, EPERM, PRIORITY_NO_RUNTIME},
    {"the root group", WITH_CAP, LIMITS("0"), INITIAL_NS, V1_ROOT, CPU,
     "950000\n", CFG_N, EPERM, PRIORITY_FORBIDDEN},
    {"a group with a budget", WITH_CAP, LIMITS("0"), INITIAL_NS, V1,
     CPU "/docker/abc", "50000\n", CFG_N, EPERM, PRIORITY_FORBIDDEN},
    {"cpuset and cpuacct are not cpu", WITH_CAP, LIMITS("0"), INITIAL_NS,
     V1_OTHER, CPU "/docker/abc", "0\n", CFG_N, EPERM, PRIORITY_FORBIDDEN},
    {"v2, and groups have budgets", WITH_CAP, LIMITS("0"), INITIAL_NS, V2,
     .kernel = CFG_Y, .err = EPERM, .want = PRIORITY_RT_GROUP},
    {"a sandbox", WITH_CAP, LIMITS("unlimited"), INITIAL_NS, V2,
     .kernel = CFG_N, .err = EPERM, .want = PRIORITY_FORBIDDEN},
    {"a sandbox, and no configuration to read", WITH_CAP, LIMITS("0"),
     INITIAL_NS, V2, .err = EPERM, .want = PRIORITY_FORBIDDEN},
    {"nonsense in each file", "CapEff:", "Max realtime priority", "x",
     "::\n1:cpu\n1:cpu:x\n:", .kernel = "\n", .err = EPERM,
     .want = PRIORITY_NO_CAPABILITY},
    {"nonsense behind the capability", WITH_CAP, LIMITS("99999999999999999999"),
     "", "1:cpu:/../../x\n", CPU "/../../x", "0\n",
     "CONFIG_RT_GROUP_SCHED=", EACCES, PRIORITY_FORBIDDEN},
};

static void put(const char *root, const char *path, const char *text,
                bool compressed)
{
    char full[512];

    if (text == NULL)
        return;
    (void)snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0700);
        *p = '/';
    }
    if (compressed) {
        gzFile f = gzopen(full, "w");

        assert_non_null(f);
        assert_int_equal(gzwrite(f, text, (unsigned)strlen(text)),
                         strlen(text));
        assert_int_equal(gzclose(f), Z_OK);
    } else {
        FILE *f = fopen(full, "w");

        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
        assert_int_equal(fclose(f), 0);
    }
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int make_root(void **state)
{
    char *root = strdup("/tmp/test-priority-XXXXXX");

    assert_non_null(root);
    assert_non_null(mkdtemp(root));
    *state = root;
    return 0;
}

static int drop_root(void **state)
{
    (void)nftw(*state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return 0;
}

static void each_refusal_has_its_cause(void **state)
{
    for (size_t i = 0; i < sizeof(fakes) / sizeof(fakes[0]); i++) {
        const struct fake *f = &fakes[i];
        char root[128];
        char path[256];
        enum priority_cause got;

        (void)snprintf(root, sizeof(root), "%s/%zu", (char *)*state, i);
        assert_int_equal(mkdir(root, 0700), 0);
        put(root, "/proc/self/status", f->status, false);
        put(root, "/proc/self/limits", f->limits, false);
        put(root, "/proc/self/uid_map", f->uid_map, false);
        put(root, "/proc/self/cgroup", f->cgroup, false);
        put(root, "/proc/config.gz", f->kernel, true);
        if (f->budget_path != NULL) {
            (void)snprintf(path, sizeof(path), "%s/cpu.rt_runtime_us",
                           f->budget_path);
            if (strstr(path, "..") == NULL)
                put(root, path, f->budget, false);
        }
        got = priority_diagnose(root, f->err, 10);
        if (got != f->want)
            fail_msg("%s: %s, not %s", f->what, priority_cause_name(got),
                     priority_cause_name(f->want));
    }
}

/* Where the kernel does not show its configuration, the distribution does. */
static void the_configuration_may_lie_in_boot(void **state)
{
    struct utsname u;
    char path[256];

    assert_int_equal(uname(&u), 0);
    (void)snprintf(path, sizeof(path), "/boot/config-%s", u.release);
    put(*state, "/proc/self/status", WITH_CAP, false);
    put(*state, "/proc/self/uid_map", INITIAL_NS, false);
    assert_int_equal(priority_diagnose(*state, EPERM, 10), PRIORITY_FORBIDDEN);
    put(*state, path, CFG_Y, false);
    assert_int_equal(priority_diagnose(*state, EPERM, 10), PRIORITY_RT_GROUP);
}

static void each_cause_but_the_first_has_words(void **state)
{
    (void)state;
    assert_string_equal(priority_cause_name(PRIORITY_GRANTED), "");
    for (int c = PRIORITY_GRANTED + 1; c <= PRIORITY_RUNAWAY; c++) {
        assert_true(strlen(priority_cause_name((enum priority_cause)c)) > 0);
        assert_true(strlen(priority_cause_text((enum priority_cause)c)) > 0);
        assert_true(strlen(priority_cause_remedy((enum priority_cause)c)) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_refusal_has_its_cause, make_root,
                                        drop_root),
        cmocka_unit_test_setup_teardown(the_configuration_may_lie_in_boot,
                                        make_root, drop_root),
        cmocka_unit_test(each_cause_but_the_first_has_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
