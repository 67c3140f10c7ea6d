/*
 * Burns CPU in a chain of functions that a profile has to find: main, then 3 of 4 turns in heavy → spin, 1 in light →
 * spin, in no regular order, which a regular sampler might run in step with. With an argument it sleeps so many times
 * instead, in waits → nap, once it has read a byte.
 *
 * The trap: a function that calls nothing gets no frame of its own from the compiler, whatever it is told.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

/* Something to call, so that spin is no leaf. */
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
	/* Not through libc, which is built without frame pointers, so that nap would be missing. */
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
