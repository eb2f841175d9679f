/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is formatted on the caller's stack, cleaned under a short lock (the table
 * of secrets), and given away by one write without a lock. stderr is shared
 * with the job, the shell and the keeper, so its O_NONBLOCK is not ours to set:
 * a pipe is opened once more for ourselves, a socket takes MSG_DONTWAIT, and
 * anything else is asked by poll() first.
 */
#include "agent/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/json.h"

enum sink_kind {
    SINK_POLLED, /* ask poll() first */
    SINK_DIRECT, /* a file, or a pipe opened without blocking */
    SINK_SOCKET
};

struct secret {
    char text[LOG_SECRET_BYTES + 1];
    size_t n;
};

static struct {
    _Atomic bool json;
    _Atomic int fd;
    _Atomic int kind;
    _Atomic uint64_t n_dropped;     /* since start */
    _Atomic uint64_t n_dropped_new; /* not yet said in a line */
    char path[PATH_MAX];            /* "" = stderr */

    pthread_mutex_t lock; /* guards the two below */
    struct secret secrets[LOG_MAX_SECRETS];
    unsigned n_secrets_ever;
} sink = {.fd = STDERR_FILENO, .lock = PTHREAD_MUTEX_INITIALIZER};

_Atomic int log_threshold = LOG_LEVEL_INFO;

static const char *const level_names[] = {"off", "error", "warn", "info",
                                          "debug"};

/* ---- Secrets -------------------------------------------------------------- */

static void lock_secrets(void)
{
    (void)pthread_mutex_lock(&sink.lock);
}

static void unlock_secrets(void)
{
    (void)pthread_mutex_unlock(&sink.lock);
}

/* A child forked while another thread holds the lock must not wait for it. */
static void watch_forks(void)
{
    (void)pthread_atfork(lock_secrets, unlock_secrets, unlock_secrets);
}

static unsigned n_secrets(void)
{
    return sink.n_secrets_ever < LOG_MAX_SECRETS ? sink.n_secrets_ever
                                                 : LOG_MAX_SECRETS;
}

void log_set_secret(const char *secret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t n = strnlen(secret, LOG_SECRET_BYTES);
    struct secret *s;

    (void)pthread_once(&once, watch_forks);
    if (n < 4)
        return;
    lock_secrets();
    for (unsigned i = 0; i < n_secrets(); i++) {
        if (sink.secrets[i].n == n && !memcmp(sink.secrets[i].text, secret, n))
            goto out;
    }
    s = &sink.secrets[sink.n_secrets_ever++ % LOG_MAX_SECRETS];
    memcpy(s->text, secret, n);
    s->text[n] = '\0';
    s->n = n;
out:
    unlock_secrets();
}

static const struct secret *secret_at(const char *p, size_t n)
{
    const struct secret *best = NULL;

    for (unsigned i = 0; i < n_secrets(); i++) {
        const struct secret *s = &sink.secrets[i];

        if (s->n <= n && (best == NULL || s->n > best->n) &&
            memcmp(p, s->text, s->n) == 0)
            best = s;
    }
    return best;
}

/* In place: what replaces a secret is never longer than it. */
static size_t redact(char *text, size_t n)
{
    size_t to = 0;
    size_t at = 0;

    lock_secrets();
    while (at < n) {
        const struct secret *s = secret_at(text + at, n - at);
        size_t n_stars;

        if (s == NULL) {
            text[to++] = text[at++];
            continue;
        }
        n_stars = s->n < 5 ? s->n : 5;
        memset(text + to, '*', n_stars);
        to += n_stars;
        if (s->n >= 10) {
            memcpy(text + to, s->text + s->n - 5, 5);
            to += 5;
        }
        at += s->n;
    }
    unlock_secrets();
    text[to] = '\0';
    return to;
}

void log_redact(char *text)
{
    (void)redact(text, strlen(text));
}

/* ---- The sink ------------------------------------------------------------- */

static void use_stderr(void)
{
    struct stat st;
    int kind = SINK_POLLED;
    int fd = STDERR_FILENO;

    if (fstat(STDERR_FILENO, &st) == 0) {
        if (S_ISREG(st.st_mode))
            kind = SINK_DIRECT;
        if (S_ISSOCK(st.st_mode))
            kind = SINK_SOCKET;
        if (S_ISFIFO(st.st_mode)) {
            fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
            kind = fd >= 0 ? SINK_DIRECT : SINK_POLLED;
            fd = fd >= 0 ? fd : STDERR_FILENO;
        }
    }
    atomic_store(&sink.kind, kind);
    atomic_store(&sink.fd, fd);
}

static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK,
                  0640);

    return fd >= 0 ? fd : -errno;
}

static void close_own(void)
{
    int fd = atomic_exchange(&sink.fd, STDERR_FILENO);

    atomic_store(&sink.kind, SINK_POLLED);
    if (fd != STDERR_FILENO)
        close(fd);
    sink.path[0] = '\0';
}

int log_init(const struct log_opts *opts)
{
    const char *path = opts->file != NULL ? opts->file : "";
    int fd = -1;

    if (strlen(path) >= sizeof(sink.path))
        return -ENAMETOOLONG;
    if (path[0] != '\0') {
        fd = open_file(path);
        if (fd < 0)
            return fd;
    }
    close_own();
    atomic_store(&sink.json, opts->json);
    atomic_store(&log_threshold, (int)opts->level);
    if (fd < 0) {
        use_stderr();
        return 0;
    }
    memcpy(sink.path, path, strlen(path) + 1);
    atomic_store(&sink.kind, SINK_DIRECT);
    atomic_store(&sink.fd, fd);
    return 0;
}

int log_reopen(void)
{
    int rc = 0;
    int fd;

    if (sink.path[0] == '\0')
        return 0;
    fd = open_file(sink.path);
    if (fd < 0)
        return fd;
    /* The same number: a thread that is about to write uses old or new. */
    if (dup3(fd, atomic_load(&sink.fd), O_CLOEXEC) < 0)
        rc = -errno;
    close(fd);
    return rc;
}

void log_fini(void)
{
    close_own();
    atomic_store(&sink.json, false);
    atomic_store(&log_threshold, LOG_LEVEL_INFO);
    lock_secrets();
    sink.n_secrets_ever = 0;
    memset(sink.secrets, 0, sizeof(sink.secrets));
    unlock_secrets();
}

uint64_t log_n_dropped(void)
{
    return atomic_load(&sink.n_dropped);
}

/* False: the sink did not take it. */
static bool give(const char *line, size_t n)
{
    int fd = atomic_load(&sink.fd);
    int kind = atomic_load(&sink.kind);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    ssize_t done = -1;

    if (kind == SINK_POLLED &&
        (poll(&p, 1, 0) != 1 || (p.revents & POLLOUT) == 0))
        goto dropped;
    do {
        done = kind == SINK_SOCKET
                   ? send(fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                   : write(fd, line, n);
    } while (done < 0 && errno == EINTR);
    if (done == (ssize_t)n)
        return true;
dropped:
    atomic_fetch_add(&sink.n_dropped, 1);
    return false;
}

/* ---- A line --------------------------------------------------------------- */

/* Own calendar: gmtime_r() takes the time zone lock, which a child forked in the
 * wrong moment would find held. Days to date after Howard Hinnant's
 * civil_from_days. */
static void format_time(char *out, size_t n_out)
{
    struct timespec ts;
    int64_t days;
    int64_t era, doe, yoe, doy, mp, day, month, year;
    int64_t s;

    clock_gettime(CLOCK_REALTIME, &ts);
    s = ts.tv_sec % 86400;
    days = ts.tv_sec / 86400 + 719468;
    era = days / 146097;
    doe = days - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    day = doy - (153 * mp + 2) / 5 + 1;
    month = mp < 10 ? mp + 3 : mp - 9;
    year = yoe + era * 400 + (month <= 2 ? 1 : 0);
    snprintf(out, n_out, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", (int)year,
             (int)month, (int)day, (int)(s / 3600), (int)(s / 60 % 60),
             (int)(s % 60), (int)(ts.tv_nsec / 1000000));
}

static size_t append_escaped(char *out, size_t room, const char *s, size_t n)
{
    size_t to = 0;

    for (size_t i = 0; i < n && to + 4 < room; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c >= 0x20 && c != 0x7f)
            out[to++] = s[i];
        else
            to += (size_t)snprintf(out + to, room - to, "\\x%02x", c);
    }
    return to;
}

static bool give_text(enum log_level level, const char *when,
                      const char *module, const char *message, size_t n)
{
    static const char *const words[] = {"", "ERROR", "WARN", "INFO", "DEBUG"};
    char line[LOG_LINE_BYTES];
    int head = snprintf(line, sizeof(line), "%s %s %.64s ", when, words[level],
                        module);
    size_t at = (size_t)head;

    at += append_escaped(line + at, sizeof(line) - 1 - at, message, n);
    line[at++] = '\n';
    return give(line, at);
}

static bool give_json(enum log_level level, const char *when,
                      const char *module, const char *message, size_t n)
{
    struct buf line;
    bool given;

    buf_init(&line, LOG_LINE_BYTES);
    do { /* escapes may make it too long for one write: then less of it */
        struct json j;

        buf_clear(&line);
        json_init(&j, &line);
        json_object(&j);
        json_member_str(&j, "time", when);
        json_member_str(&j, "level", level_names[level]);
        json_member_str(&j, "module", module);
        json_key(&j, "message");
        json_strn(&j, message, n);
        json_end(&j);
        (void)buf_putc(&line, '\n');
        n /= 2;
    } while (line.failed && n > 0);
    given = line.data != NULL && give(line.data, line.n);
    buf_fini(&line);
    return given;
}

/* False: this site said enough in this window. *n_suppressed: what the window
 * before kept back. */
static bool site_allows(struct log_site *site, uint32_t *n_suppressed)
{
    struct timespec ts;
    uint64_t window;
    uint64_t seen;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    window = (uint64_t)ts.tv_sec / LOG_BURST_S + 1;
    seen = atomic_load(&site->window);
    if (seen != window &&
        atomic_compare_exchange_strong(&site->window, &seen, window)) {
        atomic_store(&site->n_lines, 0);
        *n_suppressed = atomic_exchange(&site->n_suppressed, 0);
    }
    if (atomic_fetch_add(&site->n_lines, 1) < LOG_BURST_LINES)
        return true;
    atomic_fetch_add(&site->n_suppressed, 1);
    return false;
}

/* Room in which messages are formatted before they are redacted and cut. */
#define MESSAGE_BYTES (LOG_LINE_BYTES * 2)

void log_write(struct log_site *site, enum log_level level, const char *module,
               const char *fmt, ...)
{
    char message[MESSAGE_BYTES];
    char when[32];
    uint32_t n_suppressed = 0;
    uint64_t n_dropped;
    bool was_cut;
    bool given;
    va_list args;
    size_t n;
    int want;

    if (level == LOG_LEVEL_OFF || !log_enabled(level) ||
        (site != NULL && !site_allows(site, &n_suppressed)))
        return;
    va_start(args, fmt);
    want = vsnprintf(message, sizeof(message) - 128, fmt, args);
    va_end(args);
    if (want < 0)
        return;
    n = strlen(message);
    was_cut = (size_t)want > n;
    n = redact(message, n);
    if (was_cut) /* the end may be the beginning of a secret */
        n = n > LOG_SECRET_BYTES ? n - LOG_SECRET_BYTES : 0;
    if (n > LOG_LINE_BYTES - 256)
        n = LOG_LINE_BYTES - 256; /* time, level, module and the two counts */
    if (n_suppressed > 0)
        n += (size_t)snprintf(message + n, 64, " suppressed=%u", n_suppressed);
    n_dropped = atomic_exchange(&sink.n_dropped_new, 0);
    if (n_dropped > 0)
        n += (size_t)snprintf(message + n, 64, " log_lines_dropped=%llu",
                              (unsigned long long)n_dropped);
    format_time(when, sizeof(when));
    given = atomic_load(&sink.json)
                ? give_json(level, when, module, message, n)
                : give_text(level, when, module, message, n);
    if (!given)
        atomic_fetch_add(&sink.n_dropped_new, n_dropped + 1);
}

int log_parse_level(const char *name, enum log_level *out)
{
    static const struct {
        const char *name;
        enum log_level level;
    } names[] = {
        {"trace", LOG_LEVEL_DEBUG},    {"debug", LOG_LEVEL_DEBUG},
        {"info", LOG_LEVEL_INFO},      {"warn", LOG_LEVEL_WARN},
        {"warning", LOG_LEVEL_WARN},   {"error", LOG_LEVEL_ERROR},
        {"critical", LOG_LEVEL_ERROR}, {"off", LOG_LEVEL_OFF},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(name, names[i].name) == 0) {
            *out = names[i].level;
            return 0;
        }
    }
    return -EINVAL;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}
