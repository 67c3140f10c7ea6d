// SPDX-License-Identifier: Apache-2.0
// Prints the result of a loop, in nanoseconds per round: the elapsed time since `begin`, the CPU time of this process
// and its children, and the time of an undisturbed round: the median of the noted rounds or, without these, the CPU
// time.
#ifndef REPORT_H
#define REPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double *noted;
static long notes;

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

// Notes that a round took the time since `begin`; returns the current time. `rounds` is the total number of rounds.
static double note_round(double begin, long rounds)
{
	double now = now_ns();

	if (!noted)
		noted = calloc(rounds, sizeof(*noted));
	if (noted && notes < rounds)
		noted[notes++] = now - begin;
	return now;
}

static int by_size(const void *one, const void *other)
{
	double left = *(const double *)one, right = *(const double *)other;

	return (left > right) - (left < right);
}

static double used_ns(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

static void print_ns_per(long rounds, struct timespec begin)
{
	double passed = (now_ns() - begin.tv_sec * 1e9 - begin.tv_nsec) / rounds;
	double used = (used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN)) / rounds;

	if (notes)
		qsort(noted, notes, sizeof(*noted), by_size);
	printf("%.1f %.1f %.1f\n", passed, used, notes ? noted[notes / 2] : used);
}

#endif
