/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What TLS is to read and write: said at the start, not at the first payload. What
 * a certificate is worth only the library knows, which is loaded later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/config_table.h"

/* "" = good. */
static void check_ca_file(const char *path, char why[CONFIG_WHY])
{
    char *text = NULL;
    size_t n = 0;
    int rc = config_read_file(path, &text, &n, why);

    if (rc == 0 && memmem(text, n, "CERTIFICATE-----", 16) == NULL)
        (void)snprintf(why, CONFIG_WHY, "holds no certificate in PEM form");
    else if (rc == -ENOENT)
        (void)snprintf(why, CONFIG_WHY, "%s", strerror(ENOENT));
    else if (rc != -EINVAL)
        why[0] = '\0';
    free(text);
}

/* The file, or where there is none the folder to make it in. */
static bool can_write(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[CONFIG_MAX_TEXT] = ".";

    if (access(path, W_OK) == 0)
        return true;
    if (errno != ENOENT)
        return false;
    if (slash != NULL)
        (void)snprintf(folder, sizeof(folder), "%.*s/", (int)(slash - path),
                       path);
    return access(folder, W_OK | X_OK) == 0;
}

void config_check_tls_files(const struct config *c, struct config_loader *l)
{
    struct config_place at = config_place_of(l, "tls_ca_file");
    char why[CONFIG_WHY] = "";

    if (c->tls_ca_file[0] != '\0')
        check_ca_file(c->tls_ca_file, why);
    if (why[0] != '\0')
        config_found(l, FINDING_ERROR, &at, "tls_ca_file: %s: %s",
                     c->tls_ca_file, why);
    at = config_place_of(l, "sslkeylogfile");
    if (c->sslkeylogfile[0] != '\0' && !can_write(c->sslkeylogfile))
        config_found(l, FINDING_ERROR, &at,
                     "sslkeylogfile: %s: cannot be written: %s",
                     c->sslkeylogfile, strerror(errno));
}
