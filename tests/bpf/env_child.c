/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that changes its environment in one way, then tells what getenv() says
 * then. Built against several C libraries.
 *
 *   env_child first|keep|putenv|unset|clear|long   0: reads a byte, acts
 *                                                  1: "L value" or "-"
 *   env_child fork     sets, forks; the child answers in place of it
 *   env_child exec     sets, then becomes `env_child tell`
 *   env_child tell     answers at once
 *
 * It ends when its input does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "RETRIEVER_TEST_VALUE"
#define LONG_BYTES 3000

/* Far from what else is touched: the kernel maps pages around a fault, too. */
static const char far_name[1 << 17] __attribute__((aligned(1 << 17), used)) =
    NAME;
static const char far_value[1 << 17] __attribute__((aligned(1 << 17), used)) =
    "first.1";

static void tell(void)
{
    const char *v = getenv(NAME);
    char head[32];
    int n = v != NULL ? snprintf(head, sizeof(head), "%zu ", strlen(v))
                      : snprintf(head, sizeof(head), "- ");

    if (write(1, head, (size_t)n) != n ||
        (v != NULL && write(1, v, strlen(v)) != (ssize_t)strlen(v)))
        _exit(1);
}

static void wait_end(void)
{
    char c;

    while (read(0, &c, 1) > 0)
        ;
}

static void act(const char *how)
{
    static char put[] = NAME "=put";

    if (strcmp(how, "first") == 0) {
        setenv(far_name, far_value, 1);
    } else if (strcmp(how, "keep") == 0) {
        setenv(NAME, "not this", 0);
    } else if (strcmp(how, "putenv") == 0) {
        putenv(put);
    } else if (strcmp(how, "unset") == 0) {
        unsetenv(NAME);
    } else if (strcmp(how, "clear") == 0) {
        clearenv();
    } else if (strcmp(how, "long") == 0) {
        char *v = malloc(LONG_BYTES + 1);

        memset(v, 'x', LONG_BYTES);
        v[LONG_BYTES] = '\0';
        setenv(NAME, v, 1);
    } else if (strcmp(how, "fork") == 0 || strcmp(how, "exec") == 0) {
        setenv(NAME, how, 1);
    }
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "tell";
    char c;

    if (strcmp(how, "tell") != 0 && read(0, &c, 1) != 1)
        return 1;
    act(how);
    if (strcmp(how, "fork") == 0) {
        pid_t pid = fork();

        if (pid != 0) {
            wait_end();
            return waitpid(pid, NULL, 0) == pid ? 0 : 1;
        }
        printf("%d ", (int)getpid());
        fflush(stdout);
    }
    if (strcmp(how, "exec") == 0)
        execl(argv[0], argv[0], "tell", (char *)NULL);
    tell();
    wait_end();
    return 0;
}
