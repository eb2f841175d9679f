/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/stamps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"

static const char magic[8] = "rtvstmp1";

struct record {
    char magic[8];
    int64_t stamp_s;
};

static int read_record(int run_dir, struct record *r)
{
    int fd = openat(run_dir, STAMPS_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    int rc = 0;

    if (fd < 0)
        return -errno;
    n = pread(fd, r, sizeof(*r), 0);
    if (n < 0)
        rc = -errno;
    else if (n != sizeof(*r) || memcmp(r->magic, magic, sizeof(magic)) != 0 ||
             r->stamp_s < 0)
        rc = -EBADMSG;
    close(fd);
    return rc;
}

int64_t stamps_load(int run_dir)
{
    struct record r;
    int rc = read_record(run_dir, &r);

    if (rc == 0)
        return r.stamp_s;
    if (rc != -ENOENT)
        log_warn("encoder", "stamps of the last life were not read cause=%s",
                 strerror(-rc));
    return 0;
}

int stamps_save(int run_dir, int64_t stamp_s)
{
    struct record r = {.stamp_s = stamp_s};
    int fd = openat(run_dir, STAMPS_FILE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ssize_t n;
    int rc = 0;

    if (fd < 0)
        return -errno;
    memcpy(r.magic, magic, sizeof(magic));
    n = pwrite(fd, &r, sizeof(r), 0);
    if (n < 0)
        rc = -errno;
    else if (n != sizeof(r))
        rc = -ENOSPC;
    close(fd);
    return rc;
}
