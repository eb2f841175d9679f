/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few named symbols of an ELF file: where its functions lie in the file, its
 * variables in memory, and which loader it asks for.
 *
 * Thread:  any; no state but the caller's.
 * Memory:  none but the caller's and 20 KiB of stack, whatever the file says.
 * Promise: total over all files, also such as change meanwhile (nothing is mapped:
 *          a file that is cut short while we read cannot end us), and time
 *          bounded by ELF_MAX_TABLE_BYTES. Files of another machine, or of 32 bits,
 *          are none.
 */
#ifndef RETRIEVER_BPF_ELF_SYMBOLS_H
#define RETRIEVER_BPF_ELF_SYMBOLS_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ELF_MAX_TABLE_BYTES (64u << 20)
#define ELF_MAX_SEGMENTS 64
#define ELF_MAX_SECTIONS 4096
#define ELF_MAX_SYMBOLS 8

/** @n bytes of the file from @at on. Returns how many there were, or -errno. */
typedef long elf_read_fn(void *arg, uint64_t at, void *to, size_t n);

/** Embedded; elf_init() fills it. */
struct elf {
    elf_read_fn *read;
    void *arg;
    Elf64_Ehdr head;
    Elf64_Phdr segments[ELF_MAX_SEGMENTS];
    size_t n_segments;
};

enum elf_rc {
    ELF_FOREIGN = 1, /* no ELF file of 64 bits for this machine */
    ELF_DAMAGED,     /* one that contradicts itself, or is beyond our bounds */
    ELF_ABSENT       /* has no such thing */
};

enum elf_kind { ELF_FUNCTION, ELF_VARIABLE };

struct elf_symbol {
    const char *name; /* the caller says, at most 31 bytes */
    enum elf_kind kind;
    bool found;
    uint64_t address; /* as linked */
    uint64_t offset;  /* ELF_FUNCTION: in the file */
};

/** Read the head. Returns 0, ELF_FOREIGN, ELF_DAMAGED or -errno of @read. */
int elf_init(struct elf *e, elf_read_fn *read, void *arg);

/** Path of the loader. Returns 0, ELF_ABSENT (static), ELF_DAMAGED or -errno. */
int elf_interpreter(const struct elf *e, char *out, size_t size);

/** The segment that the lowest addresses come from: whoever finds it in a process
 *  knows by how much addresses there differ from those in the file. Returns 0 or
 *  ELF_ABSENT. */
int elf_first_segment(const struct elf *e, uint64_t *address, uint64_t *offset);

/** Look for @n <= ELF_MAX_SYMBOLS names in the table @type (SHT_DYNSYM,
 *  SHT_SYMTAB); those with .found are left alone. Returns 0 (maybe none found),
 *  ELF_ABSENT (no such table), ELF_DAMAGED or -errno. */
int elf_find(const struct elf *e, uint32_t type, struct elf_symbol *symbols,
             size_t n);

#endif
