/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send_connect.h"

#include <errno.h>
#include <netdb.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/contract.h"
#include "agent/config_check.h"

#define HOST_MAX 256

bool send_connect_is_udp(const char *to)
{
    const char *colon = strrchr(to, ':');

    return check_host_port(to) == NULL && colon != to && colon - to < HOST_MAX;
}

int send_connect_udp(const char *to, const char **why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    struct addrinfo *list = NULL;
    const char *colon = strrchr(to, ':');
    char host[HOST_MAX];
    size_t n;
    int fd = -1;
    int rc;

    REQUIRE(send_connect_is_udp(to));
    n = (size_t)(colon - to);
    memcpy(host, to, n);
    host[n] = '\0';
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = '\0';
        memmove(host, host + 1, n - 1);
    }
    rc = getaddrinfo(host, colon + 1, &hints, &list);
    if (rc != 0) {
        *why = gai_strerror(rc);
        return -EHOSTUNREACH;
    }
    rc = -EHOSTUNREACH;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        rc = -errno;
        if (fd >= 0)
            (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd >= 0 ? fd : rc;
}

int send_connect_unix(const char *path, int type)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    socklen_t n_sa = sizeof(sa);
    int fd, rc;

    if (n == 0 || n >= sizeof(sa.sun_path))
        return -ENAMETOOLONG;
    memcpy(sa.sun_path, path, n);
    if (path[0] == '@') {
        sa.sun_path[0] = '\0';
        n_sa = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&sa, n_sa) != 0) {
        rc = -errno;
        (void)close(fd);
        return rc;
    }
    return fd;
}
