// SPDX-License-Identifier: Apache-2.0
// spin_loop N [CPU]: does arithmetic N times, pinned to a CPU, 30 calls deep; prints nanoseconds per round.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pin.h"
#include "report.h"

#define DEPTH 30
#define STEPS 1000000

static volatile unsigned sink;

static __attribute__((noinline)) unsigned spin(int depth, unsigned seed)
{
	if (!depth) {
		for (int i = 0; i < STEPS; i++)
			seed = seed * 1664525 + 1013904223;
		return seed;
	}
	seed = spin(depth - 1, seed + depth);
	/* Keeps the compiler from making the call above a jump. */
	sink = seed;
	return seed + depth;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000;
	struct timespec begin;

	if (argc > 2 && pin(argv[2]))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < count; i++)
		sink = spin(DEPTH, i);
	print_ns_per(count, begin);
	return 0;
}
