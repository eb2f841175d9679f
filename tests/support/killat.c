/* SPDX-License-Identifier: Apache-2.0 */
/*
 * killat PID SYMBOL N entry|return SECONDS
 *
 * Kill the process (SIGKILL) at the N-th time that one of its threads enters the
 * function, or returns from it: a debugger's breakpoint, so that the program
 * needs no hook for its tests. Prints "armed" once the process runs with the
 * breakpoint, and "killed" at the end.
 *
 * Exit status: 0 killed there; 3 the process ended first; 4 the time was over
 * (the process runs on as if nothing had been); 77 not possible here; 1 else.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILLED = 0, FAILED = 1, ENDED = 3, LATE = 4, IMPOSSIBLE = 77 };

#ifdef __x86_64__

#define MAX_THREADS 64

struct target {
    pid_t pid;
    pid_t threads[MAX_THREADS];
    unsigned n_threads;
    uintptr_t at;     /* where the breakpoint is; 0 = none */
    uintptr_t was_at; /* the one before: threads may stand there still */
    long word;        /* what was there */
};

static volatile sig_atomic_t late;

static void on_alarm(int sig)
{
    (void)sig;
    late = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "killat: %s: %s\n", what, strerror(errno));
    exit(FAILED);
}

/* ---- Where the function is ----------------------------------------------- */

static uintptr_t load_base(pid_t pid)
{
    unsigned long base = 0;
    char path[64];
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    f = fopen(path, "re");
    if (f == NULL || fscanf(f, "%lx-", &base) != 1)
        die(path);
    fclose(f);
    return base;
}

static uintptr_t value_of(const unsigned char *elf, const char *symbol)
{
    const Elf64_Ehdr *h = (const Elf64_Ehdr *)elf;
    const Elf64_Shdr *s = (const Elf64_Shdr *)(elf + h->e_shoff);

    for (unsigned i = 0; i < h->e_shnum; i++) {
        const Elf64_Sym *sym = (const Elf64_Sym *)(elf + s[i].sh_offset);
        const char *names = (const char *)elf + s[s[i].sh_link].sh_offset;

        if (s[i].sh_type != SHT_SYMTAB)
            continue;
        for (size_t k = 0; k < s[i].sh_size / sizeof(*sym); k++) {
            if (ELF64_ST_TYPE(sym[k].st_info) == STT_FUNC &&
                sym[k].st_value != 0 &&
                strcmp(names + sym[k].st_name, symbol) == 0)
                return sym[k].st_value;
        }
    }
    return 0;
}

static uintptr_t address_of(pid_t pid, const char *symbol)
{
    uintptr_t value;
    struct stat st;
    char path[64];
    void *elf;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        die(path);
    elf = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (elf == MAP_FAILED)
        die("mmap");
    value = value_of(elf, symbol);
    if (value == 0) {
        fprintf(stderr, "killat: no function %s\n", symbol);
        exit(FAILED);
    }
    munmap(elf, (size_t)st.st_size);
    return load_base(pid) + value;
}

/* ---- Breakpoints --------------------------------------------------------- */

static bool set_breakpoint(struct target *t, pid_t tid, uintptr_t at)
{
    errno = 0;
    t->word = ptrace(PTRACE_PEEKTEXT, tid, (void *)at, NULL);
    if (errno != 0)
        return false;
    t->at = at;
    return ptrace(PTRACE_POKETEXT, tid, (void *)at,
                  (void *)((t->word & ~0xffL) | 0xcc)) == 0;
}

static void clear_breakpoint(struct target *t, pid_t tid)
{
    if (t->at != 0)
        (void)ptrace(PTRACE_POKETEXT, tid, (void *)t->at, (void *)t->word);
    t->at = 0;
}

/* At the breakpoint: back to the instruction that it hides. */
static bool stands_at(const struct target *t, pid_t tid,
                      struct user_regs_struct *regs)
{
    if (ptrace(PTRACE_GETREGS, tid, NULL, regs) != 0)
        return false;
    if (t->at != 0 && regs->rip == t->at + 1)
        regs->rip = t->at;
    else if (t->was_at != 0 && regs->rip == t->was_at + 1)
        regs->rip = t->was_at;
    else
        return false;
    return ptrace(PTRACE_SETREGS, tid, NULL, regs) == 0 && regs->rip == t->at;
}

/* Over the instruction and on, with the breakpoint in its place again. */
static void go_over(struct target *t, pid_t tid)
{
    uintptr_t at = t->at;
    int status;

    clear_breakpoint(t, tid);
    if (ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) == 0 &&
        waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status))
        (void)set_breakpoint(t, tid, at);
    (void)ptrace(PTRACE_CONT, tid, NULL, NULL);
}

/* ---- All threads --------------------------------------------------------- */

static void add_thread(struct target *t, pid_t tid)
{
    for (unsigned i = 0; i < t->n_threads; i++) {
        if (t->threads[i] == tid)
            return;
    }
    if (t->n_threads < MAX_THREADS)
        t->threads[t->n_threads++] = tid;
}

/* A thread that comes meanwhile is a child of one that is traced already, or is
 * found by the next look. */
static void seize_all(struct target *t)
{
    unsigned n_before;
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)t->pid);
    do {
        struct dirent *e;
        DIR *d = opendir(path);

        n_before = t->n_threads;
        if (d == NULL)
            exit(ENDED);
        while ((e = readdir(d)) != NULL) {
            pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);

            if (tid <= 0)
                continue;
            if (ptrace(PTRACE_SEIZE, tid, NULL,
                       (void *)(long)PTRACE_O_TRACECLONE) == 0)
                add_thread(t, tid);
            else if (errno == EPERM && t->n_threads == 0)
                exit(IMPOSSIBLE);
        }
        closedir(d);
    } while (t->n_threads != n_before);
}

static bool stop_thread(pid_t tid)
{
    int status;

    return ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 &&
           waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status);
}

static void arm(struct target *t, uintptr_t at)
{
    bool armed = false;
    unsigned n_stopped = 0;

    /* All first: one that still ran could stand at it and be sent on from the
     * middle of an instruction. A look at all threads may miss one while another
     * ends: once those known are stopped, none ends any more. */
    do {
        for (; n_stopped < t->n_threads; n_stopped++)
            (void)stop_thread(t->threads[n_stopped]);
        seize_all(t);
    } while (n_stopped < t->n_threads);
    for (unsigned i = 0; i < t->n_threads && !armed; i++)
        armed = set_breakpoint(t, t->threads[i], at);
    if (!armed)
        exit(ENDED);
    puts("armed");
    (void)fflush(stdout);
    for (unsigned i = 0; i < t->n_threads; i++)
        (void)ptrace(PTRACE_CONT, t->threads[i], NULL, NULL);
}

/* Leave the process as it was. One that stopped at the breakpoint just now goes
 * back to its instruction. */
static void let_go(struct target *t)
{
    struct user_regs_struct regs;

    for (unsigned i = 0; i < t->n_threads; i++) {
        if (stop_thread(t->threads[i]))
            (void)stands_at(t, t->threads[i], &regs);
    }
    if (t->n_threads > 0)
        clear_breakpoint(t, t->threads[0]);
    for (unsigned i = 0; i < t->n_threads; i++)
        (void)ptrace(PTRACE_DETACH, t->threads[i], NULL, NULL);
}

/* ---- The hunt ------------------------------------------------------------ */

struct hunt {
    unsigned n_left;
    bool at_return;
    pid_t returning; /* the thread whose return is awaited; 0 = none */
};

/* A thread stands at the breakpoint. True: there. */
static bool is_there(struct target *t, struct hunt *h, pid_t tid,
                     const struct user_regs_struct *regs)
{
    long back;

    if (h->returning != 0)
        return tid == h->returning;
    if (h->n_left-- > 1)
        return false;
    if (!h->at_return)
        return true;
    errno = 0;
    back = ptrace(PTRACE_PEEKDATA, tid, (void *)regs->rsp, NULL);
    if (errno != 0)
        return true;
    t->was_at = t->at;
    clear_breakpoint(t, tid);
    (void)set_breakpoint(t, tid, (uintptr_t)back);
    h->returning = tid;
    return false;
}

static int hunt(struct target *t, struct hunt *h)
{
    for (;;) {
        struct user_regs_struct regs;
        int status;
        pid_t tid = waitpid(-1, &status, __WALL);

        if (late) {
            let_go(t);
            return LATE;
        }
        if (tid < 0)
            return ENDED;
        if (!WIFSTOPPED(status)) {
            if (tid == t->pid) {
                fprintf(stderr, "killat: the process ended, status 0x%x\n",
                        (unsigned)status);
                return ENDED;
            }
            continue;
        }
        add_thread(t, tid);
        if (WSTOPSIG(status) != SIGTRAP || status >> 16 != 0) {
            /* A clone, a stop of a new thread, or a signal of its own. */
            (void)ptrace(PTRACE_CONT, tid, NULL,
                         (void *)(long)(status >> 16 != 0 ? 0
                                                          : WSTOPSIG(status)));
            continue;
        }
        if (!stands_at(t, tid, &regs)) {
            (void)ptrace(PTRACE_CONT, tid, NULL, NULL);
            continue;
        }
        if (is_there(t, h, tid, &regs)) {
            (void)kill(t->pid, SIGKILL);
            while (waitpid(-1, &status, __WALL) > 0)
                ;
            puts("killed");
            return KILLED;
        }
        if (regs.rip == t->at)
            go_over(t, tid);
        else
            (void)ptrace(PTRACE_CONT, tid, NULL, NULL);
    }
}

int main(int argc, char **argv)
{
    const struct sigaction on_late = {.sa_handler = on_alarm};
    struct target t = {0};
    struct hunt h;
    uintptr_t at;

    if (argc != 6) {
        fputs("usage: killat PID SYMBOL N entry|return SECONDS\n", stderr);
        return FAILED;
    }
    t.pid = (pid_t)strtol(argv[1], NULL, 10);
    h = (struct hunt){.n_left = (unsigned)strtoul(argv[3], NULL, 10),
                      .at_return = strcmp(argv[4], "return") == 0};
    at = address_of(t.pid, argv[2]);
    (void)sigaction(SIGALRM, &on_late, NULL);
    seize_all(&t);
    arm(&t, at);
    (void)alarm((unsigned)strtoul(argv[5], NULL, 10));
    return hunt(&t, &h);
}

#else

int main(void)
{
    fputs("killat: breakpoints are known for x86-64 only\n", stderr);
    return IMPOSSIBLE;
}

#endif
