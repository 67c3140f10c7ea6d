// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Opens /forbidden as its very first act, before any library has done anything, and ends with the error, or with 0. The
 * name is on the stack: a page of the program that was never touched is one that no tracepoint can read.
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
