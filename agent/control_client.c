/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status, ebpf, flush, stop and upgrade: the clients of the control socket. Each
 * sends one request line and prints the answer.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "agent/base/num.h"
#include "agent/cli.h"
#include "agent/control.h"
#include "agent/jsonread.h"

#define MAX_ATTEMPTS 5 /* workers that die one after the other */
#define TIMEOUT_MAX_S 86400
#define MAX_VALUES 64 /* in an answer that is looked into */

#define SOCKET_MAX sizeof(((struct sockaddr_un *)0)->sun_path)

struct request {
    const char *socket;
    const char *config;          /* -c FILE; NULL = the standard places */
    char configured[SOCKET_MAX]; /* where *socket may lie */
    bool json;
    bool wait;
    unsigned timeout_s; /* 0 = none */
    uint64_t until_ns;  /* CLOCK_MONOTONIC of its end */
};

struct answer {
    struct buf text;
    int end_fd; /* readable once the agent has ended; -1 = did not come */
};

static int parse_timeout(const char *text, unsigned *timeout_s)
{
    uint64_t v;

    if (num_parse_u64(text, &v) != 0 || v > TIMEOUT_MAX_S) {
        fprintf(stderr, "--timeout: %s is not 0..%d seconds\n", text,
                TIMEOUT_MAX_S);
        return CLI_USAGE;
    }
    *timeout_s = (unsigned)v;
    return 0;
}

/* Without --socket: the agent's, found as the agent finds it. A file that only its
 * user may read is no fault of ours, unless it was named. */
static int find_socket(struct request *rq)
{
    const struct config_sources src = {.file = rq->config, .env = environ};
    struct config_report report;
    struct config c;

    if (rq->config != NULL && access(rq->config, R_OK) != 0) {
        fprintf(stderr, "%s: %s\n", rq->config, strerror(errno));
        return CLI_USAGE;
    }
    rq->socket = getenv("DD_CONTROL_SOCKET"); /* unchecked: never another's */
    if (rq->socket != NULL && rq->socket[0] != '\0')
        return 0;
    rq->socket = CLI_CONTROL_SOCKET;
    if (config_load(&c, &src, &report) != 0)
        return 0;
    if (config_is_set(&c, "control_socket") && c.control_socket[0] != '\0') {
        (void)snprintf(rq->configured, sizeof(rq->configured), "%s",
                       c.control_socket);
        rq->socket = rq->configured;
    }
    config_report_fini(&report);
    config_fini(&c);
    return 0;
}

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

    *rq = (struct request){0};
    optind = 1;
    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (opt) {
        case 's':
            rq->socket = optarg;
            break;
        case 'c':
            rq->config = optarg;
            break;
        case 'j':
            rq->json = true;
            break;
        case 'w':
            rq->wait = true;
            break;
        case 't':
            if (parse_timeout(optarg, &rq->timeout_s) != 0)
                return CLI_USAGE;
            break;
        case 'h':
            (void)cli_help(argv[0], stdout);
            return CLI_HELP;
        default:
            return CLI_USAGE;
        }
    }
    rq->until_ns =
        clock_mono_ns(&clock_real) + rq->timeout_s * (uint64_t)CLOCK_NS_PER_S;
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument %s; see retriever %s --help\n",
                argv[0], argv[optind], argv[0]);
        return CLI_USAGE;
    }
    return rq->socket != NULL ? 0 : find_socket(rq);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static void answer_fini(struct answer *a)
{
    buf_fini(&a->text);
    close_fd(&a->end_fd);
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

/* As recv(); a descriptor that comes along to *end_fd. */
static ssize_t receive(int fd, char *to, size_t n, int *end_fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(*end_fd))];
    } u;
    struct iovec text = {.iov_base = to, .iov_len = n};
    struct msghdr m = {.msg_iov = &text,
                       .msg_iovlen = 1,
                       .msg_control = &u,
                       .msg_controllen = sizeof(u)};
    ssize_t got = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = got >= 0 ? CMSG_FIRSTHDR(&m) : NULL;

    if (c == NULL || c->cmsg_level != SOL_SOCKET ||
        c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(*end_fd)))
        return got;
    close_fd(end_fd);
    memcpy(end_fd, CMSG_DATA(c), sizeof(*end_fd));
    return got;
}

/* Append what comes on @fd to @to. Returns 0 at its end, or -1 and says why. */
static int read_answer(const struct request *rq, int fd, struct answer *to)
{
    char b[4096];

    for (;;) {
        ssize_t got = receive(fd, b, sizeof(b), &to->end_fd);

        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            return 0;
        if (got < 0 || buf_append(&to->text, b, (size_t)got) != 0) {
            fprintf(stderr, "%s: %s\n", rq->socket,
                    got >= 0          ? "an answer longer than any"
                    : errno == EAGAIN ? "no answer within --timeout"
                                      : strerror(errno));
            return -1;
        }
    }
}

/* Whole answers end with a line's end, and those in JSON hold no other. */
static bool is_whole(const struct answer *a)
{
    return a->text.n > 0 && a->text.data[a->text.n - 1] == '\n';
}

/* What says that it answers nothing, from an agent that does not know @line. */
static bool is_refusal(const struct answer *a)
{
    static const char begin[] = "{\"error\":";

    return a->text.n >= sizeof(begin) - 1 &&
           memcmp(a->text.data, begin, sizeof(begin) - 1) == 0;
}

/* Send @line; the answer to @to, which is the caller's to fini in every case.
 * Returns 0, or -1 and says why. A worker that dies before it answered, or in the
 * middle, has a successor, which is asked again: every request may be repeated. */
static int ask(const struct request *rq, const char *line, struct answer *to)
{
    size_t n = strlen(line);
    int rc = 0;

    *to = (struct answer){.end_fd = -1};
    buf_init(&to->text, CONTROL_MAX_ANSWER);
    for (int attempt = 0; attempt < MAX_ATTEMPTS && !is_whole(to); attempt++) {
        int fd = open_control(rq);

        if (fd < 0)
            return -1;
        buf_clear(&to->text);
        if (send(fd, line, n, MSG_NOSIGNAL) == (ssize_t)n)
            rc = read_answer(rq, fd, to);
        close(fd);
        if (rc != 0)
            return rc;
    }
    if (!is_whole(to)) {
        fprintf(stderr, "%s: the agent ended before it answered\n", rq->socket);
        return -1;
    }
    if (is_refusal(to)) {
        fprintf(stderr, "%s: the agent refused: %.*s", rq->socket,
                (int)to->text.n, to->text.data);
        return -1;
    }
    return 0;
}

static void print_answer(const struct answer *a)
{
    (void)fwrite(a->text.data, 1, a->text.n, stdout);
}

/* Returns the exit status. */
static int ask_and_print(const struct request *rq, const char *line)
{
    struct answer answer;
    int rc = ask(rq, line, &answer);

    if (rc == 0)
        print_answer(&answer);
    answer_fini(&answer);
    return rc == 0 ? EXIT_OK : EXIT_FAILED;
}

/* ask() for one object in JSON. Returns 0, @d the caller's to fini as @to is, or
 * -1 and says why. */
static int ask_json(const struct request *rq, const char *line,
                    struct answer *to, struct jsonread *d)
{
    *d = (struct jsonread){0};
    if (ask(rq, line, to) != 0)
        return -1;
    if (jsonread_parse(d, to->text.data, to->text.n, MAX_VALUES) == 0)
        return 0;
    fprintf(stderr, "%s: the answer is no JSON: %.*s", rq->socket,
            (int)to->text.n, to->text.data);
    return -1;
}

static const struct jsonread_node *member(const struct jsonread *d,
                                          const char *key)
{
    return jsonread_get(d, jsonread_root(d), key);
}

static bool is_true(const struct jsonread *d, const char *key)
{
    const struct jsonread_node *v = member(d, key);

    return v != NULL && v->type == JSONREAD_TRUE;
}

int cmd_status(int argc, char **argv)
{
    struct request rq;
    int rc = parse(&rq, argc, argv);

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    return ask_and_print(&rq, rq.json ? "status json\n" : "status\n");
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
    return ask_and_print(&rq, rq.json ? "ebpf json\n" : "ebpf\n");
}

/* The answer for people. */
static void print_flush(const struct jsonread *d, bool flushed)
{
    static const char *const keys[] = {"samples", "points", "payloads",
                                       "ambiguous", "duration_ms"};
    const struct jsonread_node *error = member(d, "error");
    int64_t v[sizeof(keys) / sizeof(keys[0])];

    if (flushed)
        puts("everything received before this is delivered");
    else if (error != NULL && error->type == JSONREAD_STRING)
        printf("not flushed: %.*s\n", (int)error->n, error->text);
    else
        puts("not flushed");
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (jsonread_int(member(d, keys[i]), &v[i]) != 0)
            return;
    }
    printf("samples %" PRId64 ", points %" PRId64 ", payloads %" PRId64
           " (ambiguous %" PRId64 "), %" PRId64 " ms\n",
           v[0], v[1], v[2], v[3], v[4]);
}

/* Begun, not waited for. Returns the exit status. */
static int begin_flush(const struct request *rq)
{
    int fd = open_control(rq);
    bool sent = fd >= 0 && send(fd, "flush\n", 6, MSG_NOSIGNAL) == 6;

    if (fd >= 0)
        close(fd);
    return sent ? EXIT_OK : EXIT_FAILED;
}

int cmd_flush(int argc, char **argv)
{
    struct jsonread d;
    struct answer answer;
    struct request rq;
    int rc = parse(&rq, argc, argv);
    bool flushed = false;

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    if (!rq.wait)
        return begin_flush(&rq);
    if (ask_json(&rq, "flush\n", &answer, &d) == 0) {
        flushed = is_true(&d, "flushed");
        if (rq.json)
            print_answer(&answer);
        else
            print_flush(&d, flushed);
    }
    jsonread_fini(&d);
    answer_fini(&answer);
    return flushed ? EXIT_OK : EXIT_FAILED;
}

static int left_ms(const struct request *rq)
{
    uint64_t now_ns = clock_mono_ns(&clock_real);

    return now_ns < rq->until_ns ? (int)((rq->until_ns - now_ns) / 1000000) + 1
                                 : 0;
}

/* Returns 0, or -1 and says why. */
static int wait_for_end(const struct request *rq, int end_fd)
{
    struct pollfd p = {.fd = end_fd, .events = POLLIN};
    int wait_ms = -1;
    int rc;

    if (end_fd < 0) {
        fprintf(stderr,
                "%s: it stops, but cannot tell when it has ended: that takes "
                "pidfd_open(2)\n",
                rq->socket);
        return -1;
    }
    do {
        if (rq->timeout_s > 0)
            wait_ms = left_ms(rq);
        rc = poll(&p, 1, wait_ms);
    } while (rc < 0 && errno == EINTR);
    if (rc > 0)
        return 0;
    fprintf(stderr, "%s: %s\n", rq->socket,
            rc == 0 ? "it stops, but did not end within --timeout"
                    : strerror(errno));
    return -1;
}

int cmd_stop(int argc, char **argv)
{
    struct jsonread d;
    struct answer answer;
    struct request rq;
    int rc = parse(&rq, argc, argv);
    bool stops = false;

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    if (ask_json(&rq, rq.wait ? "stop wait\n" : "stop\n", &answer, &d) == 0) {
        stops = is_true(&d, "stopping");
        if (stops && rq.wait)
            stops = wait_for_end(&rq, answer.end_fd) == 0;
        if (rq.json)
            print_answer(&answer);
    }
    jsonread_fini(&d);
    answer_fini(&answer);
    return stops ? EXIT_OK : EXIT_FAILED;
}

/* The number of upgrades that the agent has had, or -1 and says why. */
static int64_t ask_upgrades(const struct request *rq)
{
    struct jsonread d;
    struct answer answer;
    int64_t n = -1;

    if (ask_json(rq, "version\n", &answer, &d) == 0 &&
        jsonread_int(member(&d, "upgrades"), &n) != 0)
        fprintf(stderr, "%s: that agent knows no upgrade\n", rq->socket);
    jsonread_fini(&d);
    answer_fini(&answer);
    return n;
}

/* The agent's process goes on as another image, so the answer may come from the new
 * one: the number tells it what the client already knew. */
int cmd_upgrade(int argc, char **argv)
{
    char line[32];
    struct jsonread d;
    struct answer answer;
    struct request rq;
    int64_t n;
    int rc = parse(&rq, argc, argv);
    bool upgraded = false;

    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    n = ask_upgrades(&rq);
    if (n < 0)
        return EXIT_FAILED;
    (void)snprintf(line, sizeof(line), "upgrade %" PRId64 "\n", n);
    if (ask_json(&rq, line, &answer, &d) == 0) {
        upgraded = is_true(&d, "upgraded");
        if (!rq.json)
            (void)fputs(upgraded ? "upgraded " : "not upgraded ", stdout);
        print_answer(&answer);
    }
    jsonread_fini(&d);
    answer_fini(&answer);
    return upgraded ? EXIT_OK : EXIT_FAILED;
}
