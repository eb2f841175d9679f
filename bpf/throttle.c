/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/throttle.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Value of the line "KEY VALUE"; false when there is none. */
static bool find(const char *text, const char *key, uint64_t *out)
{
    size_t n = strlen(key);

    for (const char *line = text; *line != '\0';) {
        if (strncmp(line, key, n) == 0 && line[n] == ' ') {
            *out = strtoull(line + n + 1, NULL, 10);
            return true;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return false;
}

bool throttle_parse(const char *text, struct throttle_sums *out)
{
    struct throttle_sums s;

    if (!find(text, "nr_throttled", &s.n_periods))
        return false;
    if (find(text, "throttled_usec", &s.ns))
        s.ns *= 1000;
    else if (!find(text, "throttled_time", &s.ns))
        return false;
    *out = s;
    return true;
}

static bool read_sums(const struct hierarchy *cpu, const char *path,
                      struct throttle_sums *out)
{
    char name[CGROUP_PATH_MAX + 300], text[2048];
    ssize_t n;
    int fd;

    if (cpu == NULL ||
        !hierarchy_file(cpu, path, "cpu.stat", name, sizeof(name)))
        return false;
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    return throttle_parse(text, out);
}

/* Where @slot is, or is to be. */
static size_t place(const struct throttle *t, uint64_t slot)
{
    size_t oldest = 0;

    for (size_t i = 0; i < t->n; i++) {
        if (t->seen[i].slot == slot)
            return i;
        if (t->seen[i].round < t->seen[oldest].round)
            oldest = i;
    }
    return t->n < THROTTLE_MAX ? t->n : oldest;
}

void throttle_read(struct throttle *t, const struct hierarchy *cpu,
                   uint64_t slot, const char *path, bool from_birth,
                   struct throttle_sums *delta)
{
    struct throttle_sums now;
    size_t i;

    *delta = (struct throttle_sums){0};
    if (!read_sums(cpu, path, &now))
        return;
    i = place(t, slot);
    if (i < t->n && t->seen[i].slot == slot) {
        const struct throttle_sums *before = &t->seen[i].sums;

        /* Less than before: another cgroup of that name. */
        if (now.n_periods >= before->n_periods && now.ns >= before->ns) {
            delta->n_periods = now.n_periods - before->n_periods;
            delta->ns = now.ns - before->ns;
        }
    } else {
        t->n += i == t->n;
        if (from_birth)
            *delta = now;
    }
    t->seen[i].slot = slot;
    t->seen[i].round = ++t->round;
    t->seen[i].sums = now;
}
