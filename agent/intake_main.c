/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake_main.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/intake_control.h"
#include "agent/intake_report.h"
#include "agent/intake_serve.h"
#include "agent/jsonread.h"

#define FILE_MAX (16u << 20) /* certificates and --expect */
#define REFRESH_MS 1000
#define ROWS_LIVE 30
#define MAX_BYTES (1024u << 20)

struct options {
    struct serve_options serve;
    struct fault_plan plan;
    const char *expect, *cert, *key;
    int json, quiet;
    int ends; /* help was given: end with 0 */
};

enum {
    OPT_LISTEN = 256,
    OPT_CONTROL,
    OPT_JSON,
    OPT_LATENCY,
    OPT_FAIL,
    OPT_SEED,
    OPT_SCRIPT,
    OPT_EXPECT,
    OPT_QUIET,
    OPT_TLS,
    OPT_MAX_BYTES,
    OPT_HELP
};

static const struct option long_options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"json", no_argument, NULL, OPT_JSON},
    {"latency", required_argument, NULL, OPT_LATENCY},
    {"fail", required_argument, NULL, OPT_FAIL},
    {"seed", required_argument, NULL, OPT_SEED},
    {"script", required_argument, NULL, OPT_SCRIPT},
    {"expect", required_argument, NULL, OPT_EXPECT},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"tls", required_argument, NULL, OPT_TLS},
    {"max-bytes", required_argument, NULL, OPT_MAX_BYTES},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static void help(void)
{
    (void)fputs(
        "Usage: retriever intake [OPTION]...\n"
        "A local stand-in for the Datadog intake: takes what an agent sends,\n"
        "checks it as the intake would, and shows the sum of each metric.\n"
        "\n"
        "  --listen ADDR:PORT   default 127.0.0.1:9000; port 0 = any\n"
        "  --json               totals as JSON at the end, not as a table\n"
        "  --quiet              no table\n"
        "  --expect FILE        compare the totals with this JSON at the end\n"
        "  --latency MS         answer so much later\n"
        "  --fail OUTCOME:P     spoil requests with probability P (repeat it)\n"
        "  --script LIST        outcomes of the first requests, by comma\n"
        "                       OUTCOME: a status, STATUS/RETRY_AFTER, "
        "accept,\n"
        "                       reset, late-reset, stall; in LIST also *TIMES\n"
        "  --seed N             of --fail\n"
        "  --control ADDR:PORT  a second address that is never down\n"
        "  --tls CERT KEY       HTTPS with these PEM files\n"
        "  --max-bytes N        memory for what came (default 1073741824)\n"
        "\n"
        "POST /control changes latency, faults and script while it runs; GET\n"
        "/totals and /series show what came. SIGINT or SIGTERM ends it.\n"
        "Exit codes: 0; 1 cannot listen, or --expect differs; 2 usage.\n",
        stdout);
}

static int bad(const char *what, const char *value)
{
    (void)fprintf(stderr,
                  "retriever intake: --%s: %s is no such value; see retriever "
                  "intake --help\n",
                  what, value);
    return -EINVAL;
}

static int parse_u64(const char *what, const char *text, uint64_t max,
                     uint64_t *out)
{
    unsigned long long v;
    char *end;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || v > max)
        return bad(what, text);
    *out = v;
    return 0;
}

static int parse_option(struct options *o, int opt, int argc, char **argv)
{
    uint64_t v = 0;
    int rc = 0;

    switch (opt) {
    case OPT_LISTEN:
        o->serve.listen = optarg;
        return 0;
    case OPT_CONTROL:
        o->serve.control = optarg;
        return 0;
    case OPT_JSON:
        o->json = 1;
        return 0;
    case OPT_QUIET:
        o->quiet = 1;
        return 0;
    case OPT_EXPECT:
        o->expect = optarg;
        return 0;
    case OPT_LATENCY:
        rc = parse_u64("latency", optarg, INTAKE_LATENCY_MAX_MS, &v);
        o->serve.latency_ms = (unsigned)v;
        return rc;
    case OPT_FAIL:
        return fault_add_rule(&o->plan, optarg) != 0 ? bad("fail", optarg) : 0;
    case OPT_SCRIPT:
        return fault_set_script(&o->plan, optarg) != 0 ? bad("script", optarg)
                                                       : 0;
    case OPT_SEED:
        return parse_u64("seed", optarg, UINT64_MAX, &o->plan.random);
    case OPT_MAX_BYTES:
        rc = parse_u64("max-bytes", optarg, SIZE_MAX / 4, &v);
        o->serve.max_bytes = (size_t)v;
        return rc;
    case OPT_TLS: /* the one option with two values */
        if (optind >= argc || argv[optind][0] == '-')
            return bad("tls", optarg);
        o->cert = optarg;
        o->key = argv[optind++];
        return 0;
    case OPT_HELP:
        help();
        o->ends = 1;
        return 0;
    default: /* getopt has said what is wrong */
        return -EINVAL;
    }
}

static int parse_arguments(struct options *o, int argc, char **argv)
{
    int opt;

    optind = 1;
    while (!o->ends &&
           (opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int rc = parse_option(o, opt, argc, argv);

        if (rc != 0)
            return rc;
    }
    if (!o->ends && optind < argc) {
        (void)fprintf(stderr, "retriever intake: %s is too much\n",
                      argv[optind]);
        return -EINVAL;
    }
    return 0;
}

/* The whole file into @out. Returns 0 or -errno. */
static int read_file(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "re");
    char part[8192];
    size_t n;
    int rc = 0;

    if (f == NULL)
        return -errno;
    while (rc == 0 && (n = fread(part, 1, sizeof(part), f)) > 0)
        rc = buf_append(out, part, n);
    if (rc == 0 && ferror(f))
        rc = -EIO;
    (void)fclose(f);
    return rc;
}

static void refresh(struct serve *s)
{
    (void)fputs("\033[H\033[2J", stdout);
    (void)printf("%s\n\n", serve_url(s));
    serve_table(s, stdout, ROWS_LIVE);
    (void)fflush(stdout);
}

/* Until SIGINT or SIGTERM. */
static int wait_for_end(struct serve *s, int live)
{
    sigset_t set;
    struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};
    int step_ms = -1;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    fds[0].fd = signalfd(-1, &set, SFD_CLOEXEC);
    fds[1].fd = serve_fd(s);
    if (fds[0].fd < 0)
        return -errno;
    for (;;) {
        int ms = live && (step_ms < 0 || step_ms > REFRESH_MS) ? REFRESH_MS
                                                               : step_ms;
        int n = poll(fds, 2, ms);

        if (n > 0 && fds[0].revents != 0)
            break;
        step_ms = serve_step(s);
        if (live)
            refresh(s);
    }
    (void)close(fds[0].fd);
    return 0;
}

/* 1 = they differ, or cannot be compared. */
static int compare(const char *path, const struct buf *expect,
                   const struct buf *totals)
{
    struct jsonread e, a = {.text = NULL};
    unsigned n = 1;

    if (jsonread_parse(&e, buf_cstr(expect), expect->n, UINT32_MAX / 4) != 0)
        (void)fprintf(stderr, "retriever intake: %s: byte %zu: %s\n", path,
                      e.at, e.error != NULL ? e.error : "out of memory");
    else if (jsonread_parse(&a, buf_cstr(totals), totals->n, UINT32_MAX / 4) !=
             0)
        (void)fprintf(stderr, "retriever intake: totals cannot be read back\n");
    else
        n = intake_report_differ(&e, jsonread_root(&e), &a, jsonread_root(&a),
                                 stderr);
    jsonread_fini(&e);
    jsonread_fini(&a);
    return n > 0;
}

static int finish(struct serve *s, const struct options *o,
                  const struct buf *expect)
{
    struct buf totals;
    int rc = 0;

    buf_init(&totals, SERVE_ANSWER_MAX);
    serve_quiet(s);
    if (!o->quiet && !o->json)
        serve_table(s, stdout, 0);
    if (serve_totals(s, &totals) != 0) {
        (void)fprintf(stderr, "retriever intake: out of memory for totals\n");
        rc = 1;
    } else {
        if (o->json)
            (void)printf("%s\n", buf_cstr(&totals));
        if (o->expect != NULL)
            rc = compare(o->expect, expect, &totals);
    }
    if (fflush(stdout) != 0)
        rc = 1;
    buf_fini(&totals);
    return rc;
}

static int run(struct options *o, const struct buf *expect)
{
    struct serve *s = NULL;
    char why[256] = "";
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t set;
    int rc;

    /* Before the first thread, so that no other one gets them. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
    o->serve.plan = &o->plan;
    o->serve.seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ULL;
    rc = serve_start(&s, &o->serve, why, sizeof(why));
    if (rc != 0) {
        (void)fprintf(stderr, "retriever intake: %s\n", why);
        return 1;
    }
    (void)printf("listening on %s\n", serve_url(s));
    if (serve_control_url(s) != NULL)
        (void)printf("control on %s\n", serve_control_url(s));
    (void)fflush(stdout);
    rc = wait_for_end(s, !o->quiet && !o->json && isatty(STDOUT_FILENO));
    if (rc == 0)
        rc = finish(s, o, expect);
    serve_close(s);
    return rc < 0 ? 1 : rc;
}

/* Returns 0, or 1 after saying which file is at fault. */
static int load(const char *path, struct buf *out)
{
    int rc = path != NULL ? read_file(path, out) : 0;

    if (rc != 0)
        (void)fprintf(stderr, "retriever intake: %s: %s\n", path,
                      strerror(-rc));
    return rc != 0;
}

int intake_main(int argc, char **argv)
{
    struct options o = {
        .serve = {.listen = "127.0.0.1:9000", .max_bytes = MAX_BYTES}};
    struct buf cert, key, expect;
    int rc = 1;

    fault_init(&o.plan, 1);
    if (parse_arguments(&o, argc, argv) != 0)
        return 2;
    if (o.ends)
        return 0;
    buf_init(&cert, FILE_MAX);
    buf_init(&key, FILE_MAX);
    buf_init(&expect, FILE_MAX);
    if (load(o.cert, &cert) == 0 && load(o.key, &key) == 0 &&
        load(o.expect, &expect) == 0) {
        o.serve.tls_cert = cert.data;
        o.serve.tls_key = key.data;
        rc = run(&o, &expect);
    }
    buf_fini(&cert);
    buf_fini(&key);
    buf_fini(&expect);
    return rc;
}
