/*
 * System calls of 32-bit programs, made by a 64-bit one: call(number, arguments) by int $0x80. What arguments point to
 * has to lie below 4 GiB: place() copies it there.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PLACES (1 << 16)

static char *low;
static unsigned used;

/* The address of a copy of these bytes, aligned to 16; what was placed long ago is overwritten. */
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

/* In assembler, since the sixth argument's register is the compiler's. */
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
