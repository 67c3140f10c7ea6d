/*
 * A program with a function and a static probe. The first argument is the number of calls of each; the probe is called
 * only if its semaphore says that a tracer is attached. If the second argument is `wait`, it first reads one byte of
 * standard input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As <sys/sdt.h> would define it, which few machines have. */
__attribute__((section(".probes"))) volatile unsigned short probed_semaphore;

#define PROBE(NAME, NUMBER_AS, NUMBER, TEXT)                                                                           \
	__asm__ volatile("990: nop\n"                                                                                  \
			 ".pushsection .note.stapsdt,\"\",\"note\"\n"                                                  \
			 ".balign 4\n"                                                                                 \
			 ".4byte 992f-991f, 994f-993f, 3\n"                                                            \
			 "991: .asciz \"stapsdt\"\n"                                                                   \
			 "992: .balign 4\n"                                                                            \
			 "993: .8byte 990b, _.stapsdt.base, probed_semaphore\n"                                        \
			 ".asciz \"tests\"\n"                                                                          \
			 ".asciz \"" NAME "\"\n"                                                                       \
			 ".asciz \"-4@%0 8@%1\"\n"                                                                     \
			 "994: .balign 4\n"                                                                            \
			 ".popsection\n"                                                                               \
			 ".ifndef _.stapsdt.base\n"                                                                    \
			 ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"                       \
			 ".weak _.stapsdt.base\n"                                                                      \
			 "_.stapsdt.base: .space 1\n"                                                                  \
			 ".popsection\n"                                                                               \
			 ".endif\n" ::NUMBER_AS(NUMBER),                                                               \
			 "r"(TEXT))

__attribute__((noinline)) int act(int number, const char *text, char *answer)
{
	memset(answer, 'a' + number % 26, 8);
	return -number - (int)strlen(text);
}

/* A policy may make this function run instead. The program itself never calls it. */
int other_function(void)
{
	return 15;
}

int main(int count, char **arguments)
{
	int times = atoi(arguments[1]);
	/* In memory that was used before, since a BPF program cannot read memory that is not paged in. */
	volatile char text[] = "a text", other[] = "another text";
	char answer[16] = {};
	volatile int allowed;
	int sum = 0, denied = 0;

	if (count > 2 && read(0, answer, 1) != 1)
		return 1;
	for (int i = 0; i < times; i++) {
		sum += act(i, (const char *)text, answer);
		if (probed_semaphore)
			PROBE("act", "r", -i, other);
		/* The number is in memory, and is read again after the probe. */
		allowed = 1;
		if (probed_semaphore)
			PROBE("asked", "m", allowed, other);
		denied += !allowed;
	}
	printf("%d\n", denied);
	return sum > 0;
}
