/* SPDX-License-Identifier: Apache-2.0 */
/* A file made in memory, so that each name can lie anywhere; and this machine's C
 * library, where the linker knows the truth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/elf_symbols.h"

#if defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_X86_64
#endif

#define MAX_STRINGS 40000u

struct made {
    Elf64_Ehdr head;
    Elf64_Phdr segments[2];
    Elf64_Shdr sections[3];
    Elf64_Sym symbols[4];
    char interpreter[16];
    char strings[MAX_STRINGS];
};

static long read_made(void *arg, uint64_t at, void *to, size_t n)
{
    if (at >= sizeof(struct made))
        return 0;
    if (n > sizeof(struct made) - at)
        n = sizeof(struct made) - at;
    memcpy(to, (const char *)arg + at, n);
    return (long)n;
}

/* "unsetenv" at @at in the strings, and setenv as its tail. */
static struct made *make(uint32_t at)
{
    static struct made m;

    memset(&m, 0, sizeof(m));
    memcpy(m.head.e_ident, ELFMAG, SELFMAG);
    m.head.e_ident[EI_CLASS] = ELFCLASS64;
    m.head.e_ident[EI_DATA] = ELFDATA2LSB;
    m.head.e_type = ET_DYN;
    m.head.e_machine = MACHINE;
    m.head.e_phoff = offsetof(struct made, segments);
    m.head.e_phnum = 2;
    m.head.e_phentsize = sizeof(Elf64_Phdr);
    m.head.e_shoff = offsetof(struct made, sections);
    m.head.e_shnum = 3;
    m.head.e_shentsize = sizeof(Elf64_Shdr);
    m.segments[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                                 .p_flags = PF_X,
                                 .p_vaddr = 0x10000,
                                 .p_offset = 0x2000,
                                 .p_filesz = 0x1000};
    m.segments[1] = (Elf64_Phdr){.p_type = PT_INTERP,
                                 .p_offset = offsetof(struct made, interpreter),
                                 .p_filesz = 10};
    memcpy(m.interpreter, "/lib/ld.so", 10);
    m.interpreter[9] = '\0';
    m.sections[1] = (Elf64_Shdr){.sh_type = SHT_DYNSYM,
                                 .sh_link = 2,
                                 .sh_offset = offsetof(struct made, symbols),
                                 .sh_size = sizeof(m.symbols)};
    m.sections[2] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
                                 .sh_offset = offsetof(struct made, strings),
                                 .sh_size = MAX_STRINGS};
    memset(m.strings, 'z', sizeof(m.strings));
    memcpy(m.strings + at, "unsetenv", 9);
    m.symbols[1] = (Elf64_Sym){.st_name = at,
                               .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                               .st_shndx = 1,
                               .st_value = 0x10010};
    m.symbols[2] = (Elf64_Sym){.st_name = at + 2,
                               .st_info = ELF64_ST_INFO(STB_WEAK, STT_FUNC),
                               .st_shndx = 1,
                               .st_value = 0x10020};
    return &m;
}

static struct elf_symbol symbols[2];

static int find(struct made *m)
{
    struct elf e;
    int rc = elf_init(&e, read_made, m);

    symbols[0] = (struct elf_symbol){.name = "setenv"};
    symbols[1] = (struct elf_symbol){.name = "unsetenv"};
    return rc == 0 ? elf_find(&e, SHT_DYNSYM, symbols, 2) : rc;
}

static void names_are_found_wherever_they_lie(void **state)
{
    (void)state;
    for (uint32_t at = 0;
         at<MAX_STRINGS - 9; at += at % 16384> 100 && at % 16384 < 16200 ? 61
                                                                         : 1) {
        assert_int_equal(find(make(at)), 0);
        assert_true(symbols[0].found && symbols[1].found);
        assert_int_equal(symbols[0].offset, 0x2020);
        assert_int_equal(symbols[1].offset, 0x2010);
    }
}

static void only_what_is_defined_counts(void **state)
{
    struct made *m = make(100);

    (void)state;
    m->symbols[1].st_shndx = SHN_UNDEF;
    m->symbols[2].st_value = 0x90000; /* in no segment */
    assert_int_equal(find(m), 0);
    assert_false(symbols[0].found || symbols[1].found);
    m = make(100);
    m->symbols[1].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT);
    m->symbols[2].st_info = ELF64_ST_INFO(STB_LOCAL, STT_FUNC);
    assert_int_equal(find(m), 0);
    assert_false(symbols[0].found || symbols[1].found);
}

static void contradictions_are_named(void **state)
{
    struct made *m = make(100);
    struct elf e;
    char path[16];

    (void)state;
    m->sections[1].sh_link = 3;
    assert_int_equal(find(m), ELF_DAMAGED);
    m = make(100);
    m->sections[2].sh_size = MAX_STRINGS + 1;
    assert_int_equal(find(m), ELF_DAMAGED);
    m = make(100);
    m->sections[1].sh_size = UINT64_MAX;
    assert_int_equal(find(m), ELF_DAMAGED);
    m = make(100);
    m->head.e_shoff = UINT64_MAX - 3;
    assert_int_equal(find(m), ELF_DAMAGED);
    m = make(100);
    m->head.e_phnum = ELF_MAX_SEGMENTS + 1;
    assert_int_equal(find(m), ELF_DAMAGED);
    m = make(100);
    m->head.e_machine = EM_386;
    assert_int_equal(find(m), ELF_FOREIGN);
    m = make(100);
    m->sections[1].sh_type = SHT_NOTE;
    assert_int_equal(find(m), ELF_ABSENT);
    m = make(100);
    assert_int_equal(elf_init(&e, read_made, m), 0);
    assert_int_equal(elf_interpreter(&e, path, sizeof(path)), 0);
    assert_string_equal(path, "/lib/ld.s");
    assert_int_equal(elf_interpreter(&e, path, 9), ELF_DAMAGED);
    m->interpreter[9] = 'o';
    assert_int_equal(elf_interpreter(&e, path, sizeof(path)), ELF_DAMAGED);
}

static long read_fd(void *arg, uint64_t at, void *to, size_t n)
{
    ssize_t got = pread(*(int *)arg, to, n, (off_t)at);

    return got >= 0 ? got : -errno;
}

static void the_linker_agrees(void **state)
{
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    struct elf_symbol s[] = {
        {.name = "setenv"},
        {.name = "clearenv"},
        {.name = "__environ", .kind = ELF_VARIABLE},
    };
    struct link_map *map;
    struct elf e;
    int fd;

    (void)state;
    assert_non_null(libc);
    assert_int_equal(dlinfo(libc, RTLD_DI_LINKMAP, &map), 0);
    fd = open(map->l_name, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(elf_init(&e, read_fd, &fd), 0);
    assert_int_equal(elf_find(&e, SHT_DYNSYM, s, 3), 0);
    assert_true(s[0].found && s[1].found && s[2].found);
    for (size_t i = 0; i < 3; i++)
        assert_true(map->l_addr + s[i].address ==
                    (uintptr_t)dlsym(libc, s[i].name));
    (void)close(fd);
    (void)dlclose(libc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_wherever_they_lie),
        cmocka_unit_test(only_what_is_defined_counts),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(the_linker_agrees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
