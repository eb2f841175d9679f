/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes on one CPU that wake each other: what a switch and a wake-up cost,
 * with and without programs on them. In the real-time class where that is allowed, so
 * that other load has no part in it.
 *
 * Thread:  one.
 * Memory:  none.
 * Promise: the other process ends with pingpong_stop(), or with this one.
 */
#ifndef RETRIEVER_TESTS_PINGPONG_H
#define RETRIEVER_TESTS_PINGPONG_H

#include <sys/types.h>

struct pingpong {
    pid_t pid;
    int to, from;
    int cpu;
};

/** Returns 0 or -errno. */
int pingpong_start(struct pingpong *p);
void pingpong_stop(struct pingpong *p);

/** @n round trips, of two switches and two wake-ups each. */
void pingpong_play(const struct pingpong *p, unsigned int n);

/** ns for one switch and one wake-up, in the best of some short moments: a machine that
 *  is shared is itself only now and then. The first moment is not counted. */
double pingpong_ns(const struct pingpong *p);

#endif
