/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for cgroup.c, too: the only named cgroup is the one that the test has
 * made.
 */
#include "tests/bpf/drop_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/cgroup.h"
#include "tests/support/skips.h"

#define SMALL_BUFFER_BYTES 10000
#define INITIAL_PIDS 0xEFFFFFFCu /* inode of the initial pid namespace */
#define MEMORY "/sys/fs/cgroup/memory"
#define UNIFIED "/sys/fs/cgroup/unified", "/sys/fs/cgroup"

struct cgroups {
    uint64_t cgid;
};

const char *cgroups_tags(struct cgroups *c, uint64_t cgid)
{
    return c->cgid != 0 && c->cgid == cgid ? "container_name:leaky" : "";
}

int32_t cgroups_subsys(const struct cgroups *c)
{
    (void)c;
    return -1;
}

void rig_require_bpf(void)
{
    static struct drop_rig r; /* large */
    struct loader_cause cause = {0};
    struct cgroups none = {0};
    struct stat st;
    char why[400];
    int rc;

    r.env = (struct feature_env){.opts = &r.opts, .cgroups = &none};
    rc = drop_feature.open(&r.self, &r.env, &cause);
    if (rc == 0)
        drop_feature.close(r.self);
    if (rc == 0 &&
        (stat("/proc/self/ns/pid", &st) != 0 || st.st_ino != INITIAL_PIDS)) {
        (void)snprintf(cause.why, sizeof(cause.why),
                       "processes have other numbers here than the kernel's");
        rc = LOADER_REFUSED;
    }
    if (rc == 0)
        return;
    (void)snprintf(why, sizeof(why), "%s; %s", cause.why, cause.remedy);
    skip_for(why);
}

/* ---- Sockets ------------------------------------------------------------ */

static void bind_loopback(struct rig_socket *s, int family)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&s->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&s->address;

    s->address = (struct sockaddr_storage){.ss_family = (sa_family_t)family};
    s->n_address = sizeof(sa_family_t); /* Unix: the kernel finds a name */
    if (family == AF_INET) {
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        s->n_address = sizeof(*v4);
    } else if (family == AF_INET6) {
        v6->sin6_addr = in6addr_loopback;
        s->n_address = sizeof(*v6);
    }
    assert_int_equal(bind(s->fd, (struct sockaddr *)&s->address, s->n_address),
                     0);
    s->n_address = sizeof(s->address);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&s->address,
                                 &s->n_address),
                     0);
}

void rig_socket_open(struct rig_socket *s, int family)
{
    int small = SMALL_BUFFER_BYTES;

    s->fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &small,
                                sizeof(small)),
                     0);
    bind_loopback(s, family);
}

static bool write_file(const char *folder, const char *name, const char *text)
{
    char path[192];
    int fd;
    bool done;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    (void)close(fd);
    return done;
}

bool rig_can_starve(void)
{
    return access(MEMORY "/memory.kmem.tcp.limit_in_bytes", F_OK) == 0;
}

/* A socket belongs to the cgroup of who makes it: a child that shares our table of
 * files does, and goes. */
bool rig_starved_socket_open(struct drop_rig *r, struct rig_socket *s)
{
    int large = 1 << 20;
    int status = 0;
    int pid;

    (void)snprintf(r->starved, sizeof(r->starved),
                   MEMORY "/retriever-test-drop-%d", (int)getpid());
    if (mkdir(r->starved, 0755) != 0) {
        r->starved[0] = '\0';
        return false;
    }
    if (!write_file(r->starved, "memory.kmem.tcp.limit_in_bytes", "65536"))
        return false;
    s->fd = dup(r->udp.fd); /* the number that the child replaces */
    assert_true(s->fd >= 0);
    pid = (int)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd;

        if (!write_file(r->starved, "cgroup.procs", "0"))
            _exit(1);
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        _exit(fd >= 0 && dup2(fd, s->fd) == s->fd && close(fd) == 0 ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &large,
                                sizeof(large)),
                     0);
    bind_loopback(s, AF_INET);
    return true;
}

uint32_t rig_kernel_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t n = sizeof(info);

    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &n), 0);
    return info[SK_MEMINFO_DROPS];
}

void rig_count(struct drop_rig *r, const void *payload)
{
    uint32_t i;

    memcpy(&i, payload, sizeof(i));
    assert_true(i < RIG_MAX_SENDERS);
    r->senders[i].received++;
}

void rig_receive(struct drop_rig *r, const struct rig_socket *s)
{
    char payload[RIG_PAYLOAD_BYTES];
    ssize_t n;

    while ((n = recv(s->fd, payload, sizeof(payload), MSG_DONTWAIT)) > 0) {
        assert_int_equal(n, sizeof(payload));
        rig_count(r, payload);
    }
    assert_int_equal(errno, EAGAIN);
}

/* ---- Senders ------------------------------------------------------------ */

bool rig_make_cgroup(struct drop_rig *r)
{
    static const char *const mounts[] = {UNIFIED};
    struct stat st;

    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        char path[96];

        (void)snprintf(path, sizeof(path), "%s/cgroup.controllers", mounts[i]);
        if (access(path, F_OK) != 0)
            continue;
        (void)snprintf(r->cgroup, sizeof(r->cgroup),
                       "%s/retriever-test-drop-%d", mounts[i], (int)getpid());
        if (mkdir(r->cgroup, 0755) == 0 && stat(r->cgroup, &st) == 0) {
            r->cgid = st.st_ino;
            r->env.cgroups->cgid = st.st_ino;
            return true;
        }
        r->cgroup[0] = '\0';
    }
    return false;
}

/* In the child: no assertion, no way back. */
static _Noreturn void send_all(struct rig_sender *me, uint32_t i,
                               const struct rig_socket *to, uint32_t n)
{
    char payload[RIG_PAYLOAD_BYTES] = {0};
    int fd = socket(to->address.ss_family, SOCK_DGRAM, 0);

    memcpy(payload, &i, sizeof(i));
    if (fd < 0 ||
        connect(fd, (const struct sockaddr *)&to->address, to->n_address) != 0)
        _exit(2);
    while (n-- > 0) {
        if (send(fd, payload, sizeof(payload), MSG_DONTWAIT) > 0)
            me->sent++;
        else if (errno == EAGAIN)
            me->refused++;
        else
            _exit(3);
    }
    _exit(0);
}

void rig_send(struct drop_rig *r, uint32_t i, const struct rig_socket *to,
              uint32_t n, bool in_cgroup)
{
    int pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (in_cgroup && !write_file(r->cgroup, "cgroup.procs", "0"))
            _exit(1);
        send_all(&r->senders[i], i, to, n);
    }
    r->senders[i].pid = pid;
}

void rig_wait(struct drop_rig *r)
{
    for (uint32_t i = 0; i < RIG_MAX_SENDERS; i++) {
        int status = 0;

        if (r->senders[i].pid == 0)
            continue;
        if (waitpid(r->senders[i].pid, &status, 0) == r->senders[i].pid)
            assert_int_equal(status, 0);
    }
}

/* ---- Lines -------------------------------------------------------------- */

static void record(void *arg, const char *packet, size_t n)
{
    struct drop_rig *r = arg;

    assert_true(r->n_text + n < sizeof(r->text));
    memcpy(r->text + r->n_text, packet, n);
    r->n_text += n;
    r->text[r->n_text] = '\0';
}

void rig_collect(struct drop_rig *r, bool last)
{
    drop_feature.collect(r->self, &r->lines, last);
    lines_flush(&r->lines);
}

static bool has_tag(const char *line, size_t n, const char *tag)
{
    size_t n_tag = strlen(tag);

    for (const char *at = line; at + n_tag < line + n; at++) {
        if ((*at == '#' || *at == ',') && memcmp(at + 1, tag, n_tag) == 0 &&
            (at + 1 + n_tag == line + n || at[1 + n_tag] == ','))
            return true;
    }
    return false;
}

uint64_t rig_sum(const struct drop_rig *r, const char *name, const char *tag)
{
    size_t n_name = strlen(name);
    uint64_t sum = 0;
    const char *end;

    for (const char *line = r->text; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        if (strncmp(line, name, n_name) != 0 || line[n_name] != ':')
            continue;
        if (tag == NULL || has_tag(line, (size_t)(end - line), tag))
            sum += strtoull(line + n_name + 1, NULL, 10);
    }
    return sum;
}

uint64_t rig_lost_by(const struct drop_rig *r, uint32_t i)
{
    char tag[32];

    (void)snprintf(tag, sizeof(tag), "client_pid:%d", r->senders[i].pid);
    return rig_sum(r, "retriever.ingress.lost", tag);
}

/* ---- All of it ---------------------------------------------------------- */

void drop_rig_open(struct drop_rig *r, const struct drop_kernel *k)
{
    struct loader_cause cause = {0};
    int rc;

    memset(r, 0, sizeof(*r));
    lines_init(&r->lines, record, r);
    r->senders =
        mmap(NULL, RIG_MAX_SENDERS * sizeof(*r->senders),
             PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(r->senders != MAP_FAILED);
    rig_socket_open(&r->udp, AF_INET);
    rig_socket_open(&r->uds, AF_UNIX);
    r->opts.drop.client_pid = true;
    assert_int_equal(drop_add_socket(&r->opts.drop, r->udp.fd), 0);
    assert_int_equal(drop_add_socket(&r->opts.drop, r->uds.fd), 0);
    r->env = (struct feature_env){.opts = &r->opts, .events_fd = -1};
    r->env.cgroups = calloc(1, sizeof(*r->env.cgroups));
    assert_non_null(r->env.cgroups);
    rc = k == NULL ? drop_feature.open(&r->self, &r->env, &cause)
                   : drop_open_on(&r->self, &r->env, k, &cause);
    if (rc != 0)
        fail_msg("%d: %s; %s", rc, cause.why, cause.remedy);
}

void drop_rig_close(struct drop_rig *r)
{
    if (r->self != NULL)
        drop_feature.close(r->self);
    for (uint32_t i = 0; r->senders != NULL && i < RIG_MAX_SENDERS; i++) {
        if (r->senders[i].pid > 0)
            (void)waitpid(r->senders[i].pid, NULL, 0);
    }
    if (r->cgroup[0] != '\0')
        (void)rmdir(r->cgroup);
    if (r->starved[0] != '\0')
        (void)rmdir(r->starved);
    (void)close(r->udp.fd);
    (void)close(r->uds.fd);
    free(r->env.cgroups);
    if (r->senders != NULL)
        (void)munmap(r->senders, RIG_MAX_SENDERS * sizeof(*r->senders));
}
