/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bare sink of the tap's method: the same program on the same socket, the same
 * ring, the same way of waiting; records are walked and thrown away.
 *
 *   tap_sink udp PORT | uds PATH  prints "ready", runs until SIGTERM, then prints
 *                                 {"datagrams":..,"bytes":..,"cpu_ns":..}
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "bpf/tap.h"

#define TIMER_MS 10

static volatile sig_atomic_t over;
static uint64_t n_datagrams, n_bytes;

static void on_term(int sig)
{
    (void)sig;
    over = 1;
}

static int open_udp(const char *port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port =
                                htons((uint16_t)strtoul(port, NULL, 10)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

static int open_uds(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    (void)unlink(path);
    return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

static uint64_t take(struct ring *r)
{
    uint64_t pos = ring_begin(r);
    uint64_t end = ring_end(r);
    const void *record;
    uint64_t n_taken = 0;
    uint64_t next;
    uint32_t n;

    while (ring_before(r, end, pos, &record, &n, &next) == RING_RECORD) {
        n_bytes += ((const struct tap_record *)record)->n_bytes;
        pos = next;
        if (++n_taken % 128 == 0)
            ring_consumed(r, pos);
    }
    ring_consumed(r, pos);
    n_datagrams += n_taken;
    return n_taken;
}

/* What the ring had no room for. */
static void take_socket(int fd)
{
    static char bytes[8192];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), 0)) >= 0) {
        n_bytes += (uint64_t)n;
        n_datagrams++;
    }
}

static void serve(struct ring *r, int fd)
{
    struct pollfd p[2] = {{.fd = r->wait_fd, .events = POLLIN},
                          {.fd = fd, .events = POLLIN}};
    enum ring_wait wait = RING_AGAIN;
    bool woken = false;

    while (!over) {
        uint64_t now_ns = clock_mono_ns(&clock_real);

        ring_alive(r, now_ns, false);
        wait = ring_rest(r, take(r), woken, now_ns);
        if (wait == RING_AGAIN)
            continue;
        if (wait == RING_SLEEP)
            ring_alive(r, now_ns, true);
        (void)poll(p, 2, wait == RING_SLEEP ? -1 : TIMER_MS);
        woken = (p[0].revents & POLLIN) != 0;
        if (woken)
            ring_awake(r);
        if ((p[1].revents & POLLIN) != 0)
            take_socket(fd);
    }
    (void)tap_detach(fd);
    (void)take(r);
    take_socket(fd);
}

int main(int argc, char **argv)
{
    bool uds = argc == 3 && strcmp(argv[1], "uds") == 0;
    const struct tap_source source = {.header_bytes = uds ? 0 : 8};
    const struct tap_opts opts = {.max_bytes = 8192,
                                  .sources = &source,
                                  .n_sources = 1};
    struct sigaction sa = {.sa_handler = on_term};
    struct loader_cause cause = {0};
    struct timespec cpu;
    struct ring ring;
    struct tap tap;
    int fd = -1;

    if (argc == 3)
        fd = uds ? open_uds(argv[2]) : open_udp(argv[2]);
    if (fd < 0) {
        fputs("usage: tap_sink udp PORT | uds PATH (or the address is taken)\n",
              stderr);
        return 2;
    }
    if (ring_create(&ring, TAP_RING_BYTES, &cause) != 0 ||
        tap_load(&tap, &ring, &opts, &cause) != 0 ||
        tap_attach(&tap, 0, fd) != 0) {
        fprintf(stderr, "no tap: %s; %s\n", cause.why, cause.remedy);
        return 3;
    }
    sigaction(SIGTERM, &sa, NULL); /* no SA_RESTART: the call ends */
    puts("ready");
    fflush(stdout);
    serve(&ring, fd);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    printf("{\"datagrams\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"cpu_ns\":%" PRIu64 "}\n",
           n_datagrams, n_bytes,
           (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec);
    return 0;
}
