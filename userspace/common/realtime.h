/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Real-time priority for the threads that a buyer waits for, and what takes it from one that does not rest.
 *
 * In a flood the kernel's receive work has something to do at any moment, and an order is handed from thread to thread some twelve times until it is
 * durable. With a nice value each hand-over waits for the scheduler's idea of fairness; with SCHED_RR it does not wait. Priority 1 is above all that
 * has none and below the kernel's interrupt threads. The right to it comes from RLIMIT_RTPRIO (the units: LimitRTPRIO=1); without it everything
 * stays as it was.
 *
 * A thread in an endless loop would keep its CPU from everybody else. So the kernel tells us of one that used REALTIME_UNRESTED_US of CPU
 * without having slept once (RLIMIT_RTTIME), and all of them are ordinary threads until a second later.
 */
#ifndef SLUICE_COMMON_REALTIME_H
#define SLUICE_COMMON_REALTIME_H

#include <stdint.h>

#define REALTIME_PRIORITY 1
#define REALTIME_UNRESTED_US 50000 /* us; the kernel counts in ticks of up to 10 ms */
#define REALTIME_PAUSE_NS 1000000000ULL

/* Once, before the first thread enters: takes SIGXCPU. Where that fails nobody gets real-time priority, and the log says why. */
void realtime_start(void);
/* The calling thread is one of those from now on; it must live as long as the process. For the first one the log says whether there is a
 * right to it. */
void realtime_enter(void);
/* From one thread, again and again: gives back what was taken when its time is over. `now`: CLOCK_MONOTONIC, ns. */
void realtime_look(uint64_t now);
/* How often it was taken since the start. */
uint64_t realtime_pauses(void);

#endif
