/*
 * Burns CPU in known chains of calls, compiled without frame pointers. The argument says how:
 *
 *   calls    main → first → second → third → spin, with stack frames of several sizes
 *   deep     main → first, which calls itself 60 times, → spin
 *   sorts    main → sorts → qsort() → compares → spin, so libc is in the middle
 *   signals  main → waits, which a signal interrupts at any instruction → handles, on a stack of its own, → spin
 */
#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static volatile unsigned long sink;
static volatile int one = 1;

__attribute__((noipa)) void spin(int turns)
{
	for (int i = 0; i < turns; i++)
		sink += i ^ (i >> 3);
}

__attribute__((noipa)) int third(int turns, char *text)
{
	char copy[100];

	memset(copy, turns, sizeof(copy));
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
