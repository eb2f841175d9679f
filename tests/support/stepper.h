/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that is stopped after each of its instructions, and what would have
 * become of its shared memory if it had been killed there.
 *
 * The traced process stands still while a further one, forked from the test, maps
 * the same memory again as private copies, at the same addresses: its absolute
 * pointers hold, and what it changes nobody else sees. That one is the successor
 * and judges what it could make of it. So each instant of one run is tried, where
 * real kills find one instant per run.
 *
 * Thread:  the test's only one.
 * Memory:  one page for the judge's words.
 * Promise: the traced process is gone when stepper_run() returns, its shared
 *          memory as it left it.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_STEPPER_H
#define RETRIEVER_TESTS_SUPPORT_STEPPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Shared memory that the judge gets a copy of. */
struct stepper_map {
    void *addr;
    size_t n_bytes;
    int fd; /* of the memfd that is mapped there */
};

#define STEPPER_MAX_MAPS 4

struct stepper {
    struct stepper_map maps[STEPPER_MAX_MAPS];
    unsigned n_maps;
    void (*work)(void *arg); /* in the traced process, to its end */
    /** In a process of its own, on the copies. False: *why says what is wrong. */
    bool (*judge)(void *arg, char *why, size_t room);
    void (*between)(void *arg); /* in the test, after an instruction; NULL */
    pid_t (*fork)(void *arg);   /* NULL = fork() */
    void *arg;

    uint64_t kill_at; /* instruction behind which it is killed; 0 = none */
    uint64_t every;   /* judge one instruction in so many, at random; 1 = all,
                         0 = none */
    uint64_t rng;     /* not 0 */
};

struct stepper_result {
    uint64_t n_instructions, n_judged;
    bool was_killed;
};

enum stepper_rc {
    STEPPER_REFUSED = 1, /* no ptrace here */
    STEPPER_WRONG,       /* the judge, or the work itself, failed: printed */
    STEPPER_ENDED        /* kill_at lay behind the end: nothing was killed */
};

/** Run the work to its end or to kill_at. Returns 0 or one of the enum. */
int stepper_run(struct stepper *s, struct stepper_result *out);

/** The next pseudo-random number of @rng. */
uint64_t stepper_random(uint64_t *rng);

/** In a judge: fallocate() works on the copies instead of the shared memory. All
 *  programs with a stepper link with --wrap=fallocate. */
int __wrap_fallocate(int fd, int mode, off_t at, off_t n);

#endif
