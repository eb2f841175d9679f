/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bare sink that the agent is measured against: receives by recvmmsg(64) and
 * discards. What the agent needs above it is parsing, aggregation and journal.
 *
 *   sink udp PORT | uds PATH      prints "ready", runs until SIGTERM, then prints
 *                                 {"datagrams":..,"bytes":..,"cpu_ns":..}
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define N_SLOTS 64
#define SLOT_BYTES 8192

static volatile sig_atomic_t over;

static void on_term(int sig)
{
    (void)sig;
    over = 1;
}

static int open_udp(const char *port)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int bytes = 32 << 20;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port =
                                htons((uint16_t)strtoul(port, NULL, 10)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

static int open_uds(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    (void)unlink(path);
    return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

int main(int argc, char **argv)
{
    static unsigned char bytes[N_SLOTS][SLOT_BYTES];
    static struct mmsghdr msgs[N_SLOTS];
    static struct iovec iovs[N_SLOTS];
    struct sigaction sa = {.sa_handler = on_term};
    uint64_t n_datagrams = 0, n_bytes = 0;
    struct timespec cpu;
    int fd = -1;

    if (argc == 3)
        fd =
            strcmp(argv[1], "uds") == 0 ? open_uds(argv[2]) : open_udp(argv[2]);
    if (fd < 0) {
        fputs("usage: sink udp PORT | uds PATH (or the address is taken)\n",
              stderr);
        return 2;
    }
    sigaction(SIGTERM, &sa, NULL); /* no SA_RESTART: the call ends */
    for (int i = 0; i < N_SLOTS; i++) {
        iovs[i] = (struct iovec){bytes[i], SLOT_BYTES};
        msgs[i].msg_hdr.msg_iov = &iovs[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
    }
    puts("ready");
    fflush(stdout);
    while (!over) {
        int n = recvmmsg(fd, msgs, N_SLOTS, MSG_WAITFORONE, NULL);

        for (int i = 0; i < n; i++)
            n_bytes += msgs[i].msg_len;
        n_datagrams += n > 0 ? (uint64_t)n : 0;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    printf("{\"datagrams\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"cpu_ns\":%" PRIu64 "}\n",
           n_datagrams, n_bytes,
           (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec);
    return 0;
}
