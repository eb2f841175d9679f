/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarder/segment.h"

static struct segment_record some_record(void)
{
    return (struct segment_record){.state = RECORD_FROZEN,
                                   .order = 0x0102030405060708,
                                   .n_bytes = 5,
                                   .n_raw_bytes = 50,
                                   .n_index_bytes = 2,
                                   .kind = PAYLOAD_EVENTS,
                                   .encoding = ENCODING_ZSTD,
                                   .flags = RECORD_RESTORED,
                                   .load = {1, 2, 3, 4},
                                   .newest_s = 1700000000};
}

/* The bytes as docs/store.md has them, and not as the program writes them. */
static void the_bytes_are_those_of_the_documentation(void **state)
{
    static const unsigned char head_bytes[32] =
        "rtvseg\r\n\x01\0\0\0\x28\0\0\0\xef\xcd\xab\x89\x67\x45\x23\x01"
        "\x00\xf1\x53\x65\0\0\0";
    static const unsigned char record_bytes[] =
        "\x08\x07\x06\x05\x04\x03\x02\x01\x05\0\0\0\x32\0\0\0\x02\0\0\0"
        "\x02\x03\x01\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
        "\x04\0\0\0\0\0\0\0\x00\xf1\x53\x65\0\0\0";
    struct segment_head h = {0x0123456789abcdef, 1700000000};
    struct segment_record r = some_record();
    unsigned char head[SEGMENT_HEAD_BYTES];
    unsigned char record[SEGMENT_RECORD_BYTES];

    (void)state;
    segment_head_write(head, &h);
    assert_memory_equal(head, head_bytes, sizeof(head_bytes));
    segment_record_write(record, &r, "hello", "ix");
    assert_memory_equal(record, "RvP1\x01\0\0\0", 8);
    assert_memory_equal(record + 16, record_bytes, sizeof(record_bytes));
    assert_int_equal(segment_record_size(&r), 88);
}

static void what_was_written_is_read(void **state)
{
    struct segment_record r = some_record();
    struct segment_record got;
    struct segment_head h = {7, -1};
    struct segment_head h2;
    struct segment_check *c = segment_check_create();
    unsigned char head[SEGMENT_RECORD_BYTES];

    (void)state;
    segment_head_write(head, &h);
    assert_int_equal(segment_head_read(&h2, head, SEGMENT_HEAD_BYTES), 0);
    assert_int_equal(h2.life, 7);
    assert_int_equal(h2.created_s, -1);
    segment_record_write(head, &r, "hello", "ix");
    assert_int_equal(segment_record_read(&got, head, 88), 0);
    assert_int_equal(got.state, RECORD_FROZEN);
    assert_int_equal(got.order, r.order);
    assert_int_equal(got.kind, r.kind);
    assert_int_equal(got.flags, RECORD_RESTORED);
    assert_int_equal(got.newest_s, r.newest_s);
    assert_memory_equal(&got.load, &r.load, sizeof(r.load));
    assert_non_null(c);
    segment_check_begin(c, head);
    segment_check_add(c, "he", 2);
    segment_check_add(c, "lloix", 5);
    assert_int_equal(segment_check_end(c), got.check);
    /* Its state is not a part of the check. */
    segment_state_write(head + SEGMENT_STATE_AT, RECORD_SETTLED);
    assert_int_equal(segment_record_read(&got, head, 88), 0);
    assert_int_equal(got.state, RECORD_SETTLED);
    segment_check_begin(c, head);
    segment_check_add(c, "helloix", 7);
    assert_int_equal(segment_check_end(c), got.check);
    segment_check_free(c);
}

static void a_state_nobody_wrote_is_maybe_sent(void **state)
{
    struct segment_record r = some_record();
    unsigned char head[SEGMENT_RECORD_BYTES];

    (void)state;
    segment_record_write(head, &r, "hello", "ix");
    head[SEGMENT_STATE_AT] = 0x77;
    assert_int_equal(segment_record_read(&r, head, 88), 0);
    assert_int_equal(r.state, RECORD_MAYBE_SENT);
}

static void heads_say_what_is_wrong_with_them(void **state)
{
    struct segment_head h = {7, 1};
    unsigned char head[SEGMENT_HEAD_BYTES];

    (void)state;
    segment_head_write(head, &h);
    for (size_t n = 0; n < sizeof(head); n++)
        assert_int_equal(segment_head_read(&h, head, n), SEGMENT_SHORT);
    for (size_t i = 16; i < sizeof(head); i++) {
        head[i] ^= 0x10;
        assert_int_equal(segment_head_read(&h, head, sizeof(head)),
                         SEGMENT_DAMAGED);
        head[i] ^= 0x10;
    }
    head[8] = 2;
    assert_int_equal(segment_head_read(&h, head, sizeof(head)), SEGMENT_NEWER);
    assert_int_equal(segment_head_read(&h, head, 12), SEGMENT_NEWER);
    head[8] = 0;
    assert_int_equal(segment_head_read(&h, head, sizeof(head)),
                     SEGMENT_DAMAGED);
    head[0] = 'x';
    assert_int_equal(segment_head_read(&h, head, sizeof(head)),
                     SEGMENT_FOREIGN);
    assert_int_equal(segment_head_read(&h, head, 1), SEGMENT_FOREIGN);
    assert_int_equal(h.life, 7); /* untouched */
}

static void records_say_what_is_wrong_with_them(void **state)
{
    struct segment_record r = some_record();
    struct segment_record got = {.order = 99};
    unsigned char head[SEGMENT_RECORD_BYTES];
    unsigned char bad[SEGMENT_RECORD_BYTES];
    /* Magic, body of 0 and of 4 GiB, index, kind, encoding, samples. */
    static const struct {
        size_t at;
        unsigned char value;
    } wrong[] = {{0, 0},  {24, 0}, {27, 0xff}, {35, 0xff}, {36, 4},
                 {37, 9}, {47, 1}, {55, 1},    {63, 1},    {71, 1}};

    (void)state;
    segment_record_write(head, &r, "hello", "ix");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memcpy(bad, head, sizeof(bad));
        bad[wrong[i].at] = wrong[i].value;
        assert_int_equal(segment_record_read(&got, bad, UINT64_MAX),
                         SEGMENT_DAMAGED);
    }
    for (uint64_t left = 0; left < 88; left++)
        assert_int_equal(segment_record_read(&got, head, left), SEGMENT_SHORT);
    assert_int_equal(got.order, 99); /* untouched */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bytes_are_those_of_the_documentation),
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_state_nobody_wrote_is_maybe_sent),
        cmocka_unit_test(heads_say_what_is_wrong_with_them),
        cmocka_unit_test(records_say_what_is_wrong_with_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
