// SPDX-License-Identifier: Apache-2.0
// What a loop prints: nanoseconds per round that passed since `begin`, and that this process and its children were on a
// CPU.
#ifndef REPORT_H
#define REPORT_H

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

static double used_ns(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

static void print_ns_per(long rounds, struct timespec begin)
{
	struct timespec end;
	double passed;

	clock_gettime(CLOCK_MONOTONIC, &end);
	passed = (end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec);
	printf("%.1f %.1f\n", passed / rounds, (used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN)) / rounds);
}

#endif
