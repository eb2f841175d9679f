/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/handover.h"

struct fixture {
    struct landing landing;
    struct handover h;
    int fd;
    int pairs[3][2];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct landing_opts opts = {.buffer_bytes = 64,
                                      .n_conns = 8,
                                      .max_frame_bytes = 65536};

    assert_non_null(f);
    assert_int_equal(landing_create(&f->landing, &opts), 0);
    f->fd = memfd_create("test-record", MFD_CLOEXEC);
    assert_true(f->fd >= 0);
    f->h = (struct handover){.worker_pid = 1,
                             .run_dir = -1,
                             .doorbell = 3,
                             .payloads = 4,
                             .points = 5,
                             .baton_fd = 6};
    for (int i = 0; i < 3; i++)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, f->pairs[i]), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        close(f->pairs[i][0]);
        close(f->pairs[i][1]);
    }
    landing_close(&f->landing);
    close(f->fd);
    free(f);
    return 0;
}

/* Each word another number, so that no two can be taken for one another. */
static void number_words(void *p, size_t n, uint64_t from)
{
    uint64_t *words = p;

    for (size_t i = 0; i < n / sizeof(*words); i++)
        words[i] = from + i;
}

static void every_number_comes_back(void **state)
{
    struct fixture *f = *state;
    struct handover *h = &f->h;
    struct handover got;
    const char *why = "";

    number_words(&h->ingest, sizeof(h->ingest), 1000);
    number_words(&h->books, sizeof(h->books), 5000);
    number_words(&h->restored, sizeof(h->restored), 9000);
    for (int i = 0; i < DSD_FIRST_REJECT; i++)
        h->ingest.rejected[i] = 0; /* no reasons */
    h->life = UINT64_MAX;
    h->started_ms = 7;
    h->life_start_s = -8;
    h->last_stamp_s = 9;
    h->worker_deaths = 10;
    h->n_upgrades = 11;
    h->rested_us = 12;
    (void)snprintf(h->version, sizeof(h->version), "1.2.3");
    assert_int_equal(handover_write(f->fd, h, &f->landing), 0);
    assert_int_equal(handover_read(&got, f->fd, &why), 0);
    assert_memory_equal(&got.ingest, &h->ingest, sizeof(got.ingest));
    assert_memory_equal(&got.books, &h->books, sizeof(got.books));
    assert_memory_equal(&got.restored, &h->restored, sizeof(got.restored));
    assert_true(got.life == UINT64_MAX);
    assert_int_equal(got.started_ms, 7);
    assert_int_equal(got.life_start_s, -8);
    assert_int_equal(got.last_stamp_s, 9);
    assert_int_equal(got.worker_deaths, 10);
    assert_int_equal(got.n_upgrades, 11);
    assert_int_equal(got.rested_us, 12);
    assert_int_equal(got.run_dir, -1);
    assert_int_equal(got.doorbell, 3);
    assert_int_equal(got.payloads, 4);
    assert_int_equal(got.points, 5);
    assert_int_equal(got.baton_fd, 6);
    assert_string_equal(got.version, "1.2.3");
    handover_fini(&got);
}

static void sockets_come_back_with_their_inodes(void **state)
{
    struct fixture *f = *state;
    struct handover *h = &f->h;
    struct handover got;
    const char *why = "";

    h->sockets.n = 2;
    h->sockets.entries[0] =
        (struct socket_entry){.fd = 20, .kind = SOCKET_UDP, .orphan = true};
    h->sockets.entries[1] = (struct socket_entry){.fd = 21,
                                                  .kind = SOCKET_UNIXSTREAM,
                                                  .shared_outside = true,
                                                  .stored = true,
                                                  .path = "/run/a \"b\".sock",
                                                  .device = (dev_t)UINT64_MAX,
                                                  .inode = (ino_t)UINT64_MAX};
    h->drops_seen[0] = UINT32_MAX;
    assert_int_equal(handover_write(f->fd, h, &f->landing), 0);
    assert_int_equal(handover_read(&got, f->fd, &why), 0);
    assert_int_equal(got.sockets.n, 2);
    for (int i = 0; i < 2; i++) {
        const struct socket_entry *a = &got.sockets.entries[i];
        const struct socket_entry *b = &h->sockets.entries[i];

        assert_int_equal(a->fd, b->fd);
        assert_int_equal(a->kind, b->kind);
        assert_int_equal(a->shared_outside, b->shared_outside);
        assert_int_equal(a->stored, b->stored);
        assert_int_equal(a->orphan, b->orphan);
        assert_string_equal(a->path, b->path);
        assert_true(a->device == b->device && a->inode == b->inode);
    }
    assert_int_equal(got.drops_seen[0], UINT32_MAX);
    handover_fini(&got);
}

/* Received by @fd's connection and not applied yet. */
static void receive(struct fixture *f, uint32_t conn, const void *bytes,
                    uint32_t n)
{
    struct landing_recv *st = landing_conn_arm(&f->landing, conn, n);

    assert_non_null(st);
    assert_int_equal(send(f->pairs[conn][0], bytes, n, 0), n);
    assert_int_equal(recvmmsg(f->pairs[conn][1], &st->msg, 1, MSG_DONTWAIT,
                              NULL),
                     1);
}

static void open_frames_come_back_byte_by_byte(void **state)
{
    struct fixture *f = *state;
    static unsigned char large[60000];
    struct handover got;
    const char *why = "";

    for (size_t i = 0; i < sizeof(large); i++)
        large[i] = (unsigned char)(i * 7);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(landing_conn_open(&f->landing, i, f->pairs[i][1],
                                           i + 4),
                         0);
    receive(f, 0, "\x09\0\0\0ab", 6);
    receive(f, 2, large, sizeof(large));
    assert_int_equal(handover_write(f->fd, &f->h, &f->landing), 0);
    assert_int_equal(handover_read(&got, f->fd, &why), 0);
    assert_int_equal(got.n_conns, 3);
    assert_int_equal(got.conns[0].n_bytes, 6);
    assert_memory_equal(got.bytes + got.conns[0].at, "\x09\0\0\0ab", 6);
    assert_int_equal(got.conns[1].n_bytes, 0);
    assert_int_equal(got.conns[2].n_bytes, sizeof(large));
    assert_memory_equal(got.bytes + got.conns[2].at, large, sizeof(large));
    assert_int_equal(got.conns[2].listener, 6);
    assert_int_equal(got.conns[2].fd, f->pairs[2][1]);

    /* And into another landing zone. */
    for (uint32_t i = 0; i < 3; i++)
        landing_conn_free(&f->landing, i);
    assert_int_equal(landing_conn_restore(&f->landing, 5, f->pairs[2][1], 6,
                                          got.bytes + got.conns[2].at,
                                          got.conns[2].n_bytes),
                     0);
    assert_int_equal(landing_filled(landing_state(&f->landing.conns[5])),
                     sizeof(large));
    assert_memory_equal(landing_half(&f->landing, 5, 0), large, sizeof(large));
    assert_int_equal(landing_conn_restore(&f->landing, 6, 0, 6, large,
                                          65536 + 4),
                     -EMSGSIZE);
    handover_fini(&got);
}

static void a_shorter_record_replaces_a_longer_one(void **state)
{
    struct fixture *f = *state;
    struct handover got;
    const char *why = "";

    assert_int_equal(landing_conn_open(&f->landing, 0, f->pairs[0][1], 0), 0);
    receive(f, 0, "\x09\0\0\0abc", 7);
    assert_int_equal(handover_write(f->fd, &f->h, &f->landing), 0);
    landing_conn_free(&f->landing, 0);
    assert_int_equal(handover_write(f->fd, &f->h, &f->landing), 0);
    assert_int_equal(handover_read(&got, f->fd, &why), 0);
    assert_int_equal(got.n_conns, 0);
    assert_int_equal(got.n_bytes, 0);
    handover_fini(&got);
}

static void put(struct fixture *f, const char *json)
{
    uint64_t n = strlen(json);

    assert_int_equal(ftruncate(f->fd, 0), 0);
    assert_int_equal(pwrite(f->fd, "rtvhand1", 8, 0), 8);
    assert_int_equal(pwrite(f->fd, &n, 8, 8), 8);
    assert_int_equal(pwrite(f->fd, json, n, 16), n);
}

static void assert_refused(struct fixture *f, const char *reason)
{
    struct handover got;
    const char *why = "";

    assert_int_equal(handover_read(&got, f->fd, &why), HANDOVER_REFUSED);
    assert_string_equal(why, reason);
}

static void what_is_no_record_is_refused(void **state)
{
    static const char *const bad[] = {
        "{\"handover\":1}",
        "{\"handover\":1,\"version\":\"x\",\"life\":\"-\"}",
        "{\"handover\":1,\"version\":7}",
    };
    struct fixture *f = *state;
    uint64_t n = UINT64_MAX;

    assert_refused(f, "it is no handover record"); /* empty */
    assert_int_equal(pwrite(f->fd, "rtvhand1", 8, 0), 8);
    assert_refused(f, "it is no handover record");
    assert_int_equal(pwrite(f->fd, &n, 8, 8), 8);
    assert_refused(f, "it is no handover record");
    put(f, "no json");
    assert_refused(f, "it is no handover record");
    put(f, "{\"handover\":2}");
    assert_refused(f, "its format is another one");
    put(f, "[]");
    assert_refused(f, "its format is another one");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(f, bad[i]);
        assert_refused(f, "a member is missing or not of its form");
    }
}

static void the_baton_is_the_same_page_for_both(void **state)
{
    struct handover_files mine;
    struct handover_files theirs = {-1, -1, -1, -1, NULL};

    (void)state;
    assert_int_equal(handover_files_create(&mine), 0);
    theirs.baton_fd = dup(mine.baton_fd);
    assert_int_equal(handover_files_adopt(&theirs), 0);
    atomic_store(&mine.baton->state, BATON_OFFERED);
    assert_int_equal(atomic_load(&theirs.baton->state), BATON_OFFERED);
    handover_files_close(&theirs);
    theirs.baton_fd = dup(mine.record); /* an empty file */
    assert_int_equal(handover_files_adopt(&theirs), -EBADMSG);
    handover_files_close(&theirs);
    handover_files_close(&mine);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(every_number_comes_back),
        T(sockets_come_back_with_their_inodes),
        T(open_frames_come_back_byte_by_byte),
        T(a_shorter_record_replaces_a_longer_one),
        T(what_is_no_record_is_refused),
        cmocka_unit_test(the_baton_is_the_same_page_for_both),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
