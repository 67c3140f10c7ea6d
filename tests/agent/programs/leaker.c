/*
 * After it has read a byte: leaks 13 blocks of 1009 bytes in leaks → keep, and 3 blocks of 4001 bytes with calloc;
 * grows one block to 9001 bytes with realloc; allocates and frees 17 blocks of 2003 bytes in passes; allocates one
 * block of 4096 bytes with posix_memalign, and 70001 pages with mmap. Then it writes a byte, and ends after it has read
 * the next one.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *volatile kept;

__attribute__((noinline)) void keep(void)
{
	kept = malloc(1009);
}

__attribute__((noinline)) void leaks(void)
{
	for (int i = 0; i < 13; i++)
		keep();
}

__attribute__((noinline)) void clears(void)
{
	for (int i = 0; i < 3; i++)
		kept = calloc(1, 4001);
}

__attribute__((noinline)) void passes(void)
{
	for (int i = 0; i < 17; i++) {
		kept = malloc(2003);
		free(kept);
	}
}

__attribute__((noinline)) void grows(void)
{
	kept = malloc(11);
	kept = realloc(kept, 101);
	/* So large that the block moves: then realloc calls other functions internally. */
	kept = realloc(kept, 2000003);
	kept = realloc(kept, 9001);
}

__attribute__((noinline)) void aligns(void)
{
	void *made;

	if (posix_memalign(&made, 64, 4096) == 0)
		kept = made;
}

__attribute__((noinline)) void maps(void)
{
	kept = mmap(NULL, 70001, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void)
{
	char byte;

	if (read(0, &byte, 1) < 0)
		return 1;
	leaks();
	clears();
	passes();
	grows();
	aligns();
	maps();
	if (write(1, "", 1) < 0 || read(0, &byte, 1) < 0)
		return 1;
	return 0;
}
