/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the table about the kernel: the reader's priority. */
#include "agent/config_row.h"

static const struct config_key rows[] = {
    /* ---- Priority ---- */
    {.section = "Priority of the reader",
     .name = "event_monitoring_config.event_stream.scheduling_policy",
     .type = KEY_STRING,
     .def = "",
     .def_note = "as all threads",
     .aliases = {"ebpf.reader.scheduling_policy", "ebpf.scheduling_policy",
                 "dogstatsd_scheduling_policy"},
     .flags = KEY_AGREE,
     .help = "Real-time policy of the one thread that reads sockets and kernel "
             "events: SCHED_FIFO or SCHED_RR, in capitals. Where processes of "
             "higher priority keep the CPUs busy it is what saves datagrams "
             "from a full socket. Needs CAP_SYS_NICE or LimitRTPRIO=; see "
             "docs/kernel.md."},
    {.name = "event_monitoring_config.event_stream.scheduling_priority",
     .type = KEY_INT,
     .def = "0",
     .def_note = "none",
     .aliases = {"ebpf.reader.scheduling_priority", "ebpf.scheduling_priority",
                 "dogstatsd_scheduling_priority"},
     .flags = KEY_LATE | KEY_AGREE,
     RANGE(1, 99),
     .help = "Priority within the policy; 1 to 10 is enough, and from 50 on "
             "interrupt threads of real-time kernels have to wait."},
    {.name = "ebpf.reader.nice_fallback",
     .type = KEY_INT,
     .def = "-20",
     RANGE(-20, 19),
     FIELD(nice_fallback),
     .help = "Nice value that is tried where the real-time policy is refused, "
             "and -10 after it; 0 = neither."},
    {.name = "ebpf.reader.rttime_ms",
     MILLISECONDS,
     .def = "200",
     RANGE(20, 900),
     FIELD(rttime_ms),
     .help = "A reader that runs for so long with real-time priority, without "
             "one pause, loses it until the next start."},
};
const struct config_part config_keys_kernel = {rows,
                                               sizeof(rows) / sizeof(rows[0])};
