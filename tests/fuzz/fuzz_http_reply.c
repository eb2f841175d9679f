/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a reply that are read by our own code. First byte: which one;
 * the next two: the status. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "forwarder/http_reply.h"
#include "forwarder/retry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
    if (!ok)
        abort();
}

static void header(const char *line, size_t n)
{
    const char *value = NULL;
    size_t n_value = 0;
    uint32_t now_ms, later_ms;

    if (!http_reply_header(line, n, "Retry-After", &value, &n_value))
        return;
    need(value >= line && value + n_value <= line + n);
    now_ms = http_reply_retry_after_ms(value, n_value, 1700000000);
    later_ms = http_reply_retry_after_ms(value, n_value, 1700000060);
    /* Seconds do not depend on the clock, a date comes nearer. */
    need(later_ms <= now_ms);
    need(http_reply_retry_after_ms(value, n_value, INT64_MAX) <= now_ms);
}

static void excerpt(const char *bytes, size_t n)
{
    char *body = malloc(n + 1);
    char out[121];
    size_t len;

    need(body != NULL);
    memcpy(body, bytes, n);
    body[n] = '\0';
    len = http_reply_excerpt(body, out, sizeof(out));
    need(len < sizeof(out) && out[len] == '\0' && len <= n);
    for (size_t i = 0; i < len; i++)
        need(out[i] >= 0x20 && out[i] < 0x7f);
    need(http_reply_excerpt(body, out, 1) == 0 && out[0] == '\0');
    free(body);
}

static void outcome(int status, uint32_t retry_after_ms)
{
    struct retry_policy p = {100, 64000, 2.0};
    struct retry_rng rng = {(uint64_t)status};
    struct breaker b = {0};
    enum verdict v = retry_verdict(HTTP_OK, status);

    need(v <= VERDICT_CANCEL);
    need((v == VERDICT_DELIVERED) == (status >= 200 && status <= 299));
    need((retry_advice(HTTP_OK, status)[0] == '\0') ==
         (v == VERDICT_DELIVERED));
    breaker_failure(&b, &p, &rng, false, 1000, retry_after_ms, 0);
    need(b.until_ns <= 1000 + (uint64_t)RETRY_AFTER_MAX_MS * 1000000);
    breaker_failure(&b, &p, &rng, true, 2000, retry_after_ms, 5000);
    need(b.blocked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *rest = (const char *)data + 3;

    if (size < 3)
        return 0;
    if (data[0] % 2 == 0)
        header(rest, size - 3);
    else
        excerpt(rest, size - 3);
    outcome(data[1] * 256 + data[2],
            http_reply_retry_after_ms(rest, size - 3, 1700000000));
    return 0;
}
