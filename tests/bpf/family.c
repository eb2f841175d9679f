/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process family that does something known and measures itself. Built without
 * sanitizers: their threads and memory would be measured, too.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *do_nothing(void *arg)
{
    return arg;
}

/* The main thread leaves, eight others end at once. */
static int crowd(void)
{
    for (int i = 0; i < 8; i++) {
        pthread_t t;

        (void)pthread_create(&t, NULL, do_nothing, NULL);
    }
    pthread_exit(NULL);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "crowd") == 0)
        return crowd();
    return 64;
}
