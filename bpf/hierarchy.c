/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The id of a cgroup is the number of its inode, and with the right type of file
 * handle it opens directly: FILEID_KERNFS (include/linux/exportfs.h) and the 8 bytes
 * of the id. Where that is not allowed there is only the walk.
 *
 * In a cgroup namespace, paths of /proc/PID/cgroup that lead out of it begin with
 * "/..": those processes are not in what is mounted.
 */
#include "bpf/hierarchy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILEID_KERNFS_TYPE 0xfe
#define MAX_TEXT (1u << 20)
#define MAX_DEPTH 32

/* Copy up to the next space, octal escapes (\040) undone. Returns what follows. */
static const char *take_word(const char *s, char *out, size_t size)
{
    size_t n = 0;

    while (*s != '\0' && *s != ' ' && *s != '\n') {
        char c = *s;

        if (c == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' &&
            s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
            c = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        }
        if (n + 1 < size)
            out[n++] = c;
        s++;
    }
    out[n] = '\0';
    return *s == ' ' ? s + 1 : s;
}

/* Find the line "ID:CONTROLLERS:PATH" of a hierarchy. */
static const char *cgroup_line(const char *text, const char *controllers,
                               bool v2, size_t *n_path, int32_t *id)
{
    size_t n = strlen(controllers);

    for (const char *line = text; *line != '\0';) {
        size_t n_line = strcspn(line, "\n");
        const char *first = memchr(line, ':', n_line);
        const char *second =
            first != NULL
                ? memchr(first + 1, ':', n_line - (size_t)(first + 1 - line))
                : NULL;

        if (second != NULL) {
            size_t n_list = (size_t)(second - first - 1);

            if (v2 ? n_list == 0 && line[0] == '0'
                   : n_list == n && memcmp(first + 1, controllers, n) == 0) {
                *n_path = n_line - (size_t)(second + 1 - line);
                *id = (int32_t)strtol(line, NULL, 10);
                return second + 1;
            }
        }
        line += n_line;
        line += *line == '\n';
    }
    return NULL;
}

/* The options of the superblock are the controllers, among other words. Those of
 * /proc/self/cgroup are in the same order: the one that is wholly contained. */
static bool find_controllers(struct hierarchy *h, const char *options,
                             const char *cgroup)
{
    for (const char *line = cgroup; *line != '\0';) {
        size_t n_line = strcspn(line, "\n");
        const char *first = memchr(line, ':', n_line);
        const char *second =
            first != NULL
                ? memchr(first + 1, ':', n_line - (size_t)(first + 1 - line))
                : NULL;

        if (second != NULL && second > first + 1) {
            size_t n = (size_t)(second - first - 1);
            const char *at = options;

            while ((at = memmem(at, strlen(at), first + 1, n)) != NULL) {
                if (at[-1] == ',' && (at[n] == ',' || at[n] == '\0') &&
                    n < sizeof(h->controllers)) {
                    memcpy(h->controllers, first + 1, n);
                    h->controllers[n] = '\0';
                    h->id = (int32_t)strtol(line, NULL, 10);
                    return true;
                }
                at++;
            }
        }
        line += n_line;
        line += *line == '\n';
    }
    return false;
}

/* 35 31 0:32 ROOT MOUNT options [optional...] - cgroup SOURCE rw,memory */
static bool parse_mount(struct hierarchy *h, const char *line,
                        const char *cgroup)
{
    char word[256], options[256];
    const char *s = line;

    *h = (struct hierarchy){0};
    for (int i = 0; i < 3; i++)
        s = take_word(s, word, sizeof(word));
    s = take_word(s, h->root, sizeof(h->root));
    s = take_word(s, h->mount, sizeof(h->mount));
    do {
        s = take_word(s, word, sizeof(word));
    } while (strcmp(word, "-") != 0 && *s != '\0' && *s != '\n');
    s = take_word(s, word, sizeof(word));
    h->v2 = strcmp(word, "cgroup2") == 0;
    if (!h->v2 && strcmp(word, "cgroup") != 0)
        return false;
    s = take_word(s, word, sizeof(word));
    options[0] = ',';
    (void)take_word(s, options + 1, sizeof(options) - 1);
    return h->v2 || find_controllers(h, options, cgroup);
}

void hierarchies_parse(struct hierarchies *out, const char *mountinfo,
                       const char *cgroup)
{
    out->n = 0;
    for (const char *line = mountinfo; *line != '\0';) {
        struct hierarchy h;
        bool known = !parse_mount(&h, line, cgroup);

        /* Mounted twice: the first is what tools use. */
        for (size_t i = 0; !known && i < out->n; i++)
            known = out->all[i].v2 == h.v2 && out->all[i].id == h.id;
        if (!known && out->n < HIERARCHIES_MAX)
            out->all[out->n++] = h;
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
}

static char *read_text(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = NULL;
    size_t n = 0, size = 0;
    ssize_t got = 0;

    if (fd < 0)
        return NULL;
    do {
        n += (size_t)got;
        if (size - n < 2 && size < MAX_TEXT) {
            char *more = realloc(text, size + 16384);

            if (more == NULL)
                break;
            text = more;
            size += 16384;
        }
        got = read(fd, text + n, size - n - 1);
    } while (got > 0);
    (void)close(fd);
    if (text != NULL)
        text[n] = '\0';
    return text;
}

int hierarchies_read(struct hierarchies *out)
{
    char *mountinfo = read_text("/proc/self/mountinfo");
    char *cgroup = read_text("/proc/self/cgroup");
    int rc = 0;

    if (mountinfo != NULL && cgroup != NULL)
        hierarchies_parse(out, mountinfo, cgroup);
    else
        rc = -ENOENT;
    free(mountinfo);
    free(cgroup);
    return rc;
}

bool hierarchy_is(const struct hierarchy *h, const char *name)
{
    size_t n = strlen(name);

    if (h->v2)
        return strcmp(name, "v2") == 0;
    for (const char *at = h->controllers; n > 0 && *at != '\0';) {
        size_t len = strcspn(at, ",");

        if (len == n && memcmp(at, name, n) == 0)
            return true;
        at += len;
        at += *at == ',';
    }
    return false;
}

const char *hierarchy_name(const struct hierarchy *h)
{
    return h->v2 ? "v2" : h->controllers;
}

/* A path below the mount to one from the root of the tree. */
static bool from_root(const struct hierarchy *h, const char *below,
                      char out[CGROUP_PATH_MAX])
{
    const char *root = strcmp(h->root, "/") == 0 ? "" : h->root;
    int n = snprintf(out, CGROUP_PATH_MAX, "%s%s", root, below);

    if (n == 0)
        (void)memcpy(out, "/", 2);
    return n >= 0 && n < CGROUP_PATH_MAX;
}

/* And back; NULL when it is not mounted here. */
static const char *below_mount(const struct hierarchy *h, const char *path)
{
    size_t n = strcmp(h->root, "/") == 0 ? 0 : strlen(h->root);

    if (strncmp(path, h->root, n) != 0 || (path[n] != '/' && path[n] != '\0'))
        return NULL;
    return strncmp(path + n, "/..", 3) == 0 ? NULL : path + n;
}

bool hierarchy_file(const struct hierarchy *h, const char *path,
                    const char *file, char *out, size_t size)
{
    const char *below = below_mount(h, path);
    int n;

    if (below == NULL)
        return false;
    n = snprintf(out, size, "%s%s/%s", h->mount, below, file);
    return n >= 0 && (size_t)n < size;
}

int hierarchy_path(const struct hierarchy *h, uint64_t id,
                   char out[CGROUP_PATH_MAX])
{
    union {
        struct file_handle handle;
        unsigned char room[sizeof(struct file_handle) + sizeof(id)];
    } name = {.handle = {.handle_bytes = sizeof(id),
                         .handle_type = FILEID_KERNFS_TYPE}};
    char link[64], path[CGROUP_PATH_MAX + sizeof(h->mount)];
    size_t n_mount = strlen(h->mount);
    int mount_fd, fd;
    ssize_t n;

    memcpy(name.room + sizeof(struct file_handle), &id, sizeof(id));
    mount_fd = open(h->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mount_fd < 0)
        return -errno;
    fd = open_by_handle_at(mount_fd, &name.handle, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        int err = errno;

        (void)close(mount_fd);
        return -err;
    }
    (void)close(mount_fd);
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    (void)close(fd);
    if (n < 0)
        return -errno;
    path[n] = '\0';
    /* Not under the mount: outside the part that is mounted here. */
    if (strncmp(path, h->mount, n_mount) != 0 ||
        (path[n_mount] != '/' && path[n_mount] != '\0'))
        return -ESTALE;
    return from_root(h, path + n_mount, out) ? 0 : -ENAMETOOLONG;
}

uint64_t hierarchy_id(const struct hierarchy *h, const char *path)
{
    char name[CGROUP_PATH_MAX + sizeof(h->mount)];
    struct stat st;

    if (!hierarchy_file(h, path, "", name, sizeof(name)) ||
        stat(name, &st) != 0)
        return 0;
    return st.st_ino;
}

/* ---- Walk --------------------------------------------------------------- */

struct walk {
    const struct hierarchy *h;
    hierarchy_walk_fn *fn;
    void *arg;
    char path[CGROUP_PATH_MAX]; /* below the mount */
};

/* Takes @fd. Returns false to end the walk. */
static bool walk_dir(struct walk *w, int fd, size_t n, int depth)
{
    char path[CGROUP_PATH_MAX];
    struct stat st;
    struct dirent *e;
    bool go_on = true;
    DIR *dir = fdopendir(fd);

    if (dir == NULL) {
        (void)close(fd);
        return true;
    }
    if (fstat(fd, &st) == 0 && from_root(w->h, w->path, path))
        go_on = w->fn(w->arg, st.st_ino, path);
    while (go_on && depth < MAX_DEPTH && (e = readdir(dir)) != NULL) {
        size_t len = strlen(e->d_name);
        int child;

        if (e->d_type != DT_DIR || e->d_name[0] == '.' ||
            n + len + 2 > sizeof(w->path))
            continue;
        child = openat(fd, e->d_name,
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0)
            continue; /* removed meanwhile */
        w->path[n] = '/';
        memcpy(w->path + n + 1, e->d_name, len + 1);
        go_on = walk_dir(w, child, n + 1 + len, depth + 1);
        w->path[n] = '\0';
    }
    (void)closedir(dir);
    return go_on;
}

void hierarchy_walk(const struct hierarchy *h, hierarchy_walk_fn *fn, void *arg)
{
    struct walk w = {.h = h, .fn = fn, .arg = arg};
    int fd = open(h->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        (void)walk_dir(&w, fd, 0, 0);
}

bool hierarchy_path_of_pid(const struct hierarchy *h, int pid,
                           char out[CGROUP_PATH_MAX])
{
    char name[64];
    const char *path;
    char *text;
    size_t n = 0;
    int32_t id;
    bool found;

    (void)snprintf(name, sizeof(name), "/proc/%d/cgroup", pid);
    text = read_text(name);
    if (text == NULL)
        return false;
    path = cgroup_line(text, h->controllers, h->v2, &n, &id);
    found = path != NULL && n > 0 && n < CGROUP_PATH_MAX;
    if (found) {
        memcpy(out, path, n);
        out[n] = '\0';
    }
    free(text);
    return found;
}
