// SPDX-License-Identifier: Apache-2.0
// Keeps a loop on one CPU. To be included where _GNU_SOURCE is defined.
#ifndef PIN_H
#define PIN_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

// `cpu` is its number, as text. Returns 0; else an error was printed.
static int pin(const char *cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(atoi(cpu), &cpus);
	if (!sched_setaffinity(0, sizeof(cpus), &cpus))
		return 0;
	perror("sched_setaffinity");
	return 1;
}

#endif
