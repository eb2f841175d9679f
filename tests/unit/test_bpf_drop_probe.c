/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is chosen on kernels that are not here: each is a BTF made by hand, as that
 * kernel's would be, or the facts themselves.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include <bpf/btf.h>
#include <stdio.h>

#include "bpf/drop_probe.h"

/* A tracepoint called with @n arguments, and its own in front. */
static void add_tracepoint(struct btf *b, const char *name, int n)
{
    char full[64];
    int proto;

    (void)snprintf(full, sizeof(full), "btf_trace_%s", name);
    proto = btf__add_func_proto(b, 0);
    for (int i = 0; i <= n; i++)
        assert_int_equal(btf__add_func_param(b, "", 1), 0);
    assert_true(btf__add_typedef(b, full, btf__add_ptr(b, proto)) > 0);
}

static struct btf *empty_kernel(void)
{
    struct btf *b = btf__new_empty();

    assert_non_null(b);
    assert_int_equal(btf__add_int(b, "int", 4, BTF_INT_SIGNED), 1);
    return b;
}

static void add_reasons(struct btf *b, int queue, int memory)
{
    assert_true(btf__add_enum(b, "skb_drop_reason", 4) > 0);
    (void)btf__add_enum_value(b, "SKB_DROP_REASON_NOT_SPECIFIED", 0);
    (void)btf__add_enum_value(b, "SKB_DROP_REASON_SOCKET_RCVBUFF", queue);
    if (memory >= 0)
        (void)btf__add_enum_value(b, "SKB_DROP_REASON_PROTO_MEM", memory);
}

static void what_btf_says_is_found(void **state)
{
    struct btf *b = empty_kernel();
    struct drop_kernel k;

    (void)state;
    add_tracepoint(b, "udp_fail_queue_rcv_skb", 3);
    add_tracepoint(b, "kfree_skb", 4);
    add_tracepoint(b, "sock_send_length", 3);
    add_reasons(b, 6, 20);
    assert_true(btf__add_struct(b, "udp_prod_queue", 64) > 0);
    drop_probe(b, &k);
    assert_int_equal(k.n_fail_args, 3);
    assert_int_equal(k.n_free_args, 4);
    assert_int_equal(k.n_length_args, 3);
    assert_int_equal(k.reason_queue, 6);
    assert_int_equal(k.reason_memory, 20);
    assert_true(k.has_producers);
    btf__free(b);
}

static void what_btf_does_not_say_is_not_there(void **state)
{
    struct btf *b = empty_kernel();
    struct drop_kernel k;
    struct drop_plan plan;

    (void)state;
    drop_probe(b, &k);
    assert_int_equal(k.n_fail_args, 0);
    assert_int_equal(k.n_free_args, 0);
    assert_int_equal(k.n_length_args, 0);
    assert_int_equal(k.reason_queue, DROP_NO_REASON);
    assert_int_equal(k.reason_memory, DROP_NO_REASON);
    assert_false(k.has_producers);
    assert_false(drop_choose(&k, &plan));
    assert_non_null(plan.missing);
    btf__free(b);
}

/* A typedef of that name which is no pointer to a function: BTF of a module, or a
 * kernel of some day. */
static void a_strange_tracepoint_is_none(void **state)
{
    struct btf *b = empty_kernel();
    struct drop_kernel k;

    (void)state;
    assert_true(btf__add_typedef(b, "btf_trace_kfree_skb", 1) > 0);
    assert_true(btf__add_typedef(b, "btf_trace_sock_send_length",
                                 btf__add_ptr(b, 1)) > 0);
    drop_probe(b, &k);
    assert_int_equal(k.n_free_args, 0);
    assert_int_equal(k.n_length_args, 0);
    btf__free(b);
}

/* Rows from old to new. */
static const struct {
    const char *kernel;
    struct drop_kernel k;
    struct drop_plan plan; /* missing: whether something is */
} rows[] = {
    {"5.10",
     {2, 2, 0, DROP_NO_REASON, DROP_NO_REASON, false},
     {.udp_lost_total = true, .missing = "senders"}},
    {"5.17",
     {2, 3, 0, 6, DROP_NO_REASON, false},
     {.udp_lost_total = true, .udp_lost_by = true, .missing = "Unix"}},
    {"6.6",
     {2, 3, 3, 6, 18, false},
     {.udp_lost_total = true, .udp_lost_by = true, .unix_lost = true}},
    {"6.10", {3, 3, 3, 6, 20, false}, {.udp_lost = true, .unix_lost = true}},
    {"6.18",
     {3, 4, 3, 6, 20, true},
     {.udp_lost = true, .udp_no_memory = true, .unix_lost = true}},
    {"no UDP", {0, 4, 3, 6, 20, true}, {.unix_lost = true, .missing = "UDP"}},
};

static void each_kernel_gets_what_it_can_run(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct drop_plan *want = &rows[i].plan;
        struct drop_plan got;

        (void)printf("%s\n", rows[i].kernel);
        assert_true(drop_choose(&rows[i].k, &got));
        assert_int_equal(got.udp_lost, want->udp_lost);
        assert_int_equal(got.udp_lost_total, want->udp_lost_total);
        assert_int_equal(got.udp_lost_by, want->udp_lost_by);
        assert_int_equal(got.udp_no_memory, want->udp_no_memory);
        assert_int_equal(got.unix_lost, want->unix_lost);
        assert_int_equal(got.missing != NULL, want->missing != NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_btf_says_is_found),
        cmocka_unit_test(what_btf_does_not_say_is_not_there),
        cmocka_unit_test(a_strange_tracepoint_is_none),
        cmocka_unit_test(each_kernel_gets_what_it_can_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
