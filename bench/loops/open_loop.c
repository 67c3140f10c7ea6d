// SPDX-License-Identifier: Apache-2.0
// open_loop N [CPU]: opens and closes a file N times at full speed, pinned to a CPU; prints nanoseconds and CPU
// nanoseconds per open+close.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pin.h"
#include "report.h"

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000000;
	struct timespec begin;

	if (argc > 2 && pin(argv[2]))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < count; i++) {
		int fd = open("/etc/hostname", O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return perror("open"), 1;
		close(fd);
	}
	print_ns_per(count, begin);
	return 0;
}
