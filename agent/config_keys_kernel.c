/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the table about the kernel: its metrics, the reader's priority. */
#include "agent/config_row.h"
#include "bpf/cuda.h"
#include "bpf/watch.h"

#define KIB (1024.0)
#define MIB (1024.0 * 1024)

static const struct config_choice ebpf_modes[] = {
    {"auto", EBPF_AUTO},
    {"true", EBPF_ON},
    {"false", EBPF_OFF},
    {NULL, 0},
};

static const struct config_choice runq_modes[] = {
    {"aggregate", 0},
    {"stream", 1},
    {NULL, 0},
};

static const struct config_choice cuda_semantics[] = {
    {"cuda", CUDA_AS_CUDA},
    {"datadog", CUDA_AS_DATADOG},
    {NULL, 0},
};
static const struct config_choice live_modes[] = {
    {"auto", 1},
    {"never", 0},
    {NULL, 0},
};

static const char *check_watch(const char *text)
{
    struct watch w;

    watch_init(&w);
    return watch_item(&w, text);
}

static const struct config_key rows[] = {
    /* ---- Metrics ---- */
    {.section = "Kernel metrics",
     .name = "ebpf.enabled",
     .type = KEY_CHOICE,
     .def = "auto",
     .choices = ebpf_modes,
     FIELD(ebpf),
     .help =
         "Measure the kernel by eBPF: auto = what the privileges allow, one "
         "line says what is off; true = `run` refuses to start where no "
         "program can be loaded; false = nothing is tried. "
         "`retriever ebpf status` shows each feature."},
    {.name = "ebpf.reader.ring_bytes",
     BYTES,
     .def = "262144",
     RANGE(64 * KIB, 64 * MIB),
     FIELD(ebpf_ring_bytes),
     .help = "Ring buffer of kernel events, a power of two; when the kernel "
             "has no memory for it, less is taken."},
    {.name = "ebpf.reader.max_delay_ms",
     MILLISECONDS,
     .def = "100",
     RANGE(1, 1000),
     FIELD(ebpf_max_delay_ms),
     .help = "Under load the ring is looked at this often at least."},
    {.name = "ebpf.reader.per_cpu_stats",
     .type = KEY_BOOL,
     .def = "false",
     FIELD(ebpf_per_cpu_stats),
     .help = "Tag retriever.ebpf.events.* with the CPU."},
    {.name = "ebpf.self_stats",
     .type = KEY_BOOL,
     .def = "false",
     FIELD(ebpf_self_stats),
     .help = "Tell what our kernel programs cost (retriever.ebpf.prog.*): for "
             "one second of each minute the kernel counts the runs of all "
             "programs, at 20 to 30 ns a run. Needs CAP_SYS_ADMIN."},
    {.name = "ebpf.drop.client_pid",
     .type = KEY_BOOL,
     .def = "false",
     FIELD(ebpf_drop_client_pid),
     .help = "Tag retriever.ingress.lost with the sender's process: for a "
             "search, each is a context of its own."},
    {.name = "ebpf.activity.enabled",
     .type = KEY_CHOICE,
     .def = "auto",
     .choices = ebpf_modes,
     FIELD(ebpf_activity),
     .help = "Work and idleness of process families: auto and true = where "
             "programs can be loaded; false = off."},
    {.name = "ebpf.activity.idle_threshold_ms",
     MILLISECONDS,
     .def = "50",
     RANGE(1, 60000),
     FIELD(ebpf_activity_threshold_ms),
     .help = "Shorter idleness of a family is none."},
    {.name = "ebpf.activity.families",
     .type = KEY_LIST,
     .def = "name=agent;env=AGENT_MODE=1",
     FIELD(ebpf_activity_families),
     .help = "Which processes begin a family, one rule per item, at most 64: "
             "words key=value, parted by blanks or `;`. name; env, comm, exe, "
             "argv0, cgroup, pid (all that are given must fit); sub and skill "
             "name descendants; by is process or container. The job of `exec` "
             "is the family workload, without a rule. See docs/kernel.md."},
    {.name = "ebpf.activity.pid_tags",
     .type = KEY_BOOL,
     .def = "false",
     FIELD(ebpf_activity_pid_tags),
     .help = "Tag root_pid: on the metrics of families; a context per root."},

    /* ---- Waits for a CPU ---- */
    {.section = "Waits for a CPU",
     .name = "ebpf.runq.enabled",
     .type = KEY_CHOICE,
     .def = "auto",
     .choices = ebpf_modes,
     FIELD(runq),
     .help = "Measure how long containers wait for a CPU and who makes them "
             "wait: auto, true or false; see docs/kernel.md."},
    {.name = "ebpf.runq.mode",
     .type = KEY_CHOICE,
     .def = "aggregate",
     .choices = runq_modes,
     FIELD(runq_stream),
     .help = "aggregate = sums over all waits; stream = records of single "
             "waits, a sample."},
    {.name = "ebpf.runq.stream.min_interval_us",
     .type = KEY_INT,
     .def = "1000",
     RANGE(0, 1000000),
     FIELD(runq_min_interval_us),
     .help = "stream: microseconds between two records of one cgroup and CPU; "
             "0 = every wait."},
    {.name = "ebpf.runq.system",
     .type = KEY_BOOL,
     .def = "false",
     FIELD(runq_system),
     .help = "Report what is in no container, too, by unit."},
    {.name = "ebpf.runq.voluntary",
     .type = KEY_BOOL,
     .def = "false",
     FIELD(runq_voluntary),
     .help = "Count switches of tasks that went to sleep."},
    {.name = "ebpf.runq.include",
     .type = KEY_STRING,
     .def = "",
     .def_note = "all",
     FIELD(runq_include),
     .help = "Globs, with spaces between, of names and cgroup paths of the "
             "containers to report."},
    {.name = "ebpf.runq.exclude",
     .type = KEY_STRING,
     .def = "",
     .def_note = "none",
     FIELD(runq_exclude),
     .help = "Globs of containers that are not reported; they still count as "
             "neighbours of others."},
    {.name = "ebpf.runq.top_neighbors",
     .type = KEY_INT,
     .def = "5",
     RANGE(0, 50),
     FIELD(runq_top_neighbors),
     .help = "So many neighbours of each container have a name, the rest is "
             "`other`."},
    {.name = "ebpf.runq.min_pair_us",
     .type = KEY_INT,
     .def = "100",
     RANGE(0, 1000000),
     FIELD(runq_min_pair_us),
     .help = "Shorter waits, in microseconds, name no neighbour."},
    {.name = "ebpf.runq.max_containers",
     .type = KEY_INT,
     .def = "512",
     RANGE(1, 4096),
     FIELD(runq_max_containers),
     .help = "The busiest so many containers are reported by name, the rest "
             "as container:other."},
    {.name = "ebpf.runq.hierarchy",
     .type = KEY_STRING,
     .def = "auto",
     FIELD(runq_hierarchy),
     .help = "Cgroups to tell containers apart by: v2, a controller of v1, or "
             "auto (where most containers are)."},

    /* ---- Environment variables ---- */
    {.section = "Environment variables of senders",
     .name = "ebpf.env.enabled",
     .type = KEY_CHOICE,
     .def = "auto",
     .choices = ebpf_modes,
     FIELD(ebpf_env),
     .help = "Follow CUDA_VISIBLE_DEVICES and other variables as processes "
             "change them; see docs/kernel.md."},
    {.name = "ebpf.env.watch",
     .type = KEY_LIST,
     .def = "",
     .check = check_watch,
     FIELD(ebpf_env_watch),
     .help = "At most 8 further variables, NAME or NAME:tag, that become a tag "
             "of what the process sends."},
    {.name = "ebpf.env.max_inodes",
     .type = KEY_INT,
     .def = "256",
     RANGE(1, 4096),
     FIELD(ebpf_env_max_inodes),
     .help = "So many different C libraries and static programs are watched at "
             "once."},
    {.name = "ebpf.env.rescan_s",
     SECONDS,
     .def = "60",
     RANGE(5, 3600),
     FIELD(ebpf_env_rescan_s),
     .help = "All processes are looked through this often, for what was "
             "missed."},
    {.name = "ebpf.env.live",
     .type = KEY_CHOICE,
     .def = "auto",
     .choices = live_modes,
     FIELD(ebpf_env_live),
     .help = "Read the watched variables from the memory of processes where a "
             "call does not tell them, or never."},
    {.name = "ebpf.cuda.tags",
     .type = KEY_BOOL,
     .def = "true",
     FIELD(ebpf_cuda_tags),
     .help = "Tags cuda_visible_devices, gpu_index and gpu_uuid on what a "
             "process with CUDA_VISIBLE_DEVICES sends."},
    {.name = "ebpf.cuda.semantics",
     .type = KEY_CHOICE,
     .def = "cuda",
     .choices = cuda_semantics,
     FIELD(ebpf_cuda_semantics),
     .help = "What odd values mean: what is wrong ends the list (cuda), or "
             "empties it (datadog)."},

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
