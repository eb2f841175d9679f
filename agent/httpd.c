/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/httpd.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int open_in(const char *folder)
{
    char path[PATH_MAX + 64];
    int n = snprintf(path, sizeof(path), "%s/%s", folder, HTTPD_MODULE_FILE);
    int fd;

    if (n < 0 || (size_t)n >= sizeof(path))
        return -ENAMETOOLONG;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

/* Beside the program first: a build folder runs without an installation, and
 * never takes an installed module of another version. */
int httpd_module_open(void)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    char *slash;
    int fd = -ENOENT;

    if (n > 0) {
        exe[n] = '\0';
        slash = strrchr(exe, '/');
        if (slash != NULL) {
            *slash = '\0';
            fd = open_in(exe);
        }
    }
    return fd >= 0 ? fd : open_in(RETRIEVER_MODULE_DIR);
}

/* The loader remembers libraries by the name they were loaded under, and would
 * give back an earlier one when the number of its descriptor is in use again.
 * So no name is used twice: each has one more slash. */
static void unique_path(char *path, size_t n, int fd)
{
    static unsigned n_loads;
    static const char slashes[] = "////////////////////////////////";
    int n_slashes = 2 + (int)(n_loads++ % (sizeof(slashes) - 2));

    (void)snprintf(path, n, "/proc/self%.*sfd/%d", n_slashes, slashes, fd);
}

int httpd_module_load(int fd, const struct httpd_module **out, char *why,
                      size_t n)
{
    const struct httpd_module *m;
    char path[80];
    void *lib;

    unique_path(path, sizeof(path), fd);
    lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        (void)snprintf(why, n, "%s", dlerror());
        return -ENOEXEC;
    }
    m = dlsym(lib, HTTPD_MODULE_SYMBOL);
    if (m == NULL) {
        (void)snprintf(why, n, "it exports no table");
        return -ENOEXEC;
    }
    if (strcmp(m->build_id, RETRIEVER_VERSION) != 0) {
        (void)snprintf(why, n, "it is of version %.32s, the program of %s",
                       m->build_id, RETRIEVER_VERSION);
        return -ENOEXEC;
    }
    *out = m; /* never closed: its threads may outlive any owner */
    return 0;
}
