/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any body on any route of the intake. The first byte chooses route and type;
 * the rest is the body. What was taken must be found again: a second delivery
 * replaces each point of the first and adds none.
 */
#include <stdint.h>
#include <stdlib.h>

#include "agent/base/buf.h"
#include "agent/intake_receive.h"
#include "agent/intake_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    enum intake_route route;
    const char *type;
} ways[] = {
    {INTAKE_ROUTE_SERIES_V2, "application/x-protobuf"},
    {INTAKE_ROUTE_SKETCHES, "application/x-protobuf"},
    {INTAKE_ROUTE_SERIES_V2, "application/json"},
    {INTAKE_ROUTE_SERIES_V1, "application/json"},
    {INTAKE_ROUTE_CHECKS, "application/json"},
    {INTAKE_ROUTE_EVENTS, "application/json"},
};

static void must(int ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct intake in;
    struct intake_request r = {.now_s = 1600000000};
    uint64_t n_points;
    unsigned status;
    struct buf b;

    if (size < 1)
        return 0;
    if (in.decoder == NULL)
        must(intake_init(&in, 16u << 20, 1) == 0);
    intake_clear(&in);
    r.route = ways[data[0] % 6].route;
    r.content_type = ways[data[0] % 6].type;
    r.body = data + 1;
    r.n_body = size - 1;
    status = intake_receive(&in, &r);
    n_points = in.store.n_points;
    must(status == 202 || (in.n_refused == 1 && n_points == 0));
    must(intake_receive(&in, &r) == status);
    must(in.store.n_points == n_points);
    buf_init(&b, 64u << 20);
    must(intake_report_series(&in, &b) == 0);
    must(intake_report_totals(&in, &b) == 0);
    buf_fini(&b);
    return 0;
}
