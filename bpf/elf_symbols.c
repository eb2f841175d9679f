/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Big programs have 100,000 symbols, and we look for a handful: so first the names
 * are looked for in the table of strings, read in pieces, and then the symbols that
 * point there. A name may be the tail of another one ("environ" of "__environ"),
 * since linkers share tails.
 *
 * Not libelf: it wants a file mapped or whole tables in memory, and the files here
 * belong to whoever runs a container.
 */
#include "bpf/elf_symbols.h"

#include <errno.h>
#include <string.h>

#include "agent/base/contract.h"

#define PIECE_BYTES 16384u
#define NAME_BYTES 32u
#define MAX_PLACES 32 /* of one name in a table of strings */

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_NONE
#endif

struct table {
    uint64_t at, n_bytes;
};

/* Offsets in the table of strings at which a name begins. */
struct places {
    uint32_t at[MAX_PLACES];
    uint32_t n;
};

static int read_all(const struct elf *e, uint64_t at, void *to, size_t n)
{
    long got = e->read(e->arg, at, to, n);

    if (got < 0)
        return (int)got;
    return (size_t)got == n ? 0 : ELF_DAMAGED;
}

int elf_init(struct elf *e, elf_read_fn *read, void *arg)
{
    int rc;

    memset(e, 0, sizeof(*e));
    e->read = read;
    e->arg = arg;
    rc = read_all(e, 0, &e->head, sizeof(e->head));
    if (rc != 0)
        return rc == ELF_DAMAGED ? ELF_FOREIGN : rc;
    if (memcmp(e->head.e_ident, ELFMAG, SELFMAG) != 0 ||
        e->head.e_ident[EI_CLASS] != ELFCLASS64 ||
        e->head.e_ident[EI_DATA] != ELFDATA2LSB ||
        e->head.e_machine != MACHINE ||
        (e->head.e_type != ET_EXEC && e->head.e_type != ET_DYN))
        return ELF_FOREIGN;
    if (e->head.e_phnum > ELF_MAX_SEGMENTS ||
        (e->head.e_phnum > 0 && e->head.e_phentsize != sizeof(Elf64_Phdr)))
        return ELF_DAMAGED;
    rc = read_all(e, e->head.e_phoff, e->segments,
                  e->head.e_phnum * sizeof(Elf64_Phdr));
    if (rc == 0)
        e->n_segments = e->head.e_phnum;
    return rc;
}

int elf_interpreter(const struct elf *e, char *out, size_t size)
{
    for (size_t i = 0; i < e->n_segments; i++) {
        const Elf64_Phdr *p = &e->segments[i];
        int rc;

        if (p->p_type != PT_INTERP)
            continue;
        if (p->p_filesz < 2 || p->p_filesz > size)
            return ELF_DAMAGED;
        rc = read_all(e, p->p_offset, out, (size_t)p->p_filesz);
        if (rc == 0 && memchr(out, '\0', (size_t)p->p_filesz) == NULL)
            rc = ELF_DAMAGED;
        return rc;
    }
    return ELF_ABSENT;
}

int elf_first_segment(const struct elf *e, uint64_t *address, uint64_t *offset)
{
    const Elf64_Phdr *first = NULL;

    for (size_t i = 0; i < e->n_segments; i++) {
        const Elf64_Phdr *p = &e->segments[i];

        if (p->p_type == PT_LOAD && p->p_filesz > 0 &&
            (first == NULL || p->p_vaddr < first->p_vaddr))
            first = p;
    }
    if (first == NULL)
        return ELF_ABSENT;
    *address = first->p_vaddr;
    *offset = first->p_offset;
    return 0;
}

/* ---- Symbols ------------------------------------------------------------ */

static int section(const struct elf *e, uint32_t i, Elf64_Shdr *out)
{
    if (i >= e->head.e_shnum)
        return ELF_DAMAGED;
    return read_all(e, e->head.e_shoff + (uint64_t)i * sizeof(*out), out,
                    sizeof(*out));
}

static int find_tables(const struct elf *e, uint32_t type,
                       struct table *symbols, struct table *strings)
{
    Elf64_Shdr s;
    int rc;

    if (e->head.e_shnum > 0 && e->head.e_shentsize != sizeof(s))
        return ELF_DAMAGED;
    for (uint32_t i = 0; i < e->head.e_shnum && i < ELF_MAX_SECTIONS; i++) {
        rc = section(e, i, &s);
        if (rc != 0)
            return rc;
        if (s.sh_type != type)
            continue;
        *symbols = (struct table){s.sh_offset, s.sh_size};
        rc = section(e, s.sh_link, &s);
        if (rc != 0)
            return rc;
        *strings = (struct table){s.sh_offset, s.sh_size};
        if (s.sh_type != SHT_STRTAB || symbols->n_bytes > ELF_MAX_TABLE_BYTES ||
            strings->n_bytes > ELF_MAX_TABLE_BYTES)
            return ELF_DAMAGED;
        return 0;
    }
    return ELF_ABSENT;
}

static void find_in_piece(const char *piece, size_t n, uint32_t base,
                          const char *name, struct places *out)
{
    size_t n_name = strlen(name) + 1;
    const char *from = piece;

    while (out->n < MAX_PLACES) {
        const char *hit =
            memmem(from, (size_t)(piece + n - from), name, n_name);

        if (hit == NULL)
            return;
        out->at[out->n++] = base + (uint32_t)(hit - piece);
        from = hit + 1;
    }
}

/* Pieces overlap by one byte less than the longest name, so a hit in the overlap
 * would need more than that: none is seen twice, none is missed, as long as each
 * name is cut off with its own length. */
static int find_names(const struct elf *e, const struct table *strings,
                      const struct elf_symbol *symbols, size_t n,
                      struct places *places)
{
    char piece[PIECE_BYTES];
    uint64_t done = 0;

    while (done < strings->n_bytes) {
        uint64_t left = strings->n_bytes - done;
        size_t want = left < sizeof(piece) ? (size_t)left : sizeof(piece);
        int rc = read_all(e, strings->at + done, piece, want);

        if (rc != 0)
            return rc;
        for (size_t i = 0; i < n; i++) {
            size_t keep = NAME_BYTES - (strlen(symbols[i].name) + 1);
            /* what the overlap holds whole, the piece before has found */
            size_t skip = done == 0 ? 0 : keep;

            if (!symbols[i].found && skip < want)
                find_in_piece(piece + skip, want - skip,
                              (uint32_t)(done + skip), symbols[i].name,
                              &places[i]);
        }
        if (want == left)
            break;
        done += want - (NAME_BYTES - 1);
    }
    return 0;
}

static bool file_offset(const struct elf *e, uint64_t address, uint64_t *out)
{
    for (size_t i = 0; i < e->n_segments; i++) {
        const Elf64_Phdr *p = &e->segments[i];

        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0 &&
            address >= p->p_vaddr && address - p->p_vaddr < p->p_filesz) {
            *out = address - p->p_vaddr + p->p_offset;
            return true;
        }
    }
    return false;
}

static void match(const struct elf *e, const Elf64_Sym *sym,
                  struct elf_symbol *symbol, const struct places *places)
{
    int type = ELF64_ST_TYPE(sym->st_info);
    int binding = ELF64_ST_BIND(sym->st_info);

    if (symbol->found || sym->st_shndx == SHN_UNDEF || sym->st_value == 0 ||
        type != (symbol->kind == ELF_FUNCTION ? STT_FUNC : STT_OBJECT) ||
        (binding != STB_GLOBAL && binding != STB_WEAK))
        return;
    for (uint32_t i = 0; i < places->n; i++) {
        if (places->at[i] != sym->st_name)
            continue;
        symbol->address = sym->st_value;
        symbol->found = symbol->kind == ELF_VARIABLE ||
                        file_offset(e, sym->st_value, &symbol->offset);
        return;
    }
}

int elf_find(const struct elf *e, uint32_t type, struct elf_symbol *symbols,
             size_t n)
{
    struct places places[ELF_MAX_SYMBOLS] = {0};
    Elf64_Sym piece[PIECE_BYTES / sizeof(Elf64_Sym)];
    struct table symtab = {0}, strings = {0};
    uint64_t done = 0;
    int rc = find_tables(e, type, &symtab, &strings);

    REQUIRE(n <= ELF_MAX_SYMBOLS);
    for (size_t i = 0; i < n; i++)
        REQUIRE(strlen(symbols[i].name) < NAME_BYTES);
    if (rc == 0)
        rc = find_names(e, &strings, symbols, n, places);
    while (rc == 0 && symtab.n_bytes - done >= sizeof(piece[0])) {
        uint64_t left = (symtab.n_bytes - done) / sizeof(piece[0]);
        size_t max = sizeof(piece) / sizeof(piece[0]);
        size_t n_piece = left < max ? (size_t)left : max;

        rc = read_all(e, symtab.at + done, piece, n_piece * sizeof(piece[0]));
        if (rc != 0)
            break;
        for (size_t k = 0; k < n_piece; k++) {
            for (size_t i = 0; i < n; i++)
                match(e, &piece[k], &symbols[i], &places[i]);
        }
        done += n_piece * sizeof(piece[0]);
    }
    return rc;
}
