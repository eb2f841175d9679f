/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/identity.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/config_check.h"

#define MODULE "identity"
#define MAX_PROC_BYTES ((size_t)64 << 10)

/* ---- Container id ------------------------------------------------------- */

static size_t n_hex(const char *p, const char *end)
{
    size_t n = 0;

    while (p + n < end &&
           (isdigit((unsigned char)p[n]) || (p[n] >= 'a' && p[n] <= 'f')))
        n++;
    return n;
}

static size_t n_digits(const char *p, const char *end)
{
    size_t n = 0;

    while (p + n < end && isdigit((unsigned char)p[n]))
        n++;
    return n;
}

/* Length of a UUID at @p: 8-4-4-4-12, or 0. */
static size_t uuid_length(const char *p, const char *end)
{
    static const size_t groups[] = {8, 4, 4, 4, 12};
    const char *at = p;

    for (size_t i = 0; i < 5; i++) {
        if (i > 0 && (at == end || (*at != '-' && *at != '_')))
            return 0;
        at += i > 0;
        if (n_hex(at, end) < groups[i])
            return 0;
        at += groups[i];
    }
    return (size_t)(at - p);
}

/* Length of an id that begins at @p; 0 = none. */
static size_t id_length(const char *p, const char *end)
{
    size_t n = n_hex(p, end);

    if (n >= 64)
        return 64;
    if (n == 32 && p + 32 < end && p[32] == '-') {
        size_t digits = n_digits(p + 33, end);

        if (digits > 0 && digits <= 20)
            return 33 + digits;
    }
    return uuid_length(p, end);
}

/* An id that is all of [p, end), a ".scope" behind it aside. Runtimes put a word
 * of their own before it: docker-<id>.scope, cri-containerd-<id>.scope. */
static bool find_at_end(const char *p, const char *end, const char **id,
                        size_t *n)
{
    if (end - p > 6 && strncmp(end - 6, ".scope", 6) == 0)
        end -= 6;
    for (; p < end; p++) {
        size_t length = id_length(p, end);

        if (length > 0 && p + length == end) {
            *id = p;
            *n = length;
            return true;
        }
    }
    return false;
}

static bool copy_id(const char *id, size_t n, char out[IDENTITY_ID_MAX])
{
    if (n >= IDENTITY_ID_MAX)
        return false;
    memcpy(out, id, n);
    out[n] = '\0';
    return true;
}

static bool in_cgroup(const char *text, char out[IDENTITY_ID_MAX])
{
    while (*text != '\0') {
        const char *end = text + strcspn(text, "\n");
        const char *last = memrchr(text, '/', (size_t)(end - text));
        const char *id;
        size_t n;

        if (last != NULL && find_at_end(last + 1, end, &id, &n))
            return copy_id(id, n, out);
        text = end + (*end == '\n');
    }
    return false;
}

/* Inside a control group namespace the path is "/", but the files that the runtime
 * mounts over /etc/hostname lie below the container's folder:
 * .../<parent>/<id>/.../hostname. A parent "sandboxes" names the pod, not us. The
 * rightmost one counts. */
static bool in_mount(const char *line, const char *end,
                     char out[IDENTITY_ID_MAX])
{
    bool found = false;

    for (const char *p = line; p < end; p++) {
        const char *stop;
        const char *parent;
        size_t n;

        if (*p != '/' || p == line)
            continue;
        n = id_length(p + 1, end);
        if (n == 0 || p + 1 + n >= end || p[1 + n] != '/')
            continue;
        stop = p + 1 + n;
        stop += strcspn(stop, " \n");
        if (stop - p < 9 || strncmp(stop - 8, "hostname", 8) != 0)
            continue;
        parent = memrchr(line, '/', (size_t)(p - line));
        if (parent == NULL || memchr(parent, ' ', (size_t)(p - parent)) ||
            (p - parent == 10 && strncmp(parent, "/sandboxes", 10) == 0))
            continue;
        found = copy_id(p + 1, n, out);
    }
    return found;
}

bool identity_container_id(const char *cgroup, const char *mountinfo,
                           char out[IDENTITY_ID_MAX])
{
    if (in_cgroup(cgroup, out))
        return true;
    while (*mountinfo != '\0') {
        const char *end = mountinfo + strcspn(mountinfo, "\n");

        if (in_mount(mountinfo, end, out))
            return true;
        mountinfo = end + (*end == '\n');
    }
    return false;
}

/* ---- Places ------------------------------------------------------------- */

/* Whole text of a file, cut at MAX_PROC_BYTES; the caller's to free. NULL when it
 * cannot be read (errno says why). */
static char *read_text(const char *root, const char *path)
{
    char full[600];
    char *text = malloc(MAX_PROC_BYTES + 1);
    size_t got = 0;
    int fd;

    (void)snprintf(full, sizeof(full), "%s%s", root, path);
    fd = open(full, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (text == NULL || fd < 0) {
        free(text);
        if (fd >= 0)
            (void)close(fd);
        return NULL;
    }
    while (got < MAX_PROC_BYTES) {
        ssize_t r = read(fd, text + got, MAX_PROC_BYTES - got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        got += (size_t)r;
    }
    (void)close(fd);
    text[got] = '\0';
    return text;
}

/* "" when it is not set. */
static const char *env_get(char *const *env, const char *name)
{
    size_t n = strlen(name);

    for (; env != NULL && *env != NULL; env++) {
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return *env + n + 1;
    }
    return "";
}

/* Only what a tag keeps unchanged at the intake. */
static void clean(char *text)
{
    for (; *text != '\0'; text++) {
        if (!isalnum((unsigned char)*text) && strchr(".-_:/", *text) == NULL)
            *text = '_';
    }
}

static bool find_container(const struct identity_places *p,
                           char out[IDENTITY_ID_MAX])
{
    char *cgroup = read_text(p->root, "/proc/self/cgroup");
    char *mounts = read_text(p->root, "/proc/self/mountinfo");
    bool found = identity_container_id(cgroup != NULL ? cgroup : "",
                                       mounts != NULL ? mounts : "", out);

    free(cgroup);
    free(mounts);
    return found;
}

/* ECS gives each container a URL that ends in its id. */
static bool find_ecs(char *const *env, char out[IDENTITY_ID_MAX])
{
    const char *url = env_get(env, "ECS_CONTAINER_METADATA_URI_V4");
    const char *id;

    if (url[0] == '\0')
        url = env_get(env, "ECS_CONTAINER_METADATA_URI");
    id = strrchr(url, '/');
    if (id == NULL || id[1] == '\0')
        return false;
    (void)snprintf(out, IDENTITY_ID_MAX, "%s", id + 1);
    return true;
}

static void random_id(char *out, size_t size)
{
    uint64_t id = 0;

    if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != (ssize_t)sizeof(id)) {
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        id = ((uint64_t)now.tv_sec << 32) ^ ((uint64_t)now.tv_nsec << 8) ^
             (uint64_t)getpid();
    }
    (void)snprintf(out, size, "%016llx", (unsigned long long)id);
}

/* A job's task has a name of its own; the instances of a service share theirs. */
static bool find_cloud_run(char *const *env, char *out, size_t size)
{
    const char *execution = env_get(env, "CLOUD_RUN_EXECUTION");
    const char *revision = env_get(env, "K_REVISION");
    char id[20];

    if (execution[0] != '\0') {
        const char *attempt = env_get(env, "CLOUD_RUN_TASK_ATTEMPT");

        (void)snprintf(out, size, "%.100s-%.20s%s%.20s", execution,
                       env_get(env, "CLOUD_RUN_TASK_INDEX"),
                       attempt[0] != '\0' ? "-" : "", attempt);
        return true;
    }
    if (revision[0] == '\0')
        return false;
    random_id(id, sizeof(id));
    (void)snprintf(out, size, "%.100s-%s", revision, id);
    return true;
}

static bool find_pod(char *const *env, char *out, size_t size)
{
    const char *host = env_get(env, "HOSTNAME");

    if (env_get(env, "KUBERNETES_SERVICE_HOST")[0] == '\0' || host[0] == '\0')
        return false;
    (void)snprintf(out, size, "%.180s", host);
    return true;
}

/* What tells this task from the next: its origin, NULL = nothing does. */
static const char *find_task(const struct identity_places *p, char *out,
                             size_t size)
{
    char id[IDENTITY_ID_MAX];

    if (find_container(p, id)) {
        (void)snprintf(out, size, "%s", id);
        return "container";
    }
    if (find_ecs(p->env, id)) {
        (void)snprintf(out, size, "%s", id);
        return "ECS task";
    }
    if (find_cloud_run(p->env, out, size))
        return "Cloud Run";
    if (find_pod(p->env, out, size))
        return "pod";
    return NULL;
}

/* ---- Host --------------------------------------------------------------- */

static bool host_of_file(const char *path, char *out, size_t size)
{
    char *text = read_text("", path);
    const char *wrong = "is empty";
    char *name;
    size_t n;

    if (text == NULL) {
        log_warn(MODULE, "hostname_file was not read file=%s error=\"%s\"",
                 path, strerror(errno));
        return false;
    }
    name = text + strspn(text, " \t\r\n");
    n = strcspn(name, " \t\r\n");
    name[n] = '\0';
    if (n > 0)
        wrong = check_hostname(name);
    if (wrong == NULL)
        (void)snprintf(out, size, "%s", name);
    else
        log_warn(MODULE, "hostname_file was not used file=%s error=\"%s\"",
                 path, wrong);
    free(text);
    return wrong == NULL;
}

static const char *find_host(char *out, size_t size, const struct config *c,
                             bool exec_mode, bool in_task)
{
    out[0] = '\0';
    if (c->hostname[0] != '\0') {
        if (strcasecmp(c->hostname, "none") == 0)
            return "none";
        (void)snprintf(out, size, "%s", c->hostname);
        return "hostname";
    }
    if (c->hostname_file[0] != '\0' &&
        host_of_file(c->hostname_file, out, size))
        return "hostname_file";
    if (exec_mode && in_task)
        return "none";
    if (gethostname(out, size) != 0)
        out[0] = '\0';
    out[size - 1] = '\0';
    if (strcmp(out, "localhost") == 0 || check_hostname(out) != NULL)
        out[0] = '\0'; /* names nobody */
    return out[0] != '\0' ? "system" : "none";
}

int identity_find_in(struct identity *out, const struct config *c,
                     bool exec_mode, const struct identity_places *places)
{
    char task[200] = "";
    const char *task_from = find_task(places, task, sizeof(task));

    *out = (struct identity){.instance_from = "none"};
    out->host_from = find_host(out->host, sizeof(out->host), c, exec_mode,
                               task_from != NULL);
    if (strcasecmp(c->instance, "none") == 0)
        return 0;
    if (strcasecmp(c->instance, "auto") != 0) {
        (void)snprintf(task, sizeof(task), "%.180s", c->instance);
        out->instance_from = "instance";
    } else if (out->host[0] != '\0') {
        return 0;
    } else if (task_from != NULL) {
        out->instance_from = task_from;
    } else {
        random_id(task, sizeof(task));
        out->instance_from = "random";
    }
    clean(task);
    (void)snprintf(out->instance_tag, sizeof(out->instance_tag), "%s%s",
                   IDENTITY_TAG_NAME, task);
    return 0;
}

int identity_find(struct identity *out, const struct config *c, bool exec_mode)
{
    const struct identity_places places = {.root = "", .env = environ};

    return identity_find_in(out, c, exec_mode, &places);
}

/* FNV-1a, of 64 bits; the end of the text counts. */
static uint64_t add_text(uint64_t hash, const char *text)
{
    do
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3ULL;
    while (*text++ != '\0');
    return hash;
}

uint64_t identity_hash(const struct identity *id, const struct config *c)
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    hash = add_text(hash, id->host);
    hash = add_text(hash, id->instance_tag);
    return add_text(hash, c->dd_url[0] != '\0' ? c->dd_url : c->site);
}

/* A name without a file is gone with its last descriptor, however that ends. */
int identity_claim(const struct identity *id, const struct config *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int n, rc;

    if (fd < 0)
        return -errno;
    n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1,
                 "retriever-identity-%016llx",
                 (unsigned long long)identity_hash(id, c));
    if (bind(fd, (struct sockaddr *)&a,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                         (size_t)n)) == 0)
        return fd;
    rc = -errno;
    (void)close(fd);
    return rc;
}

void identity_fini(struct identity *id)
{
    *id = (struct identity){0};
}
