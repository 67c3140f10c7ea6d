// SPDX-License-Identifier: Apache-2.0
// Pins a loop to one CPU. Define _GNU_SOURCE before including this file.
#ifndef PIN_H
#define PIN_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

// `cpu` is the CPU's number, as text. Returns 0, or prints an error.
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
