/*
 * 32-bit system calls of a 64-bit program: call(number, arguments) uses int $0x80. The data that arguments point to
 * must be below 4 GiB: place() copies it there.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PLACES (1 << 16)

static char *low;
static unsigned used;

/* Copies these bytes, and returns the address, aligned to 16. The oldest copies are overwritten. */
uint32_t place(const void *from, unsigned bytes)
{
	char *to;

	if (!low) {
		low = mmap(NULL, PLACES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
		if (low == MAP_FAILED)
			__builtin_trap();
	}
	if (used + bytes > PLACES)
		used = 0;
	to = low + used;
	used = (used + bytes + 15) & ~15U;
	if (from)
		memcpy(to, from, bytes);
	else
		memset(to, 0, bytes);
	return (uint32_t)(uintptr_t)to;
}

int call(int number, const uint32_t arguments[6]);

/* In assembly, since the compiler reserves the register of the sixth argument. */
__asm__(".globl call\n"
	".type call, @function\n"
	"call:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	mov %edi, %eax\n"
	"	mov %rsi, %r8\n"
	"	mov (%r8), %ebx\n"
	"	mov 4(%r8), %ecx\n"
	"	mov 8(%r8), %edx\n"
	"	mov 12(%r8), %esi\n"
	"	mov 16(%r8), %edi\n"
	"	mov 20(%r8), %ebp\n"
	"	int $0x80\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n");
