/* SPDX-License-Identifier: Apache-2.0 */
/* Environment and command line of any bytes: lines of the input are variables;
 * those that begin with '-' are --set assignments. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/contract.h"
#include "agent/config.h"
#include "agent/identity.h"

#define MAX_LINES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char *env[MAX_LINES + 1] = {NULL};
    const char *sets[MAX_LINES];
    struct config_sources src = {.env = env,
                                 .sets = sets,
                                 .root = "/nonexistent"};
    struct identity_places places = {.root = "/nonexistent", .env = env};
    struct config_report rep;
    struct identity id;
    struct config c;
    size_t n_env = 0;
    char *save = NULL;

    REQUIRE(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        /* These name files of the machine. */
        if (strstr(line, "FILE") != NULL || strstr(line, "file") != NULL)
            continue;
        if (line[0] == '-' && src.n_sets < MAX_LINES)
            sets[src.n_sets++] = line + 1;
        else if (n_env < MAX_LINES)
            env[n_env++] = line;
    }
    REQUIRE(config_load(&c, &src, &rep) == 0);
    REQUIRE(rep.errors.n <= CONFIG_MAX_FINDINGS);
    REQUIRE(c.stop_reserve_ms <= c.stop_timeout_ms / 2);
    REQUIRE(identity_find_in(&id, &c, true, &places) == 0);
    REQUIRE(strlen(id.host) <= 255 && strlen(id.instance_tag) <= 220);
    config_report_fini(&rep);
    config_fini(&c);
    free(text);
    return 0;
}
