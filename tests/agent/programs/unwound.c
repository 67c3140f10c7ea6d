/*
 * Burns CPU, sleeps or allocates in known chains of calls, compiled without frame pointers. The argument says how:
 *
 *   calls    main → first → second → third → spin, with stack frames of several sizes
 *   deep     main → first, which calls itself 60 times, → spin
 *   sorts    main → sorts → qsort() → compares → spin, so libc is in the middle
 *   sleeps   as calls, but third → nap, which sleeps for 5 ms, 17 times
 *   allocates  as calls, but third → keep, which allocates 1009 bytes, 17 times
 *   signals  main → waits, which a signal interrupts at any instruction → handles, on a stack of its own, → spin
 *
 * Those that do something 17 times begin when they have read a byte, then write one, and end with the next.
 */
#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;
static volatile int one = 1;
static volatile int sleeps, allocates;
static void *volatile kept;

__attribute__((noipa)) void spin(int turns)
{
	for (int i = 0; i < turns; i++)
		sink += i ^ (i >> 3);
}

__attribute__((noipa)) int nap(void)
{
	struct timespec time = {.tv_nsec = 5000000};

	return nanosleep(&time, NULL) + one;
}

__attribute__((noipa)) int keep(void)
{
	kept = malloc(1009);
	return one;
}

__attribute__((noipa)) int third(int turns, char *text)
{
	char copy[100];

	memset(copy, turns, sizeof(copy));
	if (sleeps)
		sink += nap();
	else if (allocates)
		sink += keep();
	else
		spin(turns);
	return copy[turns % 100] + text[0];
}

/* A frame whose size is not known, so its end is found by rbp. */
__attribute__((noipa)) int second(int turns)
{
	char *memory = alloca(turns % 100 + 16);

	memset(memory, one, 16);
	return third(turns, memory) + memory[3];
}

/* A frame that is aligned, so its end is found by an expression. */
__attribute__((noipa)) int first(int turns)
{
	char text[64] __attribute__((aligned(64)));
	int found;

	memset(text, turns, sizeof(text));
	found = second(turns + text[0] % 2);
	return found + text[turns % 64];
}

__attribute__((noipa)) int deep(int left)
{
	int found;

	if (!left) {
		spin(100000);
		return one;
	}
	found = deep(left - one);
	return found + one;
}

__attribute__((noipa)) static int compares(const void *left, const void *right)
{
	spin(20000);
	return *(const int *)left - *(const int *)right;
}

__attribute__((noipa)) int sorts(void)
{
	int numbers[] = {3, 2, 5, 1, 9, 7};

	qsort(numbers, 6, sizeof(int), compares);
	return numbers[one];
}

__attribute__((noipa)) static void handles(int number)
{
	spin(100000);
	sink += number;
}

__attribute__((noipa)) int waits(void)
{
	static char memory[65536];
	stack_t stack = {.ss_sp = memory, .ss_size = sizeof(memory)};
	struct sigaction action = {.sa_handler = handles, .sa_flags = SA_ONSTACK};
	struct itimerval timer = {{0, 1000}, {0, 1000}};

	sigaltstack(&stack, NULL);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	while (one)
		sink += third(1, memory);
	return one;
}

int main(int count, char **arguments)
{
	const char *way = count > 1 ? arguments[1] : "calls";
	char byte;

	sleeps = !strcmp(way, "sleeps");
	allocates = !strcmp(way, "allocates");
	if (sleeps || allocates) {
		if (read(0, &byte, 1) < 0)
			return 1;
		for (int i = 0; i < 17; i++)
			sink += first(1000);
		if (write(1, "", 1) < 0 || read(0, &byte, 1) < 0)
			return 1;
		return 0;
	}

	if (!strcmp(way, "signals"))
		return waits() + one;
	for (;;) {
		if (!strcmp(way, "deep"))
			sink += deep(60);
		else if (!strcmp(way, "sorts"))
			sink += sorts();
		else
			sink += first(100000);
	}
}
