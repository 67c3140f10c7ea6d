// SPDX-License-Identifier: Apache-2.0
// exec_loop N [CPU]: forks and executes itself N times, one after the other, pinned to a CPU; prints nanoseconds per
// program. The program that is executed, `exec_loop done`, ends at once.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "pin.h"
#include "report.h"

extern char **environ;

int main(int argc, char **argv)
{
	char *arguments[] = {argv[0], "done", NULL};
	struct timespec begin;
	long count;

	if (argc > 1 && !strcmp(argv[1], "done"))
		return 0;
	count = argc > 1 ? atol(argv[1]) : 1000;
	if (argc > 2 && pin(argv[2]))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < count; i++) {
		pid_t pid;

		if (posix_spawn(&pid, argv[0], NULL, NULL, arguments, environ))
			return fprintf(stderr, "posix_spawn failed\n"), 1;
		if (waitpid(pid, NULL, 0) < 0)
			return perror("waitpid"), 1;
	}
	print_ns_per(count, begin);
	return 0;
}
