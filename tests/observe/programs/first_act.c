// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Opens /forbidden as its very first action, before any library code runs, and exits with the errno, or with 0. The
 * name is on the stack: programs at tracepoints cannot read a page of the executable that was never accessed.
 */
#include <sys/syscall.h>

static long call(long number, long first, long second, long third)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(first), "S"(second), "d"(third)
			 : "rcx", "r11", "memory");
	return result;
}

void _start(void)
{
	volatile char path[] = {'/', 'f', 'o', 'r', 'b', 'i', 'd', 'd', 'e', 'n', 0};

	long opened = call(SYS_openat, -100, (long)path, 0);

	call(SYS_exit_group, opened < 0 ? -opened : 0, 0, 0);
}
