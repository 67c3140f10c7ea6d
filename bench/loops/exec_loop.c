// SPDX-License-Identifier: Apache-2.0
// exec_loop N [CPU]: forks and executes exec_loop_done from its own folder N times, one after the other, pinned to a
// CPU. Prints nanoseconds per program.
#define _GNU_SOURCE
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "pin.h"
#include "report.h"

extern char **environ;

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000;
	char program[PATH_MAX];
	char *arguments[] = {program, "done", NULL};
	struct timespec begin;
	double since;

	snprintf(program, sizeof(program), "%s_done", argv[0]);
	if (argc > 2 && pin(argv[2]))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	since = now_ns();
	for (long i = 0; i < count; i++) {
		pid_t pid;

		if (posix_spawn(&pid, program, NULL, NULL, arguments, environ))
			return fprintf(stderr, "posix_spawn failed\n"), 1;
		if (waitpid(pid, NULL, 0) < 0)
			return perror("waitpid"), 1;
		since = note_round(since, count);
	}
	print_ns_per(count, begin);
	return 0;
}
