/* SPDX-License-Identifier: Apache-2.0 */
/* Symbols of a file that somebody else made. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/elf_symbols.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct file {
    const uint8_t *data;
    size_t n;
};

static long read_at(void *arg, uint64_t at, void *to, size_t n)
{
    const struct file *f = arg;

    if (at >= f->n)
        return 0;
    if (n > f->n - at)
        n = f->n - (size_t)at;
    memcpy(to, f->data + at, n);
    return (long)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file f = {data, size};
    struct elf_symbol s[] = {
        {.name = "setenv"},
        {.name = "unsetenv"},
        {.name = "environ", .kind = ELF_VARIABLE},
        {.name = "__environ", .kind = ELF_VARIABLE},
    };
    uint64_t address, offset;
    char path[256];
    struct elf e;

    if (elf_init(&e, read_at, &f) != 0)
        return 0;
    if (elf_interpreter(&e, path, sizeof(path)) == 0 &&
        memchr(path, '\0', sizeof(path)) == NULL)
        abort();
    (void)elf_first_segment(&e, &address, &offset);
    if (elf_find(&e, SHT_DYNSYM, s, 4) != 0)
        (void)elf_find(&e, SHT_SYMTAB, s, 4);
    return 0;
}
