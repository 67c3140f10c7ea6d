/*
 * Burns CPU in a chain of functions that a profile must find: from main, 3 of 4 turns in heavy → spin and 1 in light →
 * spin. The order is irregular, so that a periodic sampler cannot be in step with it. With an argument N, sleeps N
 * times instead, in waits → nap, after it has read a byte.
 *
 * The compiler gives a leaf function no stack frame, whatever the options.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

/* A function to call, so that spin is not a leaf function. */
__attribute__((noinline)) void end_of_spin(void)
{
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) void spin(void)
{
	for (unsigned long i = 0; i < 50000; i++)
		sink += i;
	end_of_spin();
}

__attribute__((noinline)) void heavy(void)
{
	spin();
	end_of_spin();
}

__attribute__((noinline)) void light(void)
{
	spin();
	end_of_spin();
}

__attribute__((noinline)) void nap(void)
{
	struct timespec time = {.tv_nsec = 20000000};
	/* A direct system call: libc is built without frame pointers, so nap would be missing from the stack. */
#ifdef __x86_64__
	long result = SYS_nanosleep;

	__asm__ volatile("syscall" : "+a"(result) : "D"(&time), "S"(0) : "rcx", "r11", "memory");
#else
	register long number __asm__("x8") = SYS_nanosleep;
	register struct timespec *wanted __asm__("x0") = &time;
	register struct timespec *left __asm__("x1") = NULL;

	__asm__ volatile("svc 0" : "+r"(wanted) : "r"(number), "r"(left) : "memory");
#endif
	end_of_spin();
}

__attribute__((noinline)) void waits(void)
{
	nap();
	end_of_spin();
}

__attribute__((noinline)) void burn(void)
{
	/* A linear congruential generator: its highest two bits are 0 one time in four. */
	for (unsigned int turn = 1;; turn = turn * 1664525u + 1013904223u) {
		if (turn >> 30)
			heavy();
		else
			light();
	}
}

int main(int count, char **arguments)
{
	char byte;

	if (count < 2)
		burn();
	if (read(0, &byte, 1) < 0)
		return 1;
	for (int i = atoi(arguments[1]); i; i--)
		waits();
	if (write(1, "", 1) < 0 || read(0, &byte, 1) < 0)
		return 1;
	return 0;
}
