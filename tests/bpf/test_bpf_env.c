/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we say of a process' environment is what its own getenv() says: in every way
 * of changing it, with every C library that there is here.
 */
#include "env_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "bpf/environ.h"
#include "bpf/lines.h"
#include "bpf/procfs.h"
#include "require.h"

#define MAX_VALUE 4096
#define QUIET_MS 60
#define NO_MUSL "musl-gcc when this was built (package musl-tools)"

static const char *const ways[] = {"first", "keep",  "putenv",
                                   "unset", "clear", "long"};
#define N_WAYS (sizeof(ways) / sizeof(ways[0]))

static const char *const with_value[] = {RIG_NAME "=start",
                                         "PATH=/usr/bin:/bin", NULL};
static const char *const without_value[] = {"PATH=/usr/bin:/bin", NULL};

/* ---- Folders ------------------------------------------------------------ */

static char folder[64];
static bool is_mounted;

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/retriever-env-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static void run(const char *const argv[])
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int remove_folder(void **state)
{
    const char *const argv[] = {"rm", "-rf", folder, NULL};

    (void)state;
    if (is_mounted)
        (void)umount2(folder, MNT_DETACH);
    is_mounted = false;
    run(argv);
    return 0;
}

static void copy(const char *from, const char *name)
{
    char to[256];
    const char *const argv[] = {"cp", "-L", from, to, NULL};

    (void)snprintf(to, sizeof(to), "%s/%s", folder, name);
    run(argv);
}

/* The loader and the library of a program of this machine. */
#if defined(__aarch64__)
#define LOADER "/lib/ld-linux-aarch64.so.1"
#define LIBC "/lib/aarch64-linux-gnu/libc.so.6"
#else
#define LOADER "/lib64/ld-linux-x86-64.so.2"
#define LIBC "/lib/x86_64-linux-gnu/libc.so.6"
#endif

static void fill_root(void)
{
    char path[256];
    const char *const argv[] = {"mkdir", "-p", path, NULL};

    (void)snprintf(path, sizeof(path), "%s/lib64", folder);
    run(argv);
    (void)snprintf(path, sizeof(path), "%s/lib", folder);
    run(argv);
    copy(LOADER, LOADER + 1);
    copy(LIBC, "lib/libc.so.6");
    copy(ENV_CHILDREN "/glibc", "child");
}

/* ---- One way with one program ------------------------------------------- */

struct program {
    const char *root;
    const char *argv[6];    /* the way is added */
    const char *const *env; /* more variables */
    bool keeps_silently; /* asks itself whether it is set, and calls nobody */
};

static bool has_value_before(const char *way)
{
    return strcmp(way, "first") != 0;
}

static void start(struct child *c, const struct program *p, const char *way)
{
    const char *argv[8], *envp[8];
    const char *const *base =
        has_value_before(way) ? with_value : without_value;
    size_t n = 0, n_env = 0;

    for (; p->argv[n] != NULL; n++)
        argv[n] = p->argv[n];
    argv[n] = way;
    argv[n + 1] = NULL;
    for (; base[n_env] != NULL; n_env++)
        envp[n_env] = base[n_env];
    for (size_t i = 0; p->env != NULL && p->env[i] != NULL; i++)
        envp[n_env++] = p->env[i];
    envp[n_env] = NULL;
    child_start(c, p->root, argv, envp);
}

/* The look at the live process, by itself: the whole value. */
static void check_live(struct child *c, const char *way, bool is_set,
                       const char *value)
{
    struct environ_values *v = test_malloc(sizeof(*v));
    struct images *images;
    struct watch w;
    int fd = procfs_open((uint32_t)c->pid);

    watch_init(&w);
    assert_int_equal(watch_add(&w, RIG_NAME, RIG_TAG), 0);
    assert_int_equal(images_create(&images), 0);
    if (environ_read_live(images, fd, &w, v) != 0)
        fail_msg("live look failed: %s", way);
    assert_int_equal(v->v[WATCH_FIRST_OWN].is_set, is_set);
    assert_int_equal(v->v[WATCH_FIRST_OWN].n, strlen(value));
    assert_memory_equal(v->v[WATCH_FIRST_OWN].text, value, strlen(value));
    images_close(images);
    (void)close(fd);
    test_free(v);
}

static void check(struct env_rig *r, struct child *c, const char *way,
                  bool is_set, const char *value, bool is_silent)
{
    const char *got = env_rig_value(r, c->pid);
    size_t shown = strlen(value) < 150 ? strlen(value) : 150;

    if (is_silent) { /* its first datagram asks for it */
        assert_null(got);
        env_rig_collect(r, false);
        got = env_rig_value(r, c->pid);
    }
    if (is_set && (got == NULL || strncmp(got, value, shown) != 0 ||
                   (strlen(value) < 150 && strlen(got) != shown)))
        fail_msg("%s: said %.20s, is %.20s", way, got != NULL ? got : "nothing",
                 value);
    if (!is_set && got != NULL)
        fail_msg("%s: said %s, is not set", way, got);
}

/* All ways at once, each by a process of its own. */
static void try_program(struct env_rig *r, const struct program *p)
{
    struct child c[N_WAYS];
    char value[MAX_VALUE];

    for (size_t i = 0; i < N_WAYS; i++) {
        start(&c[i], p, ways[i]);
        env_rig_exec(r, c[i].pid);
    }
    env_rig_settle(r, QUIET_MS); /* its loader is done */
    for (size_t i = 0; i < N_WAYS; i++)
        child_go(&c[i]);
    for (size_t i = 0; i < N_WAYS; i++) {
        bool is_set = child_tells(&c[i], value, sizeof(value));
        uint64_t start_ns = env_rig_start_ns(c[i].pid);

        env_rig_settle(r, QUIET_MS);
        check(r, &c[i], ways[i], is_set, value,
              p->keeps_silently && strcmp(ways[i], "keep") == 0);
        check_live(&c[i], ways[i], is_set, value);
        child_end(&c[i]);
        env_rig_exit(r, c[i].pid, start_ns);
    }
}

static uint64_t n_records(struct env_rig *r, const struct program *p)
{
    uint64_t before = r->n_env;

    try_program(r, p);
    return r->n_env - before;
}

/* Six processes, each of which tells of one change itself. */
static void try_all_seen(const struct program *p)
{
    static struct env_rig r;

    env_rig_open(&r, ATTACH_MULTI);
    assert_true(n_records(&r, p) >= N_WAYS);
    env_rig_close(&r);
}

static void glibc(void **state)
{
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};

    (void)state;
    try_all_seen(&p);
}

static void fixed_addresses(void **state)
{
    struct program p = {.argv = {ENV_CHILDREN "/nopie"}};

    (void)state;
    try_all_seen(&p);
}

static void static_glibc(void **state)
{
    struct program p = {.argv = {ENV_CHILDREN "/static"}};

    (void)state;
    try_all_seen(&p);
}

static void musl(void **state)
{
    struct program p = {.argv = {ENV_CHILDREN "/musl"}};

    (void)state;
    require_row(access(p.argv[0], X_OK) == 0, NO_MUSL);
    try_all_seen(&p);
}

static void static_musl(void **state)
{
    struct program p = {.argv = {ENV_CHILDREN "/musl_static"}};

    (void)state;
    require_row(access(p.argv[0], X_OK) == 0, NO_MUSL);
    try_all_seen(&p);
}

static void copied_libc(void **state)
{
    char variable[128];
    const char *const env[] = {variable, NULL};
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}, .env = env};

    (void)state;
    copy(LIBC, "libc.so.6");
    (void)snprintf(variable, sizeof(variable), "LD_LIBRARY_PATH=%s", folder);
    try_all_seen(&p);
}

static void below_a_chroot(void **state)
{
    struct program p = {.root = folder, .argv = {"/child"}};

    (void)state;
    fill_root();
    try_all_seen(&p);
}

static const char *const python =
    "import ctypes, os, sys\n"
    "n, how = '" RIG_NAME "', sys.argv[1]\n"
    "os.read(0, 1)\n"
    "if how == 'first': os.environ[n] = 'first.1'\n"
    "elif how == 'keep': os.environ.setdefault(n, 'not this')\n"
    "elif how == 'putenv': os.putenv(n, 'put')\n"
    "elif how == 'unset': del os.environ[n]\n"
    "elif how == 'clear': os.environ.clear()\n"
    "elif how == 'long': os.environ[n] = 'x' * 3000\n"
    "libc = ctypes.CDLL(None)\n"
    "libc.getenv.restype = ctypes.c_char_p\n"
    "v = libc.getenv(n.encode())\n"
    "os.write(1, b'- ' if v is None else b'%d ' % len(v) + v)\n"
    "while os.read(0, 1): pass\n";

static void python_program(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {"/usr/bin/python3", "-c", python},
                        .keeps_silently = true};

    (void)state;
    require_row(access(p.argv[0], X_OK) == 0, "python3");
    env_rig_open(&r, ATTACH_MULTI);
    try_program(&r, &p);
    env_rig_close(&r);
}

static const char *const node =
    "const fs = require('fs'), n = '" RIG_NAME "', how = process.argv[1];\n"
    "const b = Buffer.alloc(1);\n"
    "fs.readSync(0, b);\n"
    "if (how == 'first') process.env[n] = 'first.1';\n"
    "else if (how == 'keep') process.env[n] = process.env[n] || 'not this';\n"
    "else if (how == 'putenv') process.env[n] = 'put';\n"
    "else if (how == 'unset') delete process.env[n];\n"
    "else if (how == 'clear') for (const k in process.env)"
    " delete process.env[k];\n"
    "else if (how == 'long') process.env[n] = 'x'.repeat(3000);\n"
    "const v = process.env[n];\n"
    "fs.writeSync(1, v === undefined ? '- ' : v.length + ' ' + v);\n"
    "while (fs.readSync(0, b)) ;\n";

static void node_program(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {"/usr/bin/node", "-e", node}};

    (void)state;
    if (access(p.argv[0], X_OK) != 0)
        skip_row("no node (package nodejs)"); /* large, for one row */
    env_rig_open(&r, ATTACH_MULTI);
    try_program(&r, &p);
    env_rig_close(&r);
}

/* ---- Older kernels' ways of attaching ----------------------------------- */

static void perf_events(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};

    (void)state;
    env_rig_open(&r, ATTACH_PERF);
    assert_true(n_records(&r, &p) >= N_WAYS);
    env_rig_close(&r);
}

static void entry_and_return(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};

    (void)state;
    env_rig_open(&r, ATTACH_RETURN);
    assert_true(n_records(&r, &p) >= N_WAYS);
    env_rig_close(&r);
}

/* ---- Lives of processes ------------------------------------------------- */

static void a_forked_child_inherits(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};
    char value[MAX_VALUE];
    struct child c;
    pid_t child;

    (void)state;
    env_rig_open(&r, ATTACH_MULTI);
    start(&c, &p, "fork");
    env_rig_exec(&r, c.pid);
    env_rig_settle(&r, QUIET_MS);
    child_go(&c);
    child = (pid_t)child_number(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_settle(&r, QUIET_MS);
    assert_null(env_rig_value(&r, child));
    env_rig_fork(&r, c.pid, child);
    assert_string_equal(env_rig_value(&r, child), "fork");
    assert_string_equal(value, "fork");
    child_end(&c);
    env_rig_close(&r);
}

static void a_new_program_has_what_it_was_started_with(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};
    char value[MAX_VALUE];
    struct child c;

    (void)state;
    env_rig_open(&r, ATTACH_MULTI);
    start(&c, &p, "exec");
    env_rig_exec(&r, c.pid);
    env_rig_settle(&r, QUIET_MS);
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_settle(&r, QUIET_MS);
    assert_string_equal(env_rig_value(&r, c.pid), "exec");
    env_rig_exec(&r, c.pid);
    assert_string_equal(env_rig_value(&r, c.pid), "exec");
    assert_string_equal(value, "exec");
    child_end(&c);
    env_rig_close(&r);
}

static void tags_outlive_an_exit(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};
    char value[MAX_VALUE];
    uint64_t start_ns;
    struct child c;

    (void)state;
    env_rig_open(&r, ATTACH_MULTI);
    start(&c, &p, "putenv");
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_settle(&r, QUIET_MS);
    start_ns = env_rig_start_ns(c.pid);
    child_end(&c);
    env_rig_exit(&r, c.pid, start_ns);
    env_rig_collect(&r, false);
    assert_string_equal(env_rig_value(&r, c.pid), "put");
    env_rig_close(&r);
}

/* Changed before we were there: nobody told us, and the file of its start does not
 * know. */
static void a_change_before_our_start_is_seen(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/static"}};
    char value[MAX_VALUE];
    struct child c;

    (void)state;
    start(&c, &p, "putenv");
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_open(&r, ATTACH_MULTI);
    env_rig_settle(&r, QUIET_MS);
    assert_string_equal(env_rig_value(&r, c.pid), "put");
    child_end(&c);
    env_rig_close(&r);
}

/* Same, with a libc that other processes use too, so that nothing is attached for it
 * in particular: found when it sends its first datagram. */
static void an_unknown_sender_is_asked_for(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};
    char value[MAX_VALUE];
    struct child c;

    (void)state;
    start(&c, &p, "putenv");
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_open(&r, ATTACH_MULTI);
    env_rig_settle(&r, QUIET_MS);
    (void)env_rig_value(&r, c.pid);
    env_rig_collect(&r, false);
    assert_string_equal(env_rig_value(&r, c.pid), "put");
    child_end(&c);
    env_rig_close(&r);
}

/* No right to load programs: whoever sends is looked at, again and again. */
static void without_probes_looks_are_left(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};
    char value[MAX_VALUE];
    struct child c;

    (void)state;
    env_rig_open_without(&r);
    start(&c, &p, "putenv");
    (void)env_rig_value(&r, c.pid);
    env_rig_collect(&r, false);
    assert_string_equal(env_rig_value(&r, c.pid), "start");
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    (void)env_feature.due(r.self, clock_mono_ns(&clock_real) +
                                      3601 * (uint64_t)CLOCK_NS_PER_S);
    assert_string_equal(env_rig_value(&r, c.pid), "put");
    env_rig_collect(&r, true);
    assert_non_null(strstr(r.text, "retriever.ebpf.env.attached_inodes:0|g"));
    child_end(&c);
    env_rig_close(&r);
}

/* ---- What we hold ------------------------------------------------------- */

static void a_filesystem_can_be_unmounted_at_once(void **state)
{
    static struct env_rig r;
    struct program p = {.root = folder, .argv = {"/child"}};
    uint64_t start_ns, begin_ns;
    char value[MAX_VALUE];
    struct child c;

    (void)state;
    assert_int_equal(mount("tmpfs", folder, "tmpfs", 0, NULL), 0);
    is_mounted = true;
    fill_root();
    env_rig_open(&r, ATTACH_MULTI);
    start(&c, &p, "putenv");
    env_rig_exec(&r, c.pid);
    env_rig_settle(&r, QUIET_MS);
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_settle(&r, QUIET_MS);
    assert_string_equal(env_rig_value(&r, c.pid), "put");
    start_ns = env_rig_start_ns(c.pid);
    child_end(&c);
    /* proof that it was held, by the probe alone */
    assert_int_not_equal(umount(folder), 0);
    begin_ns = clock_mono_ns(&clock_real);
    env_rig_exit(&r, c.pid, start_ns);
    while (umount(folder) != 0) {
        if (clock_mono_ns(&clock_real) - begin_ns > CLOCK_NS_PER_S)
            fail_msg("still mounted after a second");
    }
    is_mounted = false;
    env_rig_close(&r);
}

static void metrics(void **state)
{
    static struct env_rig r;
    struct program p = {.argv = {ENV_CHILDREN "/glibc"}};
    char value[MAX_VALUE];
    struct child c;

    (void)state;
    env_rig_open(&r, ATTACH_MULTI);
    start(&c, &p, "putenv");
    child_go(&c);
    assert_true(child_tells(&c, value, sizeof(value)));
    env_rig_settle(&r, QUIET_MS);
    env_rig_collect(&r, false);
    assert_non_null(strstr(r.text, "retriever.ebpf.env.attached_inodes:"));
    assert_null(strstr(r.text, "retriever.ebpf.env.attached_inodes:0|"));
    assert_null(strstr(r.text, "attach_errors"));
    assert_null(strstr(r.text, "cuda."));
    assert_non_null(strstr(r.text, "retriever.ebpf.env.live_reads:"));
    env_rig_collect(&r, true); /* nothing is counted twice */
    assert_null(strstr(r.text, "live_reads"));
    child_end(&c);
    env_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(glibc),
        cmocka_unit_test(fixed_addresses),
        cmocka_unit_test(static_glibc),
        cmocka_unit_test(musl),
        cmocka_unit_test(static_musl),
        cmocka_unit_test_setup_teardown(copied_libc, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(below_a_chroot, make_folder,
                                        remove_folder),
        cmocka_unit_test(python_program),
        cmocka_unit_test(node_program),
        cmocka_unit_test(perf_events),
        cmocka_unit_test(entry_and_return),
        cmocka_unit_test(a_forked_child_inherits),
        cmocka_unit_test(a_new_program_has_what_it_was_started_with),
        cmocka_unit_test(tags_outlive_an_exit),
        cmocka_unit_test(a_change_before_our_start_is_seen),
        cmocka_unit_test(an_unknown_sender_is_asked_for),
        cmocka_unit_test_setup_teardown(a_filesystem_can_be_unmounted_at_once,
                                        make_folder, remove_folder),
        cmocka_unit_test(without_probes_looks_are_left),
        cmocka_unit_test(metrics),
    };

    const struct sigaction ignore = {.sa_handler = SIG_IGN};

    (void)sigaction(SIGPIPE, &ignore, NULL);
    require_bpf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
