/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/spelling.h"

void spelling_key_init(struct spelling_key *key, const uint64_t seed[2])
{
    unsigned char *p = (unsigned char *)key->lanes;

    memcpy(key->seed, seed, sizeof(key->seed));
    for (uint64_t i = 0; i < sizeof(key->lanes) / sizeof(struct hash128); i++) {
        const uint64_t counter[2] = {i, seed[1]};
        struct hash128 h = hash_bytes(counter, sizeof(counter), seed[0]);

        memcpy(p + i * sizeof(h), &h, sizeof(h));
    }
}
