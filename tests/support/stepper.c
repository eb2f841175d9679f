/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a private mapping come from the memfd until the judge writes to them.
 * The one way in which it could still reach the shared memory is by descriptor:
 * holes that fallocate() punches. So the judge's calls of it are served here, by
 * fresh zero pages in its own copy.
 */
#include "tests/support/stepper.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define WHY_BYTES 4096u
#define EXIT_REFUSED 77

int __real_fallocate(int fd, int mode, off_t at, off_t n);

static const struct stepper *judging; /* set in a judge's process */

uint64_t stepper_random(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng >> 11;
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t n)
{
    if (judging == NULL)
        return __real_fallocate(fd, mode, at, n);
    for (unsigned i = 0; i < judging->n_maps; i++) {
        const struct stepper_map *m = &judging->maps[i];

        if (m->fd != fd || (mode & FALLOC_FL_PUNCH_HOLE) == 0)
            continue;
        if (mmap((char *)m->addr + at, (size_t)n, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                 0) == MAP_FAILED)
            return -1;
    }
    return 0;
}

/* ---- The judge --------------------------------------------------------- */

static bool copy_maps(const struct stepper *s)
{
    for (unsigned i = 0; i < s->n_maps; i++) {
        const struct stepper_map *m = &s->maps[i];

        if (mmap(m->addr, m->n_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, m->fd,
                 0) == MAP_FAILED)
            return false;
    }
    return true;
}

/* A fault there must end the process: cmocka's handler would go on with the
 * next test in it. */
static void die_of_faults(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    const struct sigaction usual = {.sa_handler = SIG_DFL};

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        (void)sigaction(faults[i], &usual, NULL);
}

static bool judge(const struct stepper *s, char *why)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        die_of_faults();
        judging = s;
        (void)snprintf(why, WHY_BYTES, "the judge could not copy or fork");
        if (!copy_maps(s))
            _exit(1);
        (void)snprintf(why, WHY_BYTES, "the judge died");
        _exit(s->judge(s->arg, why, WHY_BYTES) ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/* ---- The traced process ------------------------------------------------ */

static pid_t start(const struct stepper *s)
{
    pid_t pid = s->fork != NULL ? s->fork(s->arg) : fork();

    if (pid != 0)
        return pid;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(EXIT_REFUSED);
    die_of_faults();
    (void)raise(SIGSTOP);
    s->work(s->arg);
    _exit(0);
}

/* Where it stands, as addr2line wants it. */
static uintptr_t place(pid_t pid)
{
    extern const char __executable_start;
    struct user_regs_struct regs;
    struct iovec io = {&regs, sizeof(regs)};

    if (ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &io) != 0)
        return 0;
#ifdef __x86_64__
    return regs.rip - (uintptr_t)&__executable_start;
#else
    return regs.pc - (uintptr_t)&__executable_start;
#endif
}

static void kill_it(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

/* One instruction. Returns true while the process lives; *status otherwise. */
static bool step(pid_t pid, int *status)
{
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
        return false;
    while (waitpid(pid, status, 0) != pid)
        ;
    return WIFSTOPPED(*status) && WSTOPSIG(*status) == SIGTRAP;
}

static int ended(pid_t pid, int status, uint64_t i)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    fprintf(stderr,
            "instruction %" PRIu64 " at +0x%lx: the work ended with "
            "wait status 0x%x\n",
            i, (unsigned long)place(pid), (unsigned)status);
    if (WIFSTOPPED(status))
        kill_it(pid);
    return STEPPER_WRONG;
}

static uint64_t next_judged(struct stepper *s, uint64_t i)
{
    if (s->every <= 1)
        return i + s->every;
    return i + 1 + stepper_random(&s->rng) % (2 * s->every - 1);
}

static int run(struct stepper *s, pid_t pid, char *why,
               struct stepper_result *out)
{
    uint64_t due = next_judged(s, 0);
    int status = 0;

    while (step(pid, &status)) {
        uint64_t i = ++out->n_instructions;

        if (s->between != NULL)
            s->between(s->arg);
        if (i == due) {
            if (!judge(s, why)) {
                fprintf(stderr,
                        "killed behind instruction %" PRIu64
                        ", at +0x%lx: %s\n",
                        i, (unsigned long)place(pid), why);
                kill_it(pid);
                return STEPPER_WRONG;
            }
            out->n_judged++;
            due = next_judged(s, i);
        }
        if (i == s->kill_at) {
            kill_it(pid);
            out->was_killed = true;
            return 0;
        }
    }
    if (s->kill_at != 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return STEPPER_ENDED;
    return ended(pid, status, out->n_instructions);
}

int stepper_run(struct stepper *s, struct stepper_result *out)
{
    char *why = mmap(NULL, WHY_BYTES, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid;
    int status;
    int rc;

    *out = (struct stepper_result){0};
    if (why == MAP_FAILED)
        return STEPPER_WRONG;
    pid = start(s);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        rc = STEPPER_WRONG;
    else if (WIFEXITED(status))
        rc = WEXITSTATUS(status) == EXIT_REFUSED ? STEPPER_REFUSED
                                                 : STEPPER_WRONG;
    else
        rc = run(s, pid, why, out);
    munmap(why, WHY_BYTES);
    return rc;
}
