/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs that send one datagram and are gone: many, one behind the other, each with a
 * CUDA_VISIBLE_DEVICES of its own, whose value is in the metric's name. harness.py
 * compiles it, for the release build has no tests.
 *
 *   short_job SOCKET exec N    a new program sends `job.VALUE`
 *   short_job SOCKET fork N    a child of a new program does
 *   short_job SOCKET again N   a new program sends `before`, and becomes another one
 *   short_job SOCKET without N   ... one without the variable, which sends `without`
 *   short_job SOCKET set N     a new program sets the variable and sends
 *   short_job SOCKET spin      a job that does nothing, for ever
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_VALUES 8

static const char *path;

static void fail(const char *what)
{
    perror(what);
    _exit(1);
}

static void send_one(const char *name)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char line[64];
    int n = snprintf(line, sizeof(line), "%s:1|c", name);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    if (strlen(path) >= sizeof(to.sun_path))
        fail("path");
    memcpy(to.sun_path, path, strlen(path));
    if (sendto(fd, line, (size_t)n, 0, (struct sockaddr *)&to, sizeof(to)) != n)
        fail("sendto");
    (void)close(fd);
}

static void send_value(const char *value)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "job.%s", value);
    send_one(name);
}

/* By hand: setenv() would be told. */
static void become(const char *mode, const char *value)
{
    char variable[64];
    char *argv[] = {"short_job", (char *)path, (char *)mode, NULL};
    char *envp[] = {"PATH=/usr/bin:/bin", "SECRET=nobody may know", variable,
                    NULL};

    (void)snprintf(variable, sizeof(variable), "CUDA_VISIBLE_DEVICES=%s",
                   value != NULL ? value : "");
    if (value == NULL)
        envp[2] = NULL;
    (void)execve("/proc/self/exe", argv, envp);
    fail("execve");
}

static void await(pid_t pid)
{
    int status = -1;

    if (pid < 0)
        fail("fork");
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status != 0)
        fail("a job");
}

static void do_job(const char *mode)
{
    const char *value = getenv("CUDA_VISIBLE_DEVICES");

    if (strcmp(mode, "exec!") == 0) {
        send_value(value);
    } else if (strcmp(mode, "fork!") == 0) {
        pid_t pid = fork();

        if (pid != 0) {
            await(pid);
            return;
        }
        send_value(value);
        _exit(0);
    } else if (strcmp(mode, "again!") == 0) {
        send_one("before");
        become("exec!", value[0] == '0' ? "7" : "0");
    } else if (strcmp(mode, "without!") == 0 && value != NULL) {
        send_one("before");
        become("without!", NULL);
    } else if (strcmp(mode, "without!") == 0) {
        send_one("without");
    } else if (strcmp(mode, "set!") == 0) {
        (void)setenv("CUDA_VISIBLE_DEVICES", value[0] == '0' ? "7" : "0", 1);
        send_value(getenv("CUDA_VISIBLE_DEVICES"));
    }
}

int main(int argc, char **argv)
{
    char inner[32];
    int n;

    if (argc < 3)
        return 2;
    path = argv[1];
    if (strcmp(argv[2], "spin") == 0) {
        for (;;)
            __asm__ volatile("");
    }
    if (argc == 3) {
        do_job(argv[2]);
        return 0;
    }
    n = (int)strtol(argv[3], NULL, 10);
    (void)snprintf(inner, sizeof(inner), "%s!", argv[2]);
    for (int i = 0; i < n; i++) {
        char value[4] = {(char)('0' + i % N_VALUES), '\0'};
        pid_t pid = fork();

        if (pid == 0)
            become(inner, value);
        await(pid);
    }
    return 0;
}
