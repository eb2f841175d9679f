/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status, ebpf, flush, stop and upgrade: the clients of the control socket. Each
 * sends one request line and prints the answer.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/cli.h"

#define MAX_ATTEMPTS 5 /* workers that die one after the other */

struct request {
    const char *socket;
    bool json;
    bool wait;
    unsigned timeout_s; /* 0 = none */
};

/* Options of these commands; the table of cli.c documents them. Returns 0,
 * or CLI_HELP, or CLI_USAGE. */
static int parse(struct request *rq, int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},
        {"json", no_argument, NULL, 'j'},
        {"wait", no_argument, NULL, 'w'},
        {"timeout", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int opt;

    *rq = (struct request){.socket = cli_default_control_socket()};
    optind = 1;
    while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        char *end;

        switch (opt) {
        case 's':
            rq->socket = optarg;
            break;
        case 'j':
            rq->json = true;
            break;
        case 'w':
            rq->wait = true;
            break;
        case 't':
            errno = 0;
            rq->timeout_s = (unsigned)strtoul(optarg, &end, 10);
            if (errno != 0 || *end != '\0' || rq->timeout_s > 86400) {
                fprintf(stderr, "--timeout: %s is not 0..86400 seconds\n",
                        optarg);
                return CLI_USAGE;
            }
            break;
        case 'h':
            (void)cli_help(argv[0], stdout);
            return CLI_HELP;
        default:
            return CLI_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument %s; see retriever %s --help\n",
                argv[0], argv[optind], argv[0]);
        return CLI_USAGE;
    }
    return 0;
}

static int open_control(const struct request *rq)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval tv = {.tv_sec = (time_t)rq->timeout_s};
    int fd;

    if (strlen(rq->socket) >= sizeof(a.sun_path)) {
        fprintf(stderr, "%s: longer than the path of a socket may be\n",
                rq->socket);
        return -1;
    }
    memcpy(a.sun_path, rq->socket, strlen(rq->socket) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && rq->timeout_s > 0) { /* connect() may wait for its turn */
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    }
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
        fprintf(stderr,
                "%s: %s\nIs the agent running? Name its control_socket, "
                "which is its user's alone, with --socket or "
                "DD_CONTROL_SOCKET.\n",
                rq->socket, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* The answer on @fd to @out. Returns its bytes, or -1 and says why. */
static ssize_t copy_answer(const struct request *rq, int fd, FILE *out,
                           char *head, size_t n_head)
{
    ssize_t sum = 0;
    char b[4096];

    for (;;) {
        ssize_t got = read(fd, b, sizeof(b));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != ECONNRESET) {
            fprintf(stderr, "%s: %s\n", rq->socket,
                    errno == EAGAIN ? "no answer within --timeout"
                                    : strerror(errno));
            return -1;
        }
        if (got <= 0)
            return sum;
        if (sum == 0 && n_head > 0) {
            size_t keep = (size_t)got < n_head - 1 ? (size_t)got : n_head - 1;

            memcpy(head, b, keep);
            head[keep] = '\0';
        }
        if (out != NULL)
            (void)fwrite(b, 1, (size_t)got, out);
        sum += got;
    }
}

/* Send @line, copy the answer to @out. Returns the bytes copied, or -1. A worker
 * that dies before it answered has a successor, which is asked again: every
 * request may be repeated. */
static ssize_t ask(const struct request *rq, const char *line, FILE *out,
                   char *head, size_t n_head)
{
    size_t n = strlen(line);
    ssize_t sum = 0;

    for (int attempt = 0; attempt < MAX_ATTEMPTS && sum == 0; attempt++) {
        int fd = open_control(rq);

        if (fd < 0)
            return -1;
        if (send(fd, line, n, MSG_NOSIGNAL) == (ssize_t)n)
            sum = copy_answer(rq, fd, out, head, n_head);
        close(fd);
    }
    if (sum == 0)
        fprintf(stderr, "%s: the agent ended before it answered\n", rq->socket);
    return sum;
}

int cmd_status(int argc, char **argv)
{
    struct request rq;
    int rc = parse(&rq, argc, argv);

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    return ask(&rq, rq.json ? "status json\n" : "status\n", stdout, NULL, 0) > 0
               ? EXIT_OK
               : EXIT_FAILED;
}

int cmd_ebpf(int argc, char **argv)
{
    struct request rq;
    bool help = argc > 1 && argv[1][0] == '-';
    int rc;

    if (!help && (argc < 2 || strcmp(argv[1], "status") != 0)) {
        fprintf(stderr, "%s%s; see retriever ebpf --help\n",
                argc < 2 ? "ebpf: what? There is `retriever ebpf status`"
                         : "ebpf: no such request: ",
                argc < 2 ? "" : argv[1]);
        return EXIT_USAGE;
    }
    if (!help) {
        argv[1] = argv[0];
        argv++;
        argc--;
    }
    rc = parse(&rq, argc, argv);
    if (rc != 0 || help)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    return ask(&rq, rq.json ? "ebpf json\n" : "ebpf\n", stdout, NULL, 0) > 0
               ? EXIT_OK
               : EXIT_FAILED;
}

/* The answer's numbers for people; its keys come in this order (barrier.c). */
static void print_flush(const char *answer, bool flushed)
{
    unsigned long long samples, points, payloads, ambiguous, ms;

    const char *error = strstr(answer, "\"error\":\"");

    if (flushed)
        puts("everything received before this is delivered");
    else if (error != NULL)
        printf("not flushed: %.*s\n", (int)strcspn(error + 9, "\""), error + 9);
    else
        puts("not flushed");
    if (sscanf(strchr(answer, ',') != NULL ? strchr(answer, ',') : "",
               ",\"samples\":%llu,\"points\":%llu,\"payloads\":%llu,"
               "\"ambiguous\":%llu,\"duration_ms\":%llu",
               &samples, &points, &payloads, &ambiguous, &ms) == 5)
        printf("samples %llu, points %llu, payloads %llu (ambiguous %llu), "
               "%llu ms\n",
               samples, points, payloads, ambiguous, ms);
}

int cmd_flush(int argc, char **argv)
{
    char answer[512] = "";
    struct request rq;
    int rc = parse(&rq, argc, argv);
    bool flushed;

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    if (!rq.wait) { /* begun, not waited for */
        int fd = open_control(&rq);
        bool sent = fd >= 0 && send(fd, "flush\n", 6, MSG_NOSIGNAL) == 6;

        if (fd >= 0)
            close(fd);
        return sent ? EXIT_OK : EXIT_FAILED;
    }
    if (ask(&rq, "flush\n", rq.json ? stdout : NULL, answer, sizeof(answer)) <=
        0)
        return EXIT_FAILED;
    flushed = strncmp(answer, "{\"flushed\":true", 15) == 0;
    if (!rq.json)
        print_flush(answer, flushed);
    return flushed ? EXIT_OK : EXIT_FAILED;
}

int cmd_stop(int argc, char **argv)
{
    struct request rq;
    int rc = parse(&rq, argc, argv);

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    return ask(&rq, "stop\n", rq.json ? stdout : NULL, NULL, 0) > 0
               ? EXIT_OK
               : EXIT_FAILED;
}

/* The agent's process goes on as another image, so the answer may come from the new
 * one: the number tells it what the client already knew. */
int cmd_upgrade(int argc, char **argv)
{
    char answer[512] = "";
    char line[32];
    struct request rq;
    unsigned n = 0;
    const char *at;
    int rc = parse(&rq, argc, argv);
    bool upgraded;

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    if (ask(&rq, "version\n", NULL, answer, sizeof(answer)) <= 0)
        return EXIT_FAILED;
    at = strstr(answer, "\"upgrades\":");
    if (at == NULL || sscanf(at, "\"upgrades\":%u", &n) != 1) {
        fprintf(stderr, "%s: that agent knows no upgrade\n", rq.socket);
        return EXIT_FAILED;
    }
    (void)snprintf(line, sizeof(line), "upgrade %u\n", n);
    if (ask(&rq, line, rq.json ? stdout : NULL, answer, sizeof(answer)) <= 0)
        return EXIT_FAILED;
    upgraded = strncmp(answer, "{\"upgraded\":true", 16) == 0;
    if (!rq.json)
        (void)fputs(upgraded ? "upgraded " : "not upgraded ", stdout);
    if (!rq.json)
        (void)fputs(answer, stdout);
    return upgraded ? EXIT_OK : EXIT_FAILED;
}
