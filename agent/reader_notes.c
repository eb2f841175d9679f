/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader does no log I/O: it leaves notes, the loop writes the lines. The
 * log's own limit per call site keeps a bad sender from filling it.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/reader_private.h"

static void log_length(const char *socket, const struct ingress_note *n)
{
    bool text = n->n_bytes >= 4;
    char shown[sizeof(n->bytes) + 1];

    for (uint32_t i = 0; i < n->n_bytes; i++) {
        bool ok = isprint(n->bytes[i]) != 0;

        shown[i] = ok ? (char)n->bytes[i] : '.';
        if (i < 4 && !ok)
            text = false;
    }
    shown[n->n_bytes] = '\0';
    log_warn("reader",
             "stream connection was closed: frame length is not allowed%s "
             "socket=%s length=%" PRId64 " begins=%s",
             text ? "; it reads as text: the client probably sends lines "
                    "without a length"
                  : "; see stream_max_frame_bytes",
             socket, n->value, shown);
}

void reader_log_note(const struct sockets *s, const struct ingress_note *n,
                     bool quiet)
{
    const char *socket =
        n->source == NOTE_OF_KERNEL ? "kernel" : s->entries[n->source].name;

    switch (n->kind) {
    case NOTE_STREAM_REFUSED:
        log_warn("reader",
                 "stream connection was refused: stream_max_connections or the "
                 "limit of open files is reached socket=%s limit=%" PRId64,
                 socket, n->value);
        break;
    case NOTE_STREAM_LENGTH:
        log_length(socket, n);
        break;
    case NOTE_STREAM_MEMORY:
        log_warn("reader",
                 "stream connection was closed: no memory for it socket=%s "
                 "cause=%s",
                 socket, strerror((int)n->value));
        break;
    case NOTE_STREAM_PARTIAL:
        log_warn("reader",
                 "stream connection ended inside a frame socket=%s "
                 "lost_bytes=%" PRId64,
                 socket, n->value);
        break;
    case NOTE_ACCEPT_FAILED:
        log_warn("reader", "connection was not accepted socket=%s cause=%s",
                 socket, strerror((int)n->value));
        break;
    case NOTE_RECEIVE_FAILED:
        log_warn("reader", "socket was not read socket=%s cause=%s", socket,
                 strerror((int)n->value));
        break;
    case NOTE_POISON:
        log_error("reader",
                  "record was skipped: two workers died at it socket=%s "
                  "bytes=%" PRId64,
                  socket, n->value);
        break;
    case NOTE_REJECTED:
        log_write(NULL, quiet ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "reader",
                  "line was rejected, the first of its kind in a minute "
                  "reason=%s socket=%s line=%.*s",
                  dsd_reject_name((enum dsd_result)n->value), socket,
                  (int)n->n_bytes, (const char *)n->bytes);
        break;
    case NOTE_KERNEL_DROPS:
        log_warn("reader",
                 "kernel dropped datagrams because the receive buffer was "
                 "full socket=%s datagrams=%" PRId64,
                 socket, n->value);
        break;
    case NOTE_CLOCK_STEPPED:
        log_info("reader", "wall clock was stepped seconds=%" PRId64, n->value);
        break;
    case NOTE_GRACE_LATE:
        log_warn("reader",
                 "the machine is too busy to tell when the last senders are "
                 "through; the stop goes on without waited_ms=%" PRId64,
                 n->value);
        break;
    case NOTE_TAP_FAILED:
        log_warn("reader",
                 "socket was not tapped and is read in the usual way "
                 "socket=%s cause=%s",
                 socket, strerror((int)n->value));
        break;
    case NOTE_STOP_FAILED:
        log_warn("reader",
                 "socket was not stopped, its last data may be lost socket=%s "
                 "cause=%s",
                 socket, strerror((int)n->value));
        break;
    }
}
