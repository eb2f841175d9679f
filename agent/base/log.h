/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line per record, on stderr or in a file.
 *
 *   2026-01-31T12:00:00.123Z WARN forwarder request failed status=503
 *   {"time":"...","level":"warn","module":"forwarder","message":"..."}
 *
 *   log_warn("forwarder", "request failed status=%d", status);
 *
 * Message: what happened in the past tense, then key=value, the cause last.
 * ERROR = data lost or a feature off, WARN = degraded, INFO = state change,
 * DEBUG = per batch.
 *
 * Thread:  any, except where a wait for a short lock or a write is not allowed
 *          (the reader thread counts instead). Set-up and log_reopen() by one.
 * Memory:  a line is cut at LOG_LINE_BYTES; fixed tables otherwise.
 * Promise: a line is one write and never blocks on a pipe, socket or terminal
 *          that nobody reads: it is dropped, counted, and the next line that
 *          gets through says how many. No registered secret is ever written.
 *          Bytes that are not text are escaped: a record is always one line.
 *          Safe after fork() in the child. SIGPIPE must be blocked or ignored.
 */
#ifndef RETRIEVER_AGENT_BASE_LOG_H
#define RETRIEVER_AGENT_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LOG_LINE_BYTES 4096 /* what a pipe takes as a whole (PIPE_BUF) */
#define LOG_MAX_SECRETS 16
#define LOG_SECRET_BYTES 256

/* Per call site: so many lines in so many seconds, then they are counted. */
#define LOG_BURST_LINES 10
#define LOG_BURST_S 10

enum log_level {
    LOG_LEVEL_OFF,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};

struct log_opts {
    enum log_level level;
    bool json;
    const char *file; /* NULL or "": stderr */
};

/* Rate limit of one call site; the macros make it. */
struct log_site {
    _Atomic uint64_t window; /* number of the LOG_BURST_S window + 1 */
    _Atomic uint32_t n_lines;
    _Atomic uint32_t n_suppressed;
};

/** Before it is called, and after a failure, INFO text goes to stderr. May be
 *  called again. Returns 0 or -errno of opening the file. */
int log_init(const struct log_opts *opts);

/** Open the log file anew under its name (after it was moved away); nothing
 *  to do for stderr. Returns 0, or -errno and the old file stays. */
int log_reopen(void);

/** Back to the state before log_init(), secrets forgotten. Tests, and the end. */
void log_fini(void);

/** From now on every occurrence of @secret in a line is written as five stars and
 *  its last 5 characters (stars alone when shorter than 10). Strings shorter than
 *  4 are ignored, those longer than LOG_SECRET_BYTES known by their first
 *  LOG_SECRET_BYTES. Beyond LOG_MAX_SECRETS the oldest is forgotten. */
void log_set_secret(const char *secret);

/** Replace what is registered in @text, in place; for outputs other than the log.
 *  The result is never longer. */
void log_redact(char *text);

/** trace debug info warn warning error critical off, in any case. 0 or -EINVAL. */
int log_parse_level(const char *name, enum log_level *out);
const char *log_level_name(enum log_level level);

/** Lines that the sink did not take, in this process. */
uint64_t log_n_dropped(void);

extern _Atomic int log_threshold; /* read by log_enabled() alone */

static inline bool log_enabled(enum log_level level)
{
    return (int)level <=
           atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

/** @site NULL: no rate limit (a report of many lines). Use the macros else. */
void log_write(struct log_site *site, enum log_level level, const char *module,
               const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#define LOG_AT(level, module, ...)                                             \
    do {                                                                       \
        static struct log_site log_site_;                                      \
                                                                               \
        if (log_enabled(level))                                                \
            log_write(&log_site_, (level), (module), __VA_ARGS__);             \
    } while (0)

#define log_error(module, ...) LOG_AT(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) LOG_AT(LOG_LEVEL_WARN, module, __VA_ARGS__)
#define log_info(module, ...) LOG_AT(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) LOG_AT(LOG_LEVEL_DEBUG, module, __VA_ARGS__)

#endif
