/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over each file of the folders and files it is given, for
 * compilers without libFuzzer: every input that once broke something stays a
 * test.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = NULL;
    size_t n = 0;
    struct stat st;

    if (f == NULL || fstat(fileno(f), &st) != 0) {
        perror(path);
        if (f != NULL)
            fclose(f);
        return -1;
    }
    /* An allocation of the exact size lets ASan see a read past the end. */
    bytes = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    if (bytes == NULL)
        abort();
    n = fread(bytes, 1, (size_t)st.st_size, f);
    fclose(f);
    (void)LLVMFuzzerTestOneInput(bytes, n);
    free(bytes);
    return 0;
}

static int run_path(const char *path, unsigned *n_run)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int rc = 0;

    if (d == NULL) {
        (*n_run)++;
        return run_file(path);
    }
    while (rc == 0 && (e = readdir(d)) != NULL) {
        char sub[4096];

        if (e->d_name[0] == '.')
            continue;
        snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
        (*n_run)++;
        rc = run_file(sub);
    }
    closedir(d);
    return rc;
}

int main(int argc, char **argv)
{
    unsigned n_run = 0;

    for (int i = 1; i < argc; i++) {
        if (run_path(argv[i], &n_run) != 0)
            return 1;
    }
    printf("%u inputs\n", n_run);
    return n_run > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
