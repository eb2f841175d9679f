/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file of any bytes: whatever is in it, the result is within the
 * bounds of its keys and each finding is one line. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/base/contract.h"
#include "agent/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lines(const struct string_list *l)
{
    REQUIRE(l->n <= CONFIG_MAX_FINDINGS);
    for (size_t i = 0; i < l->n; i++)
        REQUIRE(strpbrk(l->items[i], "\r\n\t\x1b") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static FILE *null;
    char path[40];
    const char *const env[] = {NULL};
    struct config_sources src = {.env = (char *const *)env,
                                 .file = path,
                                 .root = "/nonexistent"};
    struct config_report rep;
    struct config c;

    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        null = fopen("/dev/null", "w");
        REQUIRE(fd >= 0 && null != NULL);
    }
    REQUIRE(ftruncate(fd, 0) == 0);
    REQUIRE(pwrite(fd, data, size, 0) == (ssize_t)size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    REQUIRE(config_load(&c, &src, &rep) == 0);
    check_lines(&rep.errors);
    check_lines(&rep.warnings);
    check_lines(&rep.notes);
    REQUIRE(c.stop_timeout_ms >= 1000 && c.stop_timeout_ms <= 3600000);
    REQUIRE(c.stop_reserve_ms <= c.stop_timeout_ms / 2);
    REQUIRE(c.dogstatsd_port >= -1 && c.dogstatsd_port <= 65535);
    REQUIRE(c.memory_limit_bytes >= 8u << 20);
    REQUIRE(c.store_max_bytes >= 1u << 20);
    REQUIRE(c.n_hist_percentiles <= CONFIG_MAX_PERCENTILES);
    config_dump(&c, null);
    config_report_fini(&rep);
    config_fini(&c);
    return 0;
}
