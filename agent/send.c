/* SPDX-License-Identifier: Apache-2.0 */
/* `retriever send`: test lines to any DogStatsD socket, one or millions. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/cli.h"
#include "agent/send_connect.h"
#include "agent/workload.h"

#define BATCH_MAX 64         /* datagrams in one sendmmsg() */
#define DATAGRAM_MAX 65000   /* a UDP datagram holds no more */
#define UDP_BYTES 1432       /* what clients put into one, see --pack */
#define UNIX_BYTES 8192      /* the same on a Unix socket */
#define PACE_MAX_NS 50000000 /* longest sleep between two looks at the clock */

enum transport { SEND_UDP, SEND_UDS, SEND_STREAM };

struct options {
    enum transport transport;
    const char *to;
    int demo, quiet;
    double rate; /* lines per second; 0 = as fast as possible */
    double seconds;
    uint64_t n_lines; /* 0 = no end */
    unsigned n_pack;
    struct workload_options load;
    char **lines;
    unsigned n_args;
};

struct sender {
    struct options o;
    struct workload *load; /* NULL: the lines of the command line */
    int fd;
    size_t max_bytes; /* of one datagram or frame */
    char *buf;        /* BATCH_MAX pieces of max_bytes and a length */
    struct mmsghdr msgs[BATCH_MAX];
    struct iovec iov[BATCH_MAX];
    unsigned n_lines_in[BATCH_MAX];
    uint64_t next_line; /* to be generated */
    uint64_t n_lines, n_datagrams, n_bytes, n_blocked, n_refused;
    int broken; /* the other end is gone: what came before counts */
};

static volatile sig_atomic_t stopped;

static void on_signal(int signal)
{
    (void)signal;
    stopped = 1;
}

static int connect_to(const struct options *o, const char **why)
{
    switch (o->transport) {
    case SEND_UDP:
        return send_connect_udp(o->to, why);
    case SEND_UDS:
        return send_connect_unix(o->to, SOCK_DGRAM);
    case SEND_STREAM:
        return send_connect_unix(o->to, SOCK_STREAM);
    }
    return -EINVAL;
}

/* The next line to @out. Returns its length, 0 when there is none left. */
static size_t next_line(struct sender *s, char *out, size_t max)
{
    size_t n;

    if (s->o.n_lines != 0 && s->next_line >= s->o.n_lines)
        return 0;
    if (s->load != NULL) {
        n = workload_line(s->load, s->next_line, out);
    } else {
        n = strlen(s->o.lines[s->next_line]);
        if (n > max)
            n = max; /* checked before: never happens */
        memcpy(out, s->o.lines[s->next_line], n);
    }
    s->next_line++;
    return n;
}

/* Fill datagram @i with up to n_pack lines. Returns the number of lines. */
static unsigned fill(struct sender *s, unsigned i)
{
    char *frame = s->buf + i * (s->max_bytes + 4);
    char *p = frame + 4;
    char line[DATAGRAM_MAX];
    size_t n = 0;
    unsigned n_lines = 0;

    while (n_lines < s->o.n_pack) {
        size_t n_line = next_line(s, line, s->max_bytes);

        if (n_line == 0)
            break;
        if (n > 0 && n + 1 + n_line > s->max_bytes) {
            s->next_line--; /* it opens the next datagram */
            break;
        }
        if (n > 0)
            p[n++] = '\n';
        memcpy(p + n, line, n_line);
        n += n_line;
        n_lines++;
    }
    for (unsigned k = 0; k < 4; k++) /* the length of a stream's frame */
        frame[k] = (char)(n >> (8 * k));
    s->iov[i].iov_base = s->o.transport == SEND_STREAM ? frame : p;
    s->iov[i].iov_len = s->o.transport == SEND_STREAM ? n + 4 : n;
    s->n_lines_in[i] = n_lines;
    return n_lines;
}

static void count_sent(struct sender *s, unsigned i)
{
    for (unsigned k = 0; k < s->n_lines_in[i]; k++) {
        if (s->load != NULL)
            workload_count(s->load, s->n_lines);
        s->n_lines++;
    }
    s->n_datagrams++;
    s->n_bytes += s->iov[i].iov_len;
}

/* A send failed with @error: 0 = try again. */
static int on_error(struct sender *s, int error)
{
    struct pollfd p = {.fd = s->fd, .events = POLLOUT};

    switch (error) {
    case EINTR:
        return 0;
    case EAGAIN:
    case ENOBUFS:
        s->n_blocked++;
        (void)poll(&p, 1, 100);
        return 0;
    case ECONNREFUSED:
        if (s->o.transport == SEND_UDP) {
            s->n_refused++; /* told of an earlier datagram, not of this one */
            return 0;
        }
        break;
    default:
        break;
    }
    s->broken = error;
    return -error;
}

static void send_datagrams(struct sender *s, unsigned n)
{
    unsigned at = 0;

    while (at < n && !(stopped && s->n_blocked > 0)) {
        int sent =
            sendmmsg(s->fd, s->msgs + at, n - at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && on_error(s, errno) != 0)
            return;
        for (int i = 0; i < sent; i++)
            count_sent(s, at++);
    }
}

/* A frame once begun is finished, also after a signal: half of one would make
 * garbage of it. */
static void send_frames(struct sender *s, unsigned n)
{
    for (unsigned i = 0; i < n && !s->broken; i++) {
        const char *p = s->iov[i].iov_base;
        size_t left = s->iov[i].iov_len;

        while (left > 0) {
            ssize_t sent;

            if (stopped && left == s->iov[i].iov_len)
                return;
            sent = send(s->fd, p, left, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent < 0 && on_error(s, errno) != 0)
                return;
            if (sent > 0) {
                p += sent;
                left -= (size_t)sent;
            }
        }
        count_sent(s, i);
    }
}

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pace(const struct sender *s, double start)
{
    double wait = start + (double)s->n_lines / s->o.rate - now_s();
    struct timespec t = {.tv_nsec = PACE_MAX_NS};

    if (wait <= 0)
        return;
    if (wait * 1e9 < PACE_MAX_NS)
        t.tv_nsec = (long)(wait * 1e9);
    (void)nanosleep(&t, NULL); /* a signal ends it early */
}

static void send_all(struct sender *s)
{
    double start = now_s();

    while (!stopped && !s->broken) {
        double over = now_s() - start;
        unsigned n_max = BATCH_MAX;
        unsigned n = 0;

        if (s->o.seconds > 0 && over >= s->o.seconds)
            return;
        if (s->o.rate > 0) {
            double due = over * s->o.rate + 1 - (double)s->n_lines;

            if (due < 1) {
                pace(s, start);
                continue;
            }
            due = (due + s->o.n_pack - 1) / s->o.n_pack;
            n_max = due < BATCH_MAX ? (unsigned)due : BATCH_MAX;
        }
        while (n < n_max && fill(s, n) > 0)
            n++;
        if (n == 0)
            return;
        if (s->o.transport == SEND_STREAM)
            send_frames(s, n);
        else
            send_datagrams(s, n);
        s->next_line = s->n_lines; /* after a stop in the middle */
    }
}

static int prepare(struct sender *s)
{
    size_t limit = s->o.transport == SEND_UDP ? UDP_BYTES : UNIX_BYTES;
    int rc = 0;

    s->max_bytes = limit;
    for (unsigned i = 0; i < s->o.n_args; i++) {
        size_t n = strlen(s->o.lines[i]);

        if (n == 0 || n > DATAGRAM_MAX) {
            (void)fprintf(stderr,
                          "retriever send: line %u has %zu bytes; "
                          "1 to %d fit\n",
                          i + 1, n, DATAGRAM_MAX);
            return 2;
        }
        if (n > s->max_bytes)
            s->max_bytes = n;
    }
    if (s->max_bytes < WORKLOAD_LINE_MAX && s->o.demo)
        s->max_bytes = WORKLOAD_LINE_MAX;
    s->buf = malloc(BATCH_MAX * (s->max_bytes + 4));
    if (s->o.demo)
        rc = workload_create(&s->load, &s->o.load);
    if (rc == WORKLOAD_BAD) {
        (void)fprintf(stderr,
                      "retriever send: --contexts is 1 to %d, --tags 0 to %d, "
                      "--prefix letters, digits, '_' and '.'\n",
                      WORKLOAD_CONTEXTS_MAX, WORKLOAD_TAGS_MAX);
        return 2;
    }
    if (s->buf == NULL || rc != 0) {
        (void)fprintf(stderr, "retriever send: out of memory\n");
        return 1;
    }
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        s->msgs[i].msg_hdr.msg_iov = &s->iov[i];
        s->msgs[i].msg_hdr.msg_iovlen = 1;
    }
    return 0;
}

static void print_result(const struct sender *s, double took_s)
{
    (void)printf("{\"lines\":%llu,\"datagrams\":%llu,\"bytes\":%llu,"
                 "\"blocked\":%llu,\"refused\":%llu,\"seconds\":%.3f",
                 (unsigned long long)s->n_lines,
                 (unsigned long long)s->n_datagrams,
                 (unsigned long long)s->n_bytes,
                 (unsigned long long)s->n_blocked,
                 (unsigned long long)s->n_refused, took_s);
    if (s->load != NULL) {
        (void)putchar(',');
        workload_print(s->load, stdout);
    }
    (void)printf("}\n");
    (void)fflush(stdout);
}

static int run(struct sender *s)
{
    struct sigaction sa = {.sa_handler = on_signal};
    double start;
    int error = 0;
    socklen_t n = sizeof(error);
    const char *why = NULL;
    int rc = prepare(s);

    if (rc != 0)
        return rc;
    s->fd = connect_to(&s->o, &why);
    if (s->fd < 0) {
        (void)fprintf(stderr, "retriever send: %s: %s%s\n", s->o.to,
                      why != NULL ? why : strerror(-s->fd),
                      why != NULL ? ""
                                  : "; is the agent running, and does it "
                                    "listen there?");
        return 1;
    }
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
    start = now_s();
    send_all(s);
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 &&
        error == ECONNREFUSED)
        s->n_refused++;
    if (!s->o.quiet)
        print_result(s, now_s() - start);
    if (s->broken)
        (void)fprintf(stderr, "retriever send: %s: %s\n", s->o.to,
                      strerror(s->broken));
    else if (s->n_refused > 0)
        (void)fprintf(stderr,
                      "retriever send: %s: nobody received %llu of "
                      "the datagrams; is the agent running, and does it "
                      "listen there?\n",
                      s->o.to, (unsigned long long)s->n_refused);
    return s->broken || s->n_refused > 0 ? 1 : 0;
}

static int usage(const char *fault)
{
    (void)fprintf(stderr, "retriever send: %s; see retriever send --help\n",
                  fault);
    return 2;
}

static void help(void)
{
    (void)printf(
        "Usage: retriever send [TO] [OPTION]... LINE...\n"
        "       retriever send [TO] [OPTION]... --demo\n"
        "Sends DogStatsD lines and prints what was sent as one line of JSON.\n"
        "\n"
        "To:\n"
        "  --udp HOST:PORT     UDP (default 127.0.0.1:8125)\n"
        "  --uds PATH          Unix datagram socket (@NAME: abstract)\n"
        "  --uds-stream PATH   Unix stream socket, frames with a length\n"
        "\n"
        "  --pack N            up to N lines in a datagram (default 1), as\n"
        "                      many as fit 1432 bytes (Unix: 8192)\n"
        "  --quiet             print no JSON\n"
        "\n"
        "  --demo              a sample workload of every type until SIGINT\n"
        "  --rate N            lines per second (default 100; 0: no pause)\n"
        "  --count N           end after N lines\n"
        "  --seconds S         end after S seconds\n"
        "  --prefix NAME       of the metric names (default demo)\n"
        "  --contexts N        spread over N contexts (default 4)\n"
        "  --tags N            further tags on each line (default 0)\n"
        "  --types LIST        of c,g,ms,h,d,s,e,sc (default all)\n"
        "  --seed N            the same seed sends the same lines\n"
        "\n"
        "Exit codes: 0 sent, 1 not (all) sent, 2 usage.\n");
}

enum {
    OPT_UDP = 256,
    OPT_UDS,
    OPT_STREAM,
    OPT_PACK,
    OPT_QUIET,
    OPT_DEMO,
    OPT_RATE,
    OPT_COUNT,
    OPT_SECONDS,
    OPT_PREFIX,
    OPT_CONTEXTS,
    OPT_TAGS,
    OPT_TYPES,
    OPT_SEED,
    OPT_HELP
};

static const struct option long_options[] = {
    {"udp", required_argument, NULL, OPT_UDP},
    {"uds", required_argument, NULL, OPT_UDS},
    {"uds-stream", required_argument, NULL, OPT_STREAM},
    {"pack", required_argument, NULL, OPT_PACK},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"demo", no_argument, NULL, OPT_DEMO},
    {"rate", required_argument, NULL, OPT_RATE},
    {"count", required_argument, NULL, OPT_COUNT},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"prefix", required_argument, NULL, OPT_PREFIX},
    {"contexts", required_argument, NULL, OPT_CONTEXTS},
    {"tags", required_argument, NULL, OPT_TAGS},
    {"types", required_argument, NULL, OPT_TYPES},
    {"seed", required_argument, NULL, OPT_SEED},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    unsigned long long v;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || v > max)
        return -EINVAL;
    *out = v;
    return 0;
}

static int parse_real(const char *text, double *out)
{
    char *end;
    double v;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    v = strtod(text, &end);
    if (*end != '\0' || !(v < 1e12))
        return -EINVAL;
    *out = v;
    return 0;
}

static int parse_option(struct options *o, int opt)
{
    uint64_t v = 0;
    int rc = 0;

    switch (opt) {
    case OPT_UDP:
    case OPT_UDS:
    case OPT_STREAM:
        o->transport = (enum transport)(opt - OPT_UDP);
        o->to = optarg;
        return opt == OPT_UDP && !send_connect_is_udp(optarg) ? -EINVAL : 0;
    case OPT_PACK:
        rc = parse_u64(optarg, 10000, &v);
        o->n_pack = (unsigned)v;
        return rc == 0 && v == 0 ? -EINVAL : rc;
    case OPT_QUIET:
        o->quiet = 1;
        return 0;
    case OPT_DEMO:
        o->demo = 1;
        return 0;
    case OPT_RATE:
        return parse_real(optarg, &o->rate);
    case OPT_COUNT:
        rc = parse_u64(optarg, UINT64_MAX, &o->n_lines);
        return rc == 0 && o->n_lines == 0 ? -EINVAL : rc;
    case OPT_SECONDS:
        return parse_real(optarg, &o->seconds);
    case OPT_PREFIX:
        o->load.prefix = optarg;
        return 0;
    case OPT_CONTEXTS:
        rc = parse_u64(optarg, UINT32_MAX, &v);
        o->load.n_contexts = (uint32_t)v;
        return rc;
    case OPT_TAGS:
        rc = parse_u64(optarg, UINT32_MAX, &v);
        o->load.n_tags = (uint32_t)v;
        return rc;
    case OPT_TYPES:
        return workload_parse_types(optarg, &o->load.types);
    default: /* OPT_SEED */
        return parse_u64(optarg, UINT64_MAX, &o->load.seed);
    }
}

/* Returns 0, or the exit code + 1 (1 = help was asked for). */
static int parse_arguments(struct options *o, int argc, char **argv)
{
    int index = 0;
    int opt;

    optind = 1;
    while ((opt = getopt_long(argc, argv, "h", long_options, &index)) != -1) {
        if (opt == 'h' || opt == OPT_HELP) {
            help();
            return 1;
        }
        if (opt == '?')
            return 3;
        if (parse_option(o, opt) != 0) {
            (void)fprintf(stderr,
                          "retriever send: --%s: %s is no %s; see retriever "
                          "send --help\n",
                          long_options[index].name, optarg,
                          opt == OPT_UDP ? "HOST:PORT with a port from 1 to "
                                           "65535"
                                         : "such value");
            return 3;
        }
    }
    o->lines = argv + optind;
    o->n_args = (unsigned)(argc - optind);
    if (o->demo == (o->n_args > 0))
        return usage(o->demo ? "--demo takes no lines" : "no lines given") + 1;
    if (!o->demo) {
        o->n_lines = o->n_args;
        o->rate = 0;
    }
    return 0;
}

int cmd_send(int argc, char **argv)
{
    struct sender s = {
        .o = {.to = "127.0.0.1:8125",
              .rate = 100,
              .n_pack = 1,
              .load = {.prefix = "demo",
                       .n_contexts = 4,
                       .types = (1U << WORKLOAD_N_TYPES) - 1}},
        .fd = -1,
    };
    int rc = parse_arguments(&s.o, argc, argv);

    if (rc != 0)
        return rc - 1;
    rc = run(&s);
    workload_close(s.load);
    free(s.buf);
    if (s.fd >= 0)
        (void)close(s.fd);
    return rc;
}
