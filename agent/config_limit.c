/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory limit of our control group, v1 or v2, the lowest on the way up: in a
 * container the group's own path is often "/", and in a nested one a parent's
 * limit is what kills.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "agent/base/num.h"
#include "agent/config_table.h"

/* Small files of /proc and /sys; cut at @size. Returns the length or -errno. */
static ssize_t read_small(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    size_t got = 0;

    if (fd < 0)
        return -errno;
    while (got < size - 1) {
        ssize_t r = read(fd, out + got, size - 1 - got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        got += (size_t)r;
    }
    (void)close(fd);
    out[got] = '\0';
    return (ssize_t)got;
}

/* Lower *limit to what @path holds; "max" and v1's huge number hold none. */
static void lower(const char *path, uint64_t *limit)
{
    char text[64];
    uint64_t v;

    if (read_small(path, text, sizeof(text)) <= 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    if (num_parse_u64(text, &v) != 0 || v == 0 || v >= UINT64_C(1) << 60)
        return;
    if (*limit == 0 || v < *limit)
        *limit = v;
}

/* @group and all its parents below @mount. */
static void climb(const char *root, const char *mount, const char *group,
                  const char *file, uint64_t *limit)
{
    char path[1024];
    char here[512];
    char *slash;

    if (strlen(group) >= sizeof(here) || strstr(group, "..") != NULL)
        group = "/";
    (void)snprintf(here, sizeof(here), "%s", group);
    for (;;) {
        (void)snprintf(path, sizeof(path), "%s%s%s/%s", root, mount,
                       strcmp(here, "/") == 0 ? "" : here, file);
        lower(path, limit);
        slash = strrchr(here, '/');
        if (slash == NULL || here[1] == '\0')
            return;
        if (slash == here)
            here[1] = '\0';
        else
            *slash = '\0';
    }
}

static bool has_word(const char *list, size_t n, const char *word)
{
    size_t n_word = strlen(word);

    for (size_t i = 0; i + n_word <= n; i++) {
        if (strncmp(list + i, word, n_word) == 0 &&
            (i == 0 || list[i - 1] == ',') &&
            (i + n_word == n || list[i + n_word] == ','))
            return true;
    }
    return false;
}

uint64_t config_container_limit(const char *root)
{
    char path[600];
    char text[8192];
    uint64_t limit = 0;
    char *save = NULL;

    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    if (read_small(path, text, sizeof(text)) <= 0)
        return 0;
    /* Lines of id:controllers:path; v2 is 0 with no controller. */
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *first = strchr(line, ':');
        char *second = first != NULL ? strchr(first + 1, ':') : NULL;

        if (second == NULL || second[1] != '/')
            continue;
        if (second == first + 1)
            climb(root, "/sys/fs/cgroup", second + 1, "memory.max", &limit);
        else if (has_word(first + 1, (size_t)(second - first - 1), "memory"))
            climb(root, "/sys/fs/cgroup/memory", second + 1,
                  "memory.limit_in_bytes", &limit);
    }
    return limit;
}
