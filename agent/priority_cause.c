/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the order in which the kernel checks: first capability or limit, then the
 * budget of the group. A capability counts in the initial user namespace only, so
 * rootless containers that seem to have it do not.
 *
 * With CONFIG_RT_GROUP_SCHED each v1 `cpu` group has a budget of its own, and begins
 * with none: a process inside is refused whatever it may do. v2 groups have no file
 * to set one. The kernel's configuration tells the case from a sandbox's refusal.
 */
#include "agent/priority_cause.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <zlib.h>

#include "agent/base/num.h"

#define CAP_SYS_NICE_BIT 23
#define LINE 1024
#define MAX_LINES 20000 /* of a kernel's configuration, and then some */

/* The text behind @prefix in the first line of @path that begins with it. Plain or
 * compressed. False: no such line. */
static bool find_line(const char *root, const char *path, const char *prefix,
                      char out[LINE])
{
    size_t n = strlen(prefix);
    char full[2 * LINE];
    bool found = false;
    char line[LINE];
    gzFile f;

    (void)snprintf(full, sizeof(full), "%s%s", root, path);
    f = gzopen(full, "re");
    if (f == NULL)
        return false;
    for (int i = 0; i < MAX_LINES && !found; i++) {
        if (gzgets(f, line, sizeof(line)) == NULL)
            break;
        found = strncmp(line, prefix, n) == 0;
    }
    (void)gzclose(f);
    if (!found)
        return false;
    line[strcspn(line, "\n")] = '\0';
    memcpy(out, line + n, strlen(line + n) + 1);
    return true;
}

/* ---- Capability and limit ------------------------------------------------ */

static bool has_capability(const char *root)
{
    char text[LINE];

    return find_line(root, "/proc/self/status", "CapEff:", text) &&
           (strtoull(text, NULL, 16) >> CAP_SYS_NICE_BIT & 1) != 0;
}

static bool limit_allows(const char *root, int rt_priority)
{
    char text[LINE];

    if (!find_line(root, "/proc/self/limits", "Max realtime priority", text))
        return false;
    return strncmp(text + strspn(text, " "), "unlimited", 9) == 0 ||
           strtol(text, NULL, 10) >= rt_priority;
}

/* The initial one maps every id to itself. */
static bool in_user_namespace(const char *root)
{
    char text[LINE];
    unsigned long inside, outside, n;

    if (!find_line(root, "/proc/self/uid_map", "", text))
        return false;
    return sscanf(text, "%lu %lu %lu", &inside, &outside, &n) != 3 ||
           inside != 0 || outside != 0 || n != UINT32_MAX;
}

/* ---- Group --------------------------------------------------------------- */

/* Our path in the v1 hierarchy that has the cpu controller, and where that is
 * mounted by custom. */
static bool cpu_group(const char *root, char mount[LINE], char group[LINE])
{
    char full[2 * LINE];
    bool found = false;
    char line[LINE];
    FILE *f;

    (void)snprintf(full, sizeof(full), "%s/proc/self/cgroup", root);
    f = fopen(full, "re");
    if (f == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), f) != NULL) {
        char *list = strchr(line, ':'); /* id:controllers:path */
        char *path = list != NULL ? strchr(list + 1, ':') : NULL;
        char *save = NULL;

        if (path == NULL || path[1] != '/')
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        (void)snprintf(mount, LINE, "/sys/fs/cgroup/%s", list + 1);
        (void)snprintf(group, LINE, "%s", path[1] == '\0' ? "" : path);
        for (char *word = strtok_r(list + 1, ",", &save); word != NULL;
             word = strtok_r(NULL, ",", &save))
            found = found || strcmp(word, "cpu") == 0;
    }
    (void)fclose(f);
    return found && strstr(group, "..") == NULL;
}

/* A container's own group is mounted as the root of what it sees. */
static bool group_has_no_budget(const char *root)
{
    char mount[LINE], group[LINE], text[LINE];
    const char *mounts[] = {mount, "/sys/fs/cgroup/cpu"};
    const char *groups[] = {group, ""};

    if (!cpu_group(root, mount, group))
        return false;
    for (size_t i = 0; i < 4; i++) {
        char path[3 * LINE];

        (void)snprintf(path, sizeof(path), "%s%s/cpu.rt_runtime_us",
                       mounts[i % 2], groups[i / 2]);
        if (find_line(root, path, "", text))
            return strcmp(text, "0") == 0;
    }
    return false;
}

static bool groups_have_budgets(const char *root)
{
    static const char option[] = "CONFIG_RT_GROUP_SCHED=";
    char text[LINE];
    char path[LINE];
    struct utsname u;

    if (find_line(root, "/proc/config.gz", option, text))
        return text[0] == 'y';
    if (uname(&u) != 0)
        return false;
    (void)snprintf(path, sizeof(path), "/boot/config-%s", u.release);
    return find_line(root, path, option, text) && text[0] == 'y';
}

/* ---- Calls ---------------------------------------------------------------- */

enum priority_cause priority_diagnose(const char *root, int err,
                                      int rt_priority)
{
    if (err == 0)
        return PRIORITY_GRANTED;
    if (err != EPERM && err != EACCES)
        return PRIORITY_UNSUPPORTED;
    if (!limit_allows(root, rt_priority)) {
        if (!has_capability(root))
            return PRIORITY_NO_CAPABILITY;
        if (in_user_namespace(root))
            return PRIORITY_USER_NAMESPACE;
    }
    if (group_has_no_budget(root))
        return PRIORITY_NO_RUNTIME;
    return groups_have_budgets(root) ? PRIORITY_RT_GROUP : PRIORITY_FORBIDDEN;
}

static const struct {
    const char *name, *text, *remedy;
} causes[] = {
    [PRIORITY_GRANTED] = {"", "", ""},
    [PRIORITY_NO_CAPABILITY] =
        {"capability", "no CAP_SYS_NICE, and RLIMIT_RTPRIO is lower",
         "grant one: AmbientCapabilities=CAP_SYS_NICE or LimitRTPRIO= "
         "(systemd), --cap-add SYS_NICE (docker), "
         "securityContext.capabilities (Kubernetes)"},
    [PRIORITY_USER_NAMESPACE] =
        {"user_namespace",
         "CAP_SYS_NICE counts inside this user namespace only",
         "start it with a limit that allows it: LimitRTPRIO=, --ulimit "
         "rtprio="},
    [PRIORITY_NO_RUNTIME] =
        {"rt_runtime",
         "cpu.rt_runtime_us of our cpu cgroup is 0 (CONFIG_RT_GROUP_SCHED)",
         "write 50000 to it and to its parents first, or start the container "
         "with --cpu-rt-runtime=50000"},
    [PRIORITY_RT_GROUP] =
        {"rt_group",
         "this kernel has CONFIG_RT_GROUP_SCHED, and a v2 cgroup cannot be "
         "given a real-time budget",
         "nothing inside this cgroup; outside: run in the root cgroup, or boot "
         "with rt_group_sched=0 where the kernel knows it"},
    [PRIORITY_UNSUPPORTED] =
        {"unsupported", "this kernel, or sandbox, has no real-time scheduling",
         "nothing"},
    [PRIORITY_FORBIDDEN] =
        {"forbidden", "the capability is there: a sandbox forbids the call",
         "allow sched_setattr(2) in its seccomp profile"},
    [PRIORITY_RUNAWAY] =
        {"runaway", "the reader ran for ebpf.reader.rttime_ms without a pause",
         "report it with the log; a restart gives the priority back"},
};

const char *priority_cause_name(enum priority_cause c)
{
    return causes[c].name;
}

const char *priority_cause_text(enum priority_cause c)
{
    return causes[c].text;
}

const char *priority_cause_remedy(enum priority_cause c)
{
    return causes[c].remedy;
}
