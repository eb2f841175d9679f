/* SPDX-License-Identifier: Apache-2.0 */
#include "forwarder/inflight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/contract.h"

#define OTHER_KINDS (PAYLOAD_N_KINDS - 1)

int inflight_init(struct inflight *f, uint32_t max)
{
    memset(f, 0, sizeof(*f));
    if (max < 1)
        max = 1;
    if (max > INFLIGHT_MAX)
        max = INFLIGHT_MAX;
    f->slots = calloc(max, sizeof(*f->slots));
    if (f->slots == NULL)
        return -ENOMEM;
    f->max = max;
    for (uint32_t i = max; i > 0; i--) {
        f->slots[i - 1].next_free = f->free;
        f->free = &f->slots[i - 1];
    }
    return 0;
}

void inflight_fini(struct inflight *f)
{
    REQUIRE(f->n == 0);
    free(f->slots);
    memset(f, 0, sizeof(*f));
}

unsigned inflight_room(const struct inflight *f)
{
    uint32_t most = f->max > 2 * OTHER_KINDS ? f->max - OTHER_KINDS : f->max;
    unsigned kinds = 0;

    if (f->n >= f->max)
        return 0;
    for (unsigned k = 0; k < PAYLOAD_N_KINDS; k++) {
        if (f->n_kind[k] < most)
            kinds |= 1u << k;
    }
    return kinds;
}

struct flight *inflight_begin(struct inflight *f, struct payload *p)
{
    struct flight *fl = f->free;

    REQUIRE(fl != NULL && p != NULL);
    f->free = fl->next_free;
    memset(fl, 0, sizeof(*fl));
    fl->payload = p;
    f->n++;
    f->n_kind[p->kind]++;
    return fl;
}

struct payload *inflight_end(struct inflight *f, struct flight *fl)
{
    struct payload *p = fl->payload;

    REQUIRE(p != NULL && f->n > 0 && f->n_kind[p->kind] > 0);
    f->n--;
    f->n_kind[p->kind]--;
    fl->payload = NULL;
    fl->next_free = f->free;
    f->free = fl;
    return p;
}
