/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder for what must outlive all processes: whether it is ours alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/keeper_private.h"
#include "agent/stamps.h"

#define MODULE "keeper"

/* Whoever else can write to the folder can put files of his in the place of ours.
 * Returns NULL or what is wrong. */
static const char *is_exposed(int dir)
{
    struct stat st;

    if (fstat(dir, &st) != 0)
        return "was not looked at";
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return "belongs to another user; chown it to the one that runs "
               "retriever";
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return "can be written by other users; chmod 700 it, or name a folder "
               "inside it, which is then made";
    return NULL;
}

/* Locked by its own descriptor, which keeper and workers hold: a worker that
 * survives its keeper still owns the folder. Returns it, or -errno and in *what how
 * the sentence about it ends. */
static int lock_folder(const char *path, const char **what)
{
    const char *exposed;
    int rc = 0;
    int fd;

    (void)mkdir(path, 0700); /* a failure shows in open() */
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        *what = "was not opened; make the folder, owned by this user";
        return -errno;
    }
    if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) != 0) {
        rc = -errno;
        *what = "is not writable";
    } else if ((exposed = is_exposed(fd)) != NULL) {
        rc = -EPERM;
        *what = exposed;
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        rc = -errno;
        *what = "is used by another retriever; give each its own";
    }
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int keeper_open_run_path(struct keeper *k)
{
    const char *path = k->config.run_path;
    const char *what;
    int fd;

    k->env.run_dir = -1;
    if (k->inherited.present) {
        k->env.run_dir = k->inherited.record.run_dir; /* locked already */
        keeper_inherit_stamps(k);
        return 0;
    }
    if (path[0] == '\0')
        return 0;
    fd = lock_folder(path, &what);
    if (fd < 0) {
        log_write(NULL, k->exec_mode ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, MODULE,
                  "run_path %s%s run_path=%s cause=%s", what,
                  k->exec_mode ? "; the job runs, and nothing is saved on disk"
                               : "",
                  path, strerror(-fd));
        return k->exec_mode ? 0 : fd;
    }
    k->env.run_dir = fd;
    stamps_load(&k->stamps, fd, clock_wall_ns(&clock_real) / CLOCK_NS_PER_S);
    return 0;
}
