/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that do not want to be looked at: one whose environment lies in a file
 * that nobody will ever read out, and one that says it has terabytes of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "bpf/environ_aside.h"
#include "bpf/procfs.h"
#include "require.h"

#define FILE_INODE 2
#define FILE_BYTES 8192
#define FOREVER_S 1000
#define TERABYTE (UINT64_C(1) << 40)

static struct environ_values values;
static struct watch watch;

/* ---- A file system that answers everything but reads --------------------- */

static void answer(int fuse, const struct fuse_in_header *in, int error,
                   const void *body, size_t n)
{
    struct {
        struct fuse_out_header head;
        char body[sizeof(struct fuse_entry_out)];
    } out = {.head = {.len = (uint32_t)(sizeof(out.head) + n),
                      .error = error,
                      .unique = in->unique}};

    if (n > 0)
        memcpy(out.body, body, n);
    (void)!write(fuse, &out, out.head.len);
}

static struct fuse_attr attributes(uint64_t inode)
{
    bool is_root = inode == FUSE_ROOT_ID;

    return (struct fuse_attr){
        .ino = inode,
        .mode = is_root ? S_IFDIR | 0755 : S_IFREG | 0644,
        .nlink = 1,
        .size = is_root ? 0 : FILE_BYTES,
    };
}

static void serve_one(int fuse, const struct fuse_in_header *in)
{
    struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION,
                                 .minor = 31,
                                 .max_write = 65536};
    struct fuse_entry_out entry = {.nodeid = FILE_INODE,
                                   .entry_valid = FOREVER_S,
                                   .attr_valid = FOREVER_S,
                                   .attr = attributes(FILE_INODE)};
    struct fuse_attr_out attr = {.attr_valid = FOREVER_S,
                                 .attr = attributes(in->nodeid)};
    struct fuse_open_out opened = {0};

    switch ((enum fuse_opcode)in->opcode) {
    case FUSE_INIT:
        answer(fuse, in, 0, &init, sizeof(init));
        break;
    case FUSE_LOOKUP:
        answer(fuse, in, 0, &entry, sizeof(entry));
        break;
    case FUSE_GETATTR:
        answer(fuse, in, 0, &attr, sizeof(attr));
        break;
    case FUSE_OPEN:
        answer(fuse, in, 0, &opened, sizeof(opened));
        break;
    case FUSE_READ:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        answer(fuse, in, -ENOSYS, NULL, 0);
        break;
    }
}

static _Noreturn void serve(int fuse)
{
    static char request[1 << 17] __attribute__((aligned(8)));

    while (read(fuse, request, sizeof(request)) > 0 || errno == EINTR)
        serve_one(fuse, (const void *)request);
    _exit(0);
}

/* ---- Who does not want to be looked at ----------------------------------- */

extern char **environ;

/* Its environment is in the file @path from now on. */
static void hide(const char *path)
{
    static char *hidden[2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *at = mmap(NULL, FILE_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);

    if (fd < 0 || at == MAP_FAILED)
        _exit(1);
    hidden[0] = at;
    environ = hidden;
}

/* The child says by a byte that it is ready, and stays until it is killed. */
static pid_t child(void (*act)(const char *arg), const char *arg)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        act(arg);
        (void)!write(ready[1], "", 1);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        fail_msg("the child could not begin");
    (void)close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static uint64_t elapsed_ms(uint64_t from_ns)
{
    return (clock_mono_ns(&clock_real) - from_ns) / CLOCK_NS_PER_MS;
}

/* As without the other process, this look would never end; and who waits for it would
 * not die by SIGKILL either. */
static void a_look_that_does_not_end_is_left(void **state)
{
    char dir[] = "/tmp/retriever_stall_XXXXXX", file[64], options[96];
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    struct aside *aside;
    pid_t server, other, hider;
    uint64_t from_ns;
    int fd;

    (void)state;
    if (fuse < 0 || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skip_for("file systems of our own (/dev/fuse) are not allowed");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(file, sizeof(file), "%s/file", dir);
    (void)snprintf(options, sizeof(options),
                   "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fuse,
                   getuid(), getgid());
    assert_int_equal(mount("stall", dir, "fuse", 0, options), 0);
    server = fork();
    if (server == 0)
        serve(fuse);
    (void)close(fuse);
    hider = child(hide, file);
    assert_int_equal(aside_create(&aside, &watch), 0);

    fd = procfs_open((uint32_t)hider);
    from_ns = clock_mono_ns(&clock_real);
    assert_int_equal(aside_read(aside, fd, &values), -ETIMEDOUT);
    assert_true(elapsed_ms(from_ns) >= ASIDE_WAIT_MS);
    /* Not so often that it would hold up the thread. */
    assert_int_equal(aside_read(aside, fd, &values), -EBUSY);
    (void)close(fd);
    from_ns = clock_mono_ns(&clock_real);
    aside_close(aside);
    assert_true(elapsed_ms(from_ns) < 1000);

    /* Another one can look, at others. */
    other = getpid();
    assert_int_equal(setenv("CUDA_VISIBLE_DEVICES", "7", 1), 0);
    assert_int_equal(aside_create(&aside, &watch), 0);
    fd = procfs_open((uint32_t)other);
    assert_int_equal(aside_read(aside, fd, &values), 0);
    assert_true(values.v[WATCH_CUDA].is_set && values.v[WATCH_CUDA].n == 1);
    (void)close(fd);
    aside_close(aside);

    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    end(hider);
    assert_int_equal(umount2(dir, MNT_DETACH), 0);
    assert_int_equal(rmdir(dir), 0);
    while (waitpid(-1, NULL, 0) > 0) /* the one that was left is free now */
        ;
}

/* Fields of /proc/PID/stat from 26 on: start_code, end_code, start_stack; from 45:
 * start_data, end_data, start_brk, arg_start, arg_end. */
static void read_places(struct prctl_mm_map *m)
{
    unsigned long long v[53] = {0};
    char text[2048], *at;
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, text, sizeof(text) - 1);

    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    at = strrchr(text, ')');
    if (at == NULL)
        _exit(1);
    at += 4; /* behind the state */
    for (int i = 4; i < 53; i++)
        v[i] = strtoull(at, &at, 10);
    *m = (struct prctl_mm_map){
        .start_code = v[26],
        .end_code = v[27],
        .start_stack = v[28],
        .start_data = v[45],
        .end_data = v[46],
        .start_brk = v[47],
        .brk = (uintptr_t)sbrk(0),
        .arg_start = v[48],
        .arg_end = v[49],
        .exe_fd = (uint32_t)-1,
    };
}

/* No privilege is needed for that. */
static void claim(const char *arg)
{
    struct prctl_mm_map m;
    void *at = mmap(NULL, TERABYTE, PROT_READ,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    (void)arg;
    read_places(&m);
    m.env_start = (uintptr_t)at;
    m.env_end = m.env_start + TERABYTE;
    if (at == MAP_FAILED ||
        prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m), 0) != 0)
        _exit(1);
}

static void an_environment_without_end_is_cut(void **state)
{
    pid_t pid = child(claim, NULL);
    uint64_t from_ns = clock_mono_ns(&clock_real);
    int fd = procfs_open((uint32_t)pid);

    (void)state;
    assert_int_equal(environ_read_start(fd, &watch, &values), 0);
    assert_true(elapsed_ms(from_ns) < 5000);
    (void)close(fd);
    end(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_environment_without_end_is_cut),
        cmocka_unit_test(a_look_that_does_not_end_is_left),
    };

    watch_init(&watch);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
