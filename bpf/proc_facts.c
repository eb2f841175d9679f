/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/proc_facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned int proc_facts_needs(const struct family_rule *rules, size_t n)
{
    unsigned int needs = 0;

    for (size_t i = 0; i < n; i++) {
        const struct family_rule *r = &rules[i];

        needs |= r->env[0] != '\0' ? PROC_ENVIRON : 0;
        needs |= r->exe[0] != '\0' ? PROC_EXE : 0;
        needs |= r->argv0[0] != '\0' ? PROC_ARGV0 : 0;
        needs |= r->cgroup[0] != '\0' ? PROC_CGROUP : 0;
    }
    return needs;
}

int proc_facts_create(struct proc_facts **out, const char *proc)
{
    struct proc_facts *p = malloc(sizeof(*p));

    if (p == NULL)
        return -ENOMEM;
    p->n_unreadable = 0;
    p->proc_fd = open(proc, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (p->proc_fd < 0) {
        int rc = -errno;

        free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void proc_facts_close(struct proc_facts *p)
{
    if (p == NULL)
        return;
    (void)close(p->proc_fd);
    free(p);
}

/* Returns the bytes read (a NUL follows), or -errno. */
static ssize_t read_file(const struct proc_facts *p, uint32_t pid,
                         const char *name, char *out, size_t size)
{
    char path[64];
    size_t n = 0;
    ssize_t rc;
    int fd;

    out[0] = '\0';
    (void)snprintf(path, sizeof(path), "%u/%s", pid, name);
    fd = openat(p->proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    do {
        rc = read(fd, out + n, size - 1 - n);
        if (rc > 0)
            n += (size_t)rc;
    } while (rc > 0 && n < size - 1);
    if (rc < 0)
        rc = -errno;
    (void)close(fd);
    out[n] = '\0';
    return rc < 0 ? rc : (ssize_t)n;
}

static void read_exe(struct proc_facts *p, uint32_t pid)
{
    char path[64];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "%u/exe", pid);
    n = readlinkat(p->proc_fd, path, p->exe, sizeof(p->exe) - 1);
    p->exe[n > 0 ? n : 0] = '\0';
}

/* Lines are hierarchy:controllers:path. A container is below the root of one of
 * them, not of all: the longest path says most. */
static void read_cgroup(struct proc_facts *p, uint32_t pid)
{
    char *text = p->environ; /* which is read later */
    const char *best = "";
    char *rest = text;
    char *line;

    (void)read_file(p, pid, "cgroup", text, sizeof(p->environ));
    while ((line = strsep(&rest, "\n")) != NULL) {
        const char *path = strchr(line, ':');

        path = path != NULL ? strchr(path + 1, ':') : NULL;
        if (path != NULL && strlen(path + 1) > strlen(best))
            best = path + 1;
    }
    (void)snprintf(p->cgroup, sizeof(p->cgroup), "%s", best);
}

struct family_facts proc_facts_read(struct proc_facts *p, uint32_t pid,
                                    const char *comm, unsigned int needs)
{
    struct family_facts f = {.comm = comm != NULL ? comm : p->comm,
                             .exe = p->exe,
                             .argv0 = p->argv0,
                             .cgroup = p->cgroup,
                             .environ = p->environ,
                             .pid = pid};
    ssize_t n;

    p->comm[0] = p->exe[0] = p->argv0[0] = p->cgroup[0] = '\0';
    if (comm == NULL && pid != 0) {
        (void)read_file(p, pid, "comm", p->comm, sizeof(p->comm));
        p->comm[strcspn(p->comm, "\n")] = '\0';
    }
    if (pid == 0) {
        p->n_unreadable += (needs & PROC_ENVIRON) != 0;
        return f;
    }
    if ((needs & PROC_EXE) != 0)
        read_exe(p, pid);
    if ((needs & PROC_ARGV0) != 0)
        (void)read_file(p, pid, "cmdline", p->argv0, sizeof(p->argv0));
    if ((needs & PROC_CGROUP) != 0)
        read_cgroup(p, pid);
    /* A kernel thread has none, neither has a process that has gone: ESRCH or,
     * with its folder, ENOENT. */
    if ((needs & PROC_ENVIRON) != 0) {
        n = read_file(p, pid, "environ", p->environ, sizeof(p->environ));
        f.n_environ = n > 0 ? (size_t)n : 0;
        p->n_unreadable += n < 0 && n != -ENOENT && n != -ESRCH;
    }
    return f;
}

uint32_t proc_facts_parent(const struct proc_facts *p, uint32_t pid)
{
    char text[512];
    const char *end;
    char *after;
    unsigned long ppid;

    if (read_file(p, pid, "stat", text, sizeof(text)) <= 0)
        return 0;
    end = strrchr(text, ')'); /* a name may contain anything */
    if (end == NULL || strlen(end) < 4)
        return 0;
    ppid = strtoul(end + 4, &after, 10); /* ") S 12" */
    return *after == ' ' && ppid <= INT32_MAX ? (uint32_t)ppid : 0;
}
