/* SPDX-License-Identifier: Apache-2.0 */
/* `retriever intake`: all of it lives in the HTTP module. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "agent/httpd.h"

int cmd_intake(int argc, char **argv)
{
    const struct httpd_module *m;
    char why[256];
    int fd = httpd_module_open();
    int rc;

    if (fd < 0) {
        (void)fprintf(stderr, "retriever intake: cannot open %s: %s\n",
                      HTTPD_MODULE_FILE, strerror(-fd));
        return 1;
    }
    rc = httpd_module_load(fd, &m, why, sizeof(why));
    (void)close(fd);
    if (rc != 0) {
        (void)fprintf(stderr, "retriever intake: cannot load %s: %s\n",
                      HTTPD_MODULE_FILE, why);
        return 1;
    }
    return m->intake_main(argc, argv);
}
