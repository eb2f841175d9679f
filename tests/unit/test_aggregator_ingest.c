/* SPDX-License-Identifier: Apache-2.0 */
/* Lines to items: one thread, virtual time, every commit proved. */
#include <stdio.h>

#include "tests/support/pipeline.h"

static void a_counter_gives_its_sum_over_ten_as_a_rate(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1000, "a.b:1:2|c|#x:1,y:2\na.b:4|c|@0.5|#y:2,x:1\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text, "a.b rate 1000=1.1 [x:1,y:2] @h");
    assert_int_equal(p.items[0].n_samples, 3);
    pipeline_close(&p);
}

static void a_gauge_gives_its_last_value(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    pipeline_feed(&p, 1003, "g:1|g\ng:7|g\ng:3|g|@0.1\n");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 1);
    assert_string_equal(p.items[0].text, "g gauge 1000=3 [] @h");
    pipeline_close(&p);
}

/* Lines whose contexts have their cells already go another way. */
static void rates_count_the_second_time_as_the_first(void **state)
{
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    for (int i = 0; i < 2; i++)
        pipeline_feed(&p, 1000, "c:1|c|@0.5\ng:3|g|@0.1\nb:1|c|@2\n");
    assert_int_equal(agg_counts(p.agg)->bad_rate, 2);
    assert_int_equal(agg_counts(p.agg)->aggregated, 6);
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 3);
    (void)pipeline_find(&p, "c rate 1000=0.4 ");
    (void)pipeline_find(&p, "g gauge 1000=3 ");
    (void)pipeline_find(&p, "b rate 1000=0.2 ");
    pipeline_close(&p);
}

/* What a ring or a batch holds: usual lines, and some that are not. */
static const char *const datagrams[] = {
    "a:1|c",
    "a:2|c\n",
    "b:5|g|#x:1",
    "a:3|c|#y",
    "h:7|h|@0.5",
    "two:1|c\nb:2|c",
    "",
    "bad",
    "a:1:2:3|c",
    "d:4|d",
    "a:1|c|T900",
    "_e{1,1}:t|u",
    "_sc|up|1",
    "s:me|s",
    "a:9|c|#y",
    "toolong.\n\n",
    "b:6|g|#x:1",
    "a:nan|c",
    "z:1|c",
    "a:1|c",
    "a:1|c\n",
    "c:1|ms",
    "c:2|ms|#a,b",
    "a:1|c",
};
#define N_DATAGRAMS (sizeof(datagrams) / sizeof(datagrams[0]))

static void list_records(struct dsd_packet r[N_DATAGRAMS])
{
    for (uint32_t i = 0; i < N_DATAGRAMS; i++)
        r[i] = (struct dsd_packet){.p = datagrams[i],
                                   .n = (uint32_t)strlen(datagrams[i]),
                                   .record = i,
                                   .next = i + 1};
}

/* As the reader does: groups as far as they go, then one. */
static void feed_in_groups(struct pipeline *p, uint32_t most)
{
    struct dsd_packet r[N_DATAGRAMS];
    uint32_t working = 0;

    list_records(r);
    *p->pos = (struct ingest_pos){0, 0};
    while (p->pos->record < N_DATAGRAMS) {
        uint32_t at = p->pos->record;
        uint32_t left = (uint32_t)N_DATAGRAMS - at;
        uint32_t n =
            ingest_datagrams(&p->in, p->pos, r + at, left < most ? left : most,
                             &working, TRANSPORT_UDS, 1000);

        assert_in_range(working, at, at + (n < most ? n : n - 1));
        assert_int_equal(p->pos->record, at + n);
        if (n == 0)
            ingest_packet(&p->in, p->pos, at + 1, r[at].p, r[at].n,
                          TRANSPORT_UDS, 0, 1000);
    }
}

static void groups_of_datagrams_give_what_each_alone_gives(void **state)
{
    struct ingest_counts alone;
    struct pipeline one, many;

    (void)state;
    pipeline_open(&one, NULL);
    for (size_t i = 0; i < N_DATAGRAMS; i++)
        ingest_packet(&one.in, one.pos, 0, datagrams[i], strlen(datagrams[i]),
                      TRANSPORT_UDS, 0, 1000);
    alone = *agg_counts(one.agg);
    pipeline_feed(&one, 1010, "");
    pipeline_take(&one);
    for (uint32_t most = 1; most <= DSD_AHEAD_LINES + 4; most++) {
        pipeline_open(&many, NULL);
        feed_in_groups(&many, most);
        assert_memory_equal(agg_counts(many.agg), &alone, sizeof(alone));
        pipeline_feed(&many, 1010, "");
        pipeline_take(&many);
        assert_int_equal(many.n_items, one.n_items);
        for (size_t i = 0; i < one.n_items; i++)
            assert_string_equal(many.items[i].text, one.items[i].text);
        pipeline_check_ledger(&many);
        pipeline_close(&many);
    }
    pipeline_close(&one);
}

/* Room runs short behind each line that takes the long way, wherever it stands. */
static const struct dsd_ahead_form *real_form;
static struct agg *short_of_room;

static void read_and_run_short(const struct dsd_ahead_opts *o,
                               struct dsd_ahead_lines *out,
                               const struct dsd_packet *in, uint32_t n,
                               uint32_t *working)
{
    real_form->read(o, out, in, n, working);
    short_of_room->low = true;
    short_of_room->refused_s = 0;
}

static const char *const packed[] = {
    "a:1|c\nb:2|d\na:3|c\nb:4|d\na:5|c",
    "b:6|d",
    "a:7|c\nb:8|d",
    "b:9|d\na:10|c",
    "",
    "a:11|c",
};
#define N_PACKED (sizeof(packed) / sizeof(packed[0]))

static void feed_packed(struct pipeline *p, bool in_groups)
{
    struct dsd_packet r[N_PACKED];
    uint32_t working;

    for (uint32_t i = 0; i < N_PACKED; i++)
        r[i] = (struct dsd_packet){.p = packed[i],
                                   .n = (uint32_t)strlen(packed[i]),
                                   .record = i,
                                   .next = i + 1};
    *p->pos = (struct ingest_pos){0, 0};
    while (p->pos->record < N_PACKED) {
        uint32_t at = p->pos->record;
        uint32_t n = 0;

        if (in_groups)
            n = ingest_datagrams(&p->in, p->pos, r + at,
                                 (uint32_t)N_PACKED - at, &working,
                                 TRANSPORT_UDS, 1000);
        assert_int_equal(p->pos->record, at + n);
        if (n == 0)
            ingest_packet(&p->in, p->pos, at + 1, r[at].p, r[at].n,
                          TRANSPORT_UDS, 0, 1000);
    }
}

static void a_full_stretch_ends_a_group_within_a_datagram(void **state)
{
    struct dsd_ahead_form form;
    struct pipeline one, many;
    uint32_t n_within = 0;

    (void)state;
    pipeline_open(&one, NULL);
    pipeline_open(&many, NULL);
    real_form = many.agg->form;
    short_of_room = many.agg;
    form = (struct dsd_ahead_form){read_and_run_short, real_form->hash};
    many.agg->form = &form;
    for (int i = 0; i < 3; i++) { /* contexts unknown, known, with cells */
        struct dsd_packet first = {.p = packed[0],
                                   .n = (uint32_t)strlen(packed[0]),
                                   .next = 1};
        uint32_t working;

        feed_packed(&one, false);
        feed_packed(&many, true);
        assert_memory_equal(agg_counts(many.agg), agg_counts(one.agg),
                            sizeof(struct ingest_counts));
        *many.pos = (struct ingest_pos){0, 0};
        if (ingest_datagrams(&many.in, many.pos, &first, 1, &working,
                             TRANSPORT_UDS, 1000) == 0 &&
            many.pos->offset > 0)
            n_within++;
        ingest_packet(&many.in, many.pos, 1, packed[0], strlen(packed[0]),
                      TRANSPORT_UDS, 0, 1000);
        ingest_packet(&one.in, one.pos, 1, packed[0], strlen(packed[0]),
                      TRANSPORT_UDS, 0, 1000);
        assert_memory_equal(agg_counts(many.agg), agg_counts(one.agg),
                            sizeof(struct ingest_counts));
    }
    assert_int_equal(n_within, 3);
    pipeline_feed(&one, 1010, "");
    pipeline_feed(&many, 1010, "");
    pipeline_take(&one);
    pipeline_take(&many);
    assert_int_equal(many.n_items, one.n_items);
    for (size_t i = 0; i < one.n_items; i++)
        assert_string_equal(many.items[i].text, one.items[i].text);
    pipeline_close(&many);
    pipeline_close(&one);
}

/* Behind a successor's back a line may be applied in part. */
static void a_group_does_not_begin_inside_a_datagram(void **state)
{
    struct dsd_packet r[N_DATAGRAMS];
    struct pipeline p;
    uint32_t working;

    (void)state;
    list_records(r);
    pipeline_open(&p, NULL);
    *p.pos = (struct ingest_pos){0, 3};
    assert_int_equal(ingest_datagrams(&p.in, p.pos, r, 4, &working,
                                      TRANSPORT_UDS, 1000),
                     0);
    assert_int_equal(agg_counts(p.agg)->datagrams, 0);
    pipeline_close(&p);
}

static void feed_own(struct pipeline *p, const char *lines)
{
    char packet[64];

    (void)snprintf(packet, sizeof(packet), "%s", lines);
    ingest_packet(&p->in, p->pos, p->pos->record + 1, packet, strlen(packet),
                  TRANSPORT_KERNEL, 0, 1000);
}

/* The same spelling by a client is another series, whichever came first. */
static void lines_of_our_own_take_no_prefix_and_are_no_datagram(void **state)
{
    static const char group[] = "x:3|g\nv:3|g"; /* behind one of ours */
    struct agg_config cfg = pipeline_config();
    struct dsd_packet r;
    struct pipeline p;
    uint32_t working;

    (void)state;
    cfg.name_prefix = "app.";
    pipeline_open(&p, &cfg);
    p.in.eol_required[TRANSPORT_UDP] = true;
    feed_own(&p, "x:1|g\ny:1|g");
    pipeline_feed(&p, 1000, "x:2|g\ny:2|g\nz:2|g\n");
    feed_own(&p, "z:1|g\n");
    r = (struct dsd_packet){.p = group,
                            .n = sizeof(group) - 1,
                            .record = p.pos->record,
                            .next = p.pos->record + 1};
    assert_int_equal(ingest_datagrams(&p.in, p.pos, &r, 1, &working,
                                      TRANSPORT_UDS, 1000),
                     1);
    assert_int_equal(agg_counts(p.agg)->datagrams, 2);
    assert_int_equal(agg_counts(p.agg)->received[TRANSPORT_KERNEL], 3);
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 7);
    assert_int_equal((int)pipeline_find(&p, "app.v gauge")->value, 3);
    assert_int_equal((int)pipeline_find(&p, "x gauge")->value, 1);
    assert_int_equal((int)pipeline_find(&p, "y gauge")->value, 1);
    assert_int_equal((int)pipeline_find(&p, "z gauge")->value, 1);
    assert_int_equal((int)pipeline_find(&p, "app.x gauge")->value, 3);
    assert_int_equal((int)pipeline_find(&p, "app.y gauge")->value, 2);
    assert_int_equal((int)pipeline_find(&p, "app.z gauge")->value, 2);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

static void tags_of_the_sender_are_added_and_tell_senders_apart(void **state)
{
    const char *const one = "gpu:1,team:x";
    struct pipeline p;

    (void)state;
    pipeline_open(&p, NULL);
    agg_set_origin(p.agg, (struct view){one, (uint32_t)strlen(one)});
    pipeline_feed(&p, 1000, "a:1|c|#z:1\nb:1|c");
    pipeline_feed(&p, 1000, "a:1|c|#z:1\nb:1|c|#gpu:1\nb:2|c|#host:me,gpu:1");
    agg_set_origin(p.agg, (struct view){"gpu:2", 5});
    pipeline_feed(&p, 1000, "a:10|c|#z:1");
    agg_set_origin(p.agg, (struct view){0});
    pipeline_feed(&p, 1000, "a:100|c|#z:1\na:100|c|#gpu:2,z:1");
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_int_equal(p.n_items, 5);
    (void)pipeline_find(&p, "a rate 1000=0.2 [gpu:1,team:x,z:1] @h");
    (void)pipeline_find(&p, "b rate 1000=0.2 [gpu:1,team:x] @h");
    (void)pipeline_find(&p, "b rate 1000=0.2 [gpu:1,team:x] @me");
    (void)pipeline_find(&p, "a rate 1000=11 [gpu:2,z:1] @h");
    (void)pipeline_find(&p, "a rate 1000=10 [z:1] @h");
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

/* More senders than contexts: one overflow series per metric, not one per sender. */
static void senders_beyond_the_limit_fold_together(void **state)
{
    struct agg_config cfg = pipeline_config();
    struct pipeline p;
    double sum = 0;

    (void)state;
    cfg.context_limit = 4;
    pipeline_open(&p, &cfg);
    for (unsigned i = 0; i < 50; i++) {
        char tags[32];
        int n = snprintf(tags, sizeof(tags), "gpu:%u", i);

        agg_set_origin(p.agg, (struct view){tags, (uint32_t)n});
        pipeline_feed(&p, 1000, "a:10|c");
    }
    agg_set_origin(p.agg, (struct view){0});
    pipeline_feed(&p, 1010, "");
    pipeline_take(&p);
    assert_true(p.n_items <= 6);
    for (size_t i = 0; i < p.n_items; i++)
        sum += p.items[i].value;
    assert_int_equal((int)(sum + 0.5), 50);
    assert_true(agg_counts(p.agg)->folded >= 40);
    pipeline_check_ledger(&p);
    pipeline_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_counter_gives_its_sum_over_ten_as_a_rate),
        cmocka_unit_test(a_gauge_gives_its_last_value),
        cmocka_unit_test(rates_count_the_second_time_as_the_first),
        cmocka_unit_test(a_full_stretch_ends_a_group_within_a_datagram),
        cmocka_unit_test(groups_of_datagrams_give_what_each_alone_gives),
        cmocka_unit_test(a_group_does_not_begin_inside_a_datagram),
        cmocka_unit_test(tags_of_the_sender_are_added_and_tell_senders_apart),
        cmocka_unit_test(senders_beyond_the_limit_fold_together),
        cmocka_unit_test(lines_of_our_own_take_no_prefix_and_are_no_datagram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
