/* SPDX-License-Identifier: Apache-2.0 */
/* The receipt: its keys and its arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/ledger.h"

static const uint32_t stage_ms[STAGE_DONE] = {
    [STAGE_LINGER] = 101, [STAGE_DRAIN] = 25, [STAGE_KERNEL] = 2,
    [STAGE_CLOSE] = 1,    [STAGE_ENCODE] = 3, [STAGE_DELIVER] = 80,
    [STAGE_SAVE] = 0};

static const struct ledger_facts facts = {.reason = "SIGTERM",
                                          .exit_status = 3,
                                          .duration_ms = 212,
                                          .stage_ms = stage_ms,
                                          .worker_deaths = 2};

/* What ledger_collect() would have summed. */
static struct ledger sample(void)
{
    struct ledger l = {0};

    l.ingest.datagrams = 1000;
    l.ingest.bytes = 52000;
    l.ingest.received[TRANSPORT_UDP] = 3900;
    l.ingest.received[TRANSPORT_UDS] = 104;
    l.received = 4004;
    l.ingest.rejected[DSD_PARSE_TYPE] = 3;
    l.rejected = 3;
    l.ingest.filtered[FILTER_DISABLED] = 1;
    l.filtered = 1;
    l.ingest.aggregated = 4000;
    l.ingest.events = 5;
    l.ingest.checks = 6;
    l.ingest.events_rejected = 7;
    l.ingest.checks_rejected = 8;
    l.ingest.folded = 9;
    l.ingest.delivered_old = 10;
    l.ingest.kernel_drops[TRANSPORT_UDP] = 11;
    l.delivery.delivered = 3900;
    l.delivery.saved = 10;
    l.delivery.dropped[DROP_EVICTED] = 20;
    l.delivery.dropped[DROP_HTTP] = 50;
    l.delivery.dropped_http[403 - 100] = 20;
    l.delivery.dropped_http[413 - 100] = 30;
    l.dropped = 70;
    l.unencoded = 4;
    l.in_flight = 14;
    l.open = 6;
    l.delivery.points_delivered = 120;
    l.delivery.payloads_sent = 2;
    l.delivery.payloads_retried = 12;
    l.delivery.payloads_ambiguous = 13;
    l.delivery.events_delivered = 3;
    l.delivery.events_dropped = 2;
    l.delivery.checks_delivered = 6;
    l.left_for_successor = 15;
    return l;
}

static void the_receipt_has_these_keys(void **state)
{
    static const char expected[] =
        "{\"retriever\":\"" RETRIEVER_VERSION "\",\"receipt\":1,"
        "\"reason\":\"SIGTERM\",\"balanced\":true,\"exit\":3,"
        "\"duration_ms\":212,\"stages_ms\":{\"linger\":101,\"drain\":25,"
        "\"kernel\":2,\"close\":1,\"encode\":3,\"deliver\":80,\"save\":0},"
        "\"received\":{\"datagrams\":1000,\"bytes\":52000,\"samples\":4004,"
        "\"events\":5,\"checks\":6,\"by_transport\":{\"udp\":3900,\"uds\":104,"
        "\"uds_stream\":0,\"tcp\":0,\"kernel\":0}},\"rejected\":{\"parse_"
        "type\":3},"
        "\"filtered\":{\"disabled\":1},\"aggregated\":4000,"
        "\"delivered\":3900,\"saved\":10,\"dropped\":{\"evicted\":20,"
        "\"http_403\":20,\"http_413\":30},\"in_flight\":14,\"open\":6,"
        "\"points\":120,\"payloads\":{\"sent\":2,\"retried\":12,"
        "\"ambiguous\":13},\"events\":{\"delivered\":3,\"dropped\":2,"
        "\"rejected\":7},\"checks\":{\"delivered\":6,\"dropped\":0,"
        "\"rejected\":8},\"folded\":9,\"delivered_old\":10,"
        "\"kernel_drops\":{\"udp\":11},\"tapped\":{\"udp\":0,\"uds\":0},"
        "\"left_for_successor\":15,"
        "\"worker_deaths\":2,\"upgrades\":0,\"input\":{";
    struct ledger l = sample();
    struct buf out;

    (void)state;
    buf_init(&out, 65536);
    assert_int_equal(ledger_write_json(&l, &facts, &out), 0);
    assert_true(out.n > sizeof(expected) - 1);
    assert_memory_equal(out.data, expected, sizeof(expected) - 1);
    assert_memory_equal(out.data + out.n - 2, "}}", 2);
    assert_null(memchr(out.data, '\n', out.n));
    buf_fini(&out);
    buf_init(&out, 100);
    assert_int_equal(ledger_write_json(&l, &facts, &out), -ENOMEM);
    buf_fini(&out);
}

static void earlier_lives_have_books_of_their_own(void **state)
{
    static const char expected[] =
        "\"restored\":{\"payloads\":3,\"samples\":100,\"delivered\":50,"
        "\"saved\":20,\"dropped\":{\"disk\":4,\"http_400\":6},"
        "\"in_flight\":20,\"damaged_bytes\":7},\"folded\":";
    struct ledger l = sample();
    struct buf out;

    (void)state;
    l.restored = (struct store_books){
        .accepted.n_samples = 100,
        .n_payloads = 3,
        .counts = {.delivered = 50, .saved = 20, .delivered_old = 1000},
    };
    l.restored.counts.dropped[DROP_DISK] = 4;
    l.restored.counts.dropped[DROP_HTTP] = 6;
    l.restored.counts.dropped_http[400 - 100] = 6;
    l.restored_dropped = 10;
    l.restored_in_flight = 20;
    l.delivery.delivered_old = 100;
    l.store.disk.n_damaged_bytes = 7;
    assert_true(ledger_balances(&l));
    assert_int_equal(ledger_dropped(&l), 80);
    buf_init(&out, 65536);
    assert_int_equal(ledger_write_json(&l, &facts, &out), 0);
    assert_int_equal(buf_putc(&out, '\0'), 0);
    assert_non_null(strstr(out.data, expected));
    assert_non_null(strstr(out.data, "\"delivered_old\":1110,"));
    buf_fini(&out);
    l.restored_in_flight--;
    assert_false(ledger_balances(&l));
    assert_int_equal(ledger_exit_status(&l, 80), 4);
    l.restored_in_flight++;
    ledger_finish(&l);
    assert_true(ledger_balances(&l));
    assert_int_equal(l.restored.counts.dropped[DROP_DEADLINE], 20);
    assert_int_equal(ledger_exit_status(&l, ledger_dropped(&l)), 0);
    assert_int_equal(ledger_exit_status(&l, ledger_dropped(&l) - 1), 3);
}

static void what_is_left_at_the_end_is_late(void **state)
{
    struct ledger l = sample();

    (void)state;
    ledger_finish(&l);
    assert_true(ledger_balances(&l));
    assert_int_equal(l.delivery.dropped[DROP_DEADLINE], 20);
    assert_int_equal(l.dropped, 90);
    assert_int_equal(l.open + l.in_flight + l.unencoded, 0);
}

static void one_sample_more_or_less_shows(void **state)
{
    struct ledger l = sample();

    (void)state;
    assert_true(ledger_balances(&l));
    l.received++;
    assert_false(ledger_balances(&l));
    l.ingest.aggregated++;
    assert_false(ledger_balances(&l));
    l.open++;
    assert_true(ledger_balances(&l));
    l.delivery.delivered--;
    assert_false(ledger_balances(&l));
}

static void the_exit_status_speaks_of_the_stop_alone(void **state)
{
    struct ledger l = sample();

    (void)state;
    assert_int_equal(ledger_exit_status(&l, 70), 3); /* open, in flight */
    ledger_finish(&l);
    assert_int_equal(ledger_exit_status(&l, 70), 3);
    assert_int_equal(ledger_exit_status(&l, 90), 0);
    l.delivery.delivered++;
    assert_int_equal(ledger_exit_status(&l, 90), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_receipt_has_these_keys),
        cmocka_unit_test(earlier_lives_have_books_of_their_own),
        cmocka_unit_test(what_is_left_at_the_end_is_late),
        cmocka_unit_test(one_sample_more_or_less_shows),
        cmocka_unit_test(the_exit_status_speaks_of_the_stop_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
