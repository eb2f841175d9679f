/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What would fail when a listener is bound: an owner that does not exist, and
 * listeners that stand in each other's way, the second of which fails as if
 * another agent were there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/account.h"
#include "agent/config_table.h"

#define MAX_HOST 256
#define N_OWN_KEYS 4 /* listeners that have a key each */

enum kind { UDP, UNIXGRAM, UNIXSTREAM };

struct listener {
    const char *key;
    enum kind kind;
    const char *where; /* HOST:PORT or path */
};

struct listeners {
    struct config_loader *l;
    struct listener *all;
    size_t n;
};

/* ---- What is the same --------------------------------------------------- */

/* As the socket will have it: see resolve() of sockets_udp.c. */
static void host_of(const char *where, char out[MAX_HOST])
{
    size_t n = (size_t)(strrchr(where, ':') - where);

    if (n >= 2 && where[0] == '[') {
        where++;
        n -= 2;
    }
    (void)snprintf(out, MAX_HOST, "%.*s", (int)n, where);
    if (n == 0)
        (void)snprintf(out, MAX_HOST, "::");
    else if (strcmp(out, "localhost") == 0)
        (void)snprintf(out, MAX_HOST, "127.0.0.1");
}

static bool takes_in(const char *host, const char *other)
{
    bool v4 = other[strspn(other, "0123456789.")] == '\0';

    return strcmp(host, other) == 0 || strcmp(host, "::") == 0 ||
           (strcmp(host, "0.0.0.0") == 0 && v4);
}

static bool same_port(const char *a, const char *b)
{
    char host_a[MAX_HOST], host_b[MAX_HOST];

    if (strtoul(strrchr(a, ':') + 1, NULL, 10) !=
        strtoul(strrchr(b, ':') + 1, NULL, 10))
        return false;
    host_of(a, host_a);
    host_of(b, host_b);
    return takes_in(host_a, host_b) || takes_in(host_b, host_a);
}

static bool stat_folder(const char *path, struct stat *st)
{
    char folder[CONFIG_MAX_TEXT];

    (void)snprintf(folder, sizeof(folder), "%.*s/",
                   (int)(strrchr(path, '/') - path), path);
    return stat(folder, st) == 0;
}

/* Also by another name of its folder: /var/run is /run. */
static bool same_path(const char *a, const char *b)
{
    struct stat st_a, st_b;

    if (strcmp(a, b) == 0)
        return true;
    return a[0] == '/' && b[0] == '/' &&
           strcmp(strrchr(a, '/'), strrchr(b, '/')) == 0 &&
           stat_folder(a, &st_a) && stat_folder(b, &st_b) &&
           st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
}

static bool is_same(const struct listener *a, const struct listener *b)
{
    if (a->kind == UDP || b->kind == UDP)
        return a->kind == b->kind && same_port(a->where, b->where);
    /* Each type has abstract names of its own. */
    return (a->kind == b->kind || a->where[0] != '@') &&
           same_path(a->where, b->where);
}

/* ---- Who may use them --------------------------------------------------- */

void config_check_owners(struct config *c, struct config_loader *l)
{
    struct config_place at = config_place_of(l, "dogstatsd_socket_owner");
    uid_t uid;
    gid_t gid;

    if (c->dogstatsd_socket_owner[0] != '\0' &&
        !account_user(c->dogstatsd_socket_owner, &uid)) {
        config_found(l, FINDING_ERROR, &at,
                     "dogstatsd_socket_owner: %s names no user",
                     c->dogstatsd_socket_owner);
        c->dogstatsd_socket_owner[0] = '\0';
    }
    at = config_place_of(l, "dogstatsd_socket_group");
    if (c->dogstatsd_socket_group[0] != '\0' &&
        !account_group(c->dogstatsd_socket_group, &gid)) {
        config_found(l, FINDING_ERROR, &at,
                     "dogstatsd_socket_group: %s names no group",
                     c->dogstatsd_socket_group);
        c->dogstatsd_socket_group[0] = '\0';
    }
}

/* ---- All listeners ------------------------------------------------------ */

/* False: another one is there, which was said. */
static bool add(struct listeners *s, const char *key, enum kind kind,
                const char *where)
{
    const struct listener it = {.key = key, .kind = kind, .where = where};
    const struct config_place at = config_place_of(s->l, key);

    if (where[0] == '\0')
        return true;
    for (size_t i = 0; i < s->n; i++) {
        if (!is_same(&s->all[i], &it))
            continue;
        config_found(s->l, FINDING_ERROR, &at,
                     "%s: %s is what %s listens on, too; change one of them",
                     config_name_of(s->l, key), where,
                     config_name_of(s->l, s->all[i].key));
        return false;
    }
    s->all[s->n++] = it;
    return true;
}

static bool add_url(struct listeners *s, const char *url)
{
    static const char *const schemes[] = {[UDP] = "udp://",
                                          [UNIXGRAM] = "unixgram://",
                                          [UNIXSTREAM] = "unixstream://"};
    enum kind kind = UDP;

    while (strncmp(url, schemes[kind], strlen(schemes[kind])) != 0)
        kind++; /* check_socket_url() knows no other */
    return add(s, "dogstatsd_sockets", kind, url + strlen(schemes[kind]));
}

/* False: some of the list cannot be. */
static bool add_dogstatsd(struct listeners *s, struct config *c,
                          const char *port)
{
    bool good = true;

    if (c->dogstatsd_port > 0) /* neither off nor a free one */
        (void)add(s, "dogstatsd_port", UDP, port);
    (void)add(s, "dogstatsd_socket", UNIXGRAM, c->dogstatsd_socket);
    if (!add(s, "dogstatsd_stream_socket", UNIXSTREAM,
             c->dogstatsd_stream_socket))
        c->dogstatsd_stream_socket[0] = '\0';
    for (size_t i = 0; i < c->dogstatsd_sockets.n; i++)
        good = add_url(s, c->dogstatsd_sockets.items[i]) && good;
    return good;
}

int config_check_listeners(struct config *c, struct config_loader *l)
{
    const char *host = c->dogstatsd_non_local_traffic ? "" : c->bind_host;
    struct listeners s = {.l = l};
    char port[MAX_HOST + 16];
    bool good = true;

    s.all = calloc(N_OWN_KEYS + c->dogstatsd_sockets.n, sizeof(*s.all));
    if (s.all == NULL)
        return -ENOMEM;
    (void)snprintf(port, sizeof(port),
                   strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host,
                   (int)c->dogstatsd_port);
    if (c->use_dogstatsd)
        good = add_dogstatsd(&s, c, port);
    if (!add(&s, "control_socket", UNIXSTREAM, c->control_socket))
        c->control_socket[0] = '\0';
    if (!good) /* its default, as for each key that is refused */
        string_list_fini(&c->dogstatsd_sockets);
    free(s.all);
    return 0;
}
