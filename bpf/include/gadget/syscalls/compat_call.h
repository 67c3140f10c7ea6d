/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Converts system calls of 32-bit programs, int 0x80 calls of 64-bit programs, and calls of x32 to equivalent 64-bit
 * calls: gadget_translate() computes the number and the arguments that a 64-bit program would have passed.
 *
 * The arguments of socketcall() and the oldest mmap() are in the program's memory, where another thread may change them
 * before they are read here. The same is true for everything that arguments point to.
 */
#pragma once

#include <gadget/syscall.h>
#include <gadget/syscalls/compat.h>
#include <kernel/compat_syscalls.h>

#if !defined(__TARGET_ARCH_x86)
#define GADGET_FIRST_X32_CALL 512
#endif
#define GADGET_AT_FDCWD ((__u64) - 100)
#define GADGET_AT_REMOVEDIR 0x200
/* O_CREAT | O_WRONLY | O_TRUNC. */
#define GADGET_CREAT_FLAGS 01101

/* The calls that socketcall() stands for, in its order, with i386's numbers for the direct calls. accept() has no
 * number there. */
#if defined(__TARGET_ARCH_x86)
static const __u16 gadget_socket_calls[32][2] GADGET_TABLE = {
	{0, 0},	   {41, 359}, {49, 361}, {42, 362}, {50, 363},	{43, 364},  {51, 367},
	{52, 368}, {53, 360}, {44, 369}, {45, 371}, {44, 369},	{45, 371},  {48, 373},
	{54, 366}, {55, 365}, {46, 370}, {47, 372}, {288, 364}, {299, 337}, {307, 345},
};
#define GADGET_SOCKET_CALLS 21
/* send and recv of this list, which have no address, and accept, which has no flags. */
#define GADGET_IS_SEND(CALL) ((CALL) == 9 || (CALL) == 10)
#define GADGET_IS_ACCEPT(CALL) ((CALL) == 5)
#endif

static __always_inline bool gadget_is_x32(__s32 number)
{
#if defined(__TARGET_ARCH_x86)
	return number > 0 && (__u32)number & GADGET_X32;
#else
	return false;
#endif
}

/* For the number of a 32-bit call: the equivalent 64-bit call, and in the upper bits how the arguments differ.
 * GADGET_NO_CALL: there is none. */
static __always_inline __u32 gadget_native_call(__u32 number)
{
	__u32 entry;

	if (number >= GADGET_FIRST_COMMON_CALL)
		return number < GADGET_SOCKETCALL ? number : GADGET_NO_CALL;
	asm volatile("" : "+r"(number));
	entry = number < GADGET_FIRST_COMMON_CALL ? gadget_compat_calls[number] : 0;
	return entry ? entry - 1 : GADGET_NO_CALL;
}

/* The same for x32. */
static __always_inline __u32 gadget_native_x32_call(__u32 number)
{
#if defined(__TARGET_ARCH_x86)
	__u32 own = (number & ~GADGET_X32) - GADGET_FIRST_X32_CALL;

	asm volatile("" : "+r"(own));
	if (own < GADGET_X32_CALLS)
		return gadget_x32_calls[own] - 1;
#endif
	number &= ~GADGET_X32;
	return number < GADGET_SOCKETCALL ? number : GADGET_NO_CALL;
}

static __always_inline void gadget_read_own_registers(struct gadget_compat_call *call, struct pt_regs *registers)
{
	call->arguments[0] = GADGET_REGISTER(registers, GADGET_ARGUMENT_0);
	call->arguments[1] = GADGET_REGISTER(registers, GADGET_ARGUMENT_1);
	call->arguments[2] = GADGET_REGISTER(registers, GADGET_ARGUMENT_2);
	call->arguments[3] = GADGET_REGISTER(registers, GADGET_ARGUMENT_3);
	call->arguments[4] = GADGET_REGISTER(registers, GADGET_ARGUMENT_4);
	call->arguments[5] = GADGET_REGISTER(registers, GADGET_ARGUMENT_5);
}

static __always_inline void gadget_read_registers(struct gadget_compat_call *call, struct pt_regs *registers)
{
	call->arguments[0] = (__u32)GADGET_REGISTER(registers, GADGET_COMPAT_ARGUMENT_0);
	call->arguments[1] = (__u32)GADGET_REGISTER(registers, GADGET_COMPAT_ARGUMENT_1);
	call->arguments[2] = (__u32)GADGET_REGISTER(registers, GADGET_COMPAT_ARGUMENT_2);
	call->arguments[3] = (__u32)GADGET_REGISTER(registers, GADGET_COMPAT_ARGUMENT_3);
	call->arguments[4] = (__u32)GADGET_REGISTER(registers, GADGET_COMPAT_ARGUMENT_4);
	call->arguments[5] = (__u32)GADGET_REGISTER(registers, GADGET_COMPAT_ARGUMENT_5);
}

/* Arguments in the program's memory, of 32 bits each. */
static __always_inline void gadget_read_arguments(struct gadget_compat_call *call, __u64 from)
{
	__u32 arguments[6] = {};

	if (bpf_probe_read_user(arguments, sizeof(arguments), (const void *)from)) {
		/* The memory may end after the last argument. */
		for (int i = 0; i < 6; i++)
			bpf_probe_read_user(&arguments[i], sizeof(arguments[i]), (const void *)(from + 4 * i));
	}
	for (int i = 0; i < 6; i++)
		call->arguments[i] = arguments[i];
}

static __always_inline __u64 gadget_id(__u64 of_16_bits)
{
	return (__u16)of_16_bits == 0xffff ? ~0U : (__u16)of_16_bits;
}

#if defined(__TARGET_ARCH_x86)
static __always_inline void gadget_read_socketcall(struct gadget_compat_call *call)
{
	__u32 which = call->arguments[0];

	asm volatile("" : "+r"(which));
	call->native = GADGET_NO_CALL;
	if (!which || which >= GADGET_SOCKET_CALLS)
		return;
	gadget_read_arguments(call, call->arguments[1]);
	if (GADGET_IS_SEND(which))
		call->arguments[4] = call->arguments[5] = 0;
	if (GADGET_IS_ACCEPT(which))
		call->arguments[3] = 0;
	/* The verifier forgets the result of the comparison if the compiler has spilled the number to the stack in
	 * between. */
	asm volatile("%0 &= 31" : "+r"(which));
	call->native = gadget_socket_calls[which][0];
	call->number = GADGET_COMPAT | gadget_socket_calls[which][1];
}
#else
static __always_inline void gadget_read_socketcall(struct gadget_compat_call *call)
{
}

/* Inserts a directory as the argument `index`, before the one that is there. */
static __always_inline void gadget_insert_directory(struct gadget_compat_call *call, int index)
{
	for (int i = 5; i > index; i--)
		call->arguments[i] = call->arguments[i - 1];
	call->arguments[index] = GADGET_AT_FDCWD;
}
#endif

/* A 64-bit number in two registers, of which the first has an even number on arm32. */
static __always_inline __u64 gadget_two_registers(const struct gadget_compat_call *call, int index)
{
#if defined(__TARGET_ARCH_arm64)
	index = (index + 1) & ~1;
#endif
	return call->arguments[index] | call->arguments[index + 1] << 32;
}

static __always_inline void gadget_rearrange(struct gadget_compat_call *call, __u32 how)
{
	__u64 *arguments = call->arguments;

	switch (how) {
	case SOCKETCALL:
		gadget_read_socketcall(call);
		break;
	case IDS:
		arguments[0] = gadget_id(arguments[0]);
		arguments[1] = gadget_id(arguments[1]);
		arguments[2] = gadget_id(arguments[2]);
		break;
	case OWNERS:
		arguments[1] = gadget_id(arguments[1]);
		arguments[2] = gadget_id(arguments[2]);
		break;
	case LENGTH:
		arguments[1] = gadget_two_registers(call, 1);
		break;
	case POSITION:
		arguments[3] = gadget_two_registers(call, 3);
		break;
	case VECTOR:
		arguments[3] |= arguments[4] << 32;
		break;
	case MMAP:
		gadget_read_arguments(call, arguments[0]);
		break;
	case UMOUNT:
		arguments[1] = 0;
		break;
	case MASK:
		arguments[2] = gadget_two_registers(call, 2);
		arguments[3] = arguments[4];
		arguments[4] = arguments[5];
		break;
	case RANGE:
		arguments[2] = gadget_two_registers(call, 2);
		arguments[3] = gadget_two_registers(call, 4);
		arguments[4] = arguments[5] = 0;
		break;
	case SEND:
		arguments[4] = arguments[5] = 0;
		break;
#if defined(__TARGET_ARCH_arm64)
	case AT:
		gadget_insert_directory(call, 0);
		/* unlink() has one argument, but unlinkat() has flags. */
		if (call->number == (GADGET_COMPAT | 10))
			arguments[2] = 0;
		break;
	case AT_BOTH:
		gadget_insert_directory(call, 1);
		gadget_insert_directory(call, 0);
		arguments[4] = 0;
		break;
	case AT_LAST:
		gadget_insert_directory(call, 1);
		break;
	case RMDIR:
		gadget_insert_directory(call, 0);
		arguments[2] = GADGET_AT_REMOVEDIR;
		break;
	case CREAT:
		gadget_insert_directory(call, 0);
		arguments[3] = arguments[2];
		arguments[2] = GADGET_CREAT_FLAGS;
		break;
#endif
	}
}

/* Whether the task's current call must be translated. */
static __always_inline bool gadget_is_other_call(struct task_struct *task, struct pt_regs *registers, __s32 number)
{
	return gadget_is_compat_call(task, registers) || gadget_is_x32(number);
}

/* Fills in `call`, for a call for which gadget_is_other_call() is true. */
static __always_inline void gadget_translate(struct gadget_compat_call *call, struct task_struct *task,
					     struct pt_regs *registers, __s32 number)
{
	__u32 entry;

	call->has_short_pointers = true;
	if (!gadget_is_compat_call(task, registers)) {
		/* x32: the arguments are as in 64-bit programs. Calls that both have use the same structs. */
		call->number = number;
		call->native = gadget_native_x32_call(number);
		call->has_short_pointers = ((__u32)number & ~GADGET_X32) >= GADGET_FIRST_X32_CALL;
		gadget_read_own_registers(call, registers);
		return;
	}
	entry = gadget_native_call(number);
	call->number = GADGET_COMPAT | (__u32)number;
	call->native = entry & 1023;
	gadget_read_registers(call, registers);
	gadget_rearrange(call, GADGET_HOW_OF(entry));
}

/* Describes the current task's call as a 64-bit call, whichever kind of call it is. */
static __always_inline void gadget_describe_call(struct gadget_compat_call *call, struct task_struct *task,
						 struct pt_regs *registers, __s32 number)
{
	__builtin_memset(call, 0, sizeof(*call));
	if (gadget_is_other_call(task, registers, number)) {
		gadget_translate(call, task, registers, number);
		return;
	}
	call->number = number;
	call->native = (__u32)number < GADGET_SOCKETCALL ? number : GADGET_NO_CALL;
	gadget_read_own_registers(call, registers);
}

/* For programs that are not hooked to a system call: the current task's call as a 64-bit call; GADGET_NO_CALL in kernel
 * threads and io_uring workers. */
static __always_inline void gadget_current_call(struct gadget_compat_call *call)
{
	struct task_struct *task = gadget_task();
	struct pt_regs *registers = gadget_registers(task);

	gadget_describe_call(call, task, registers, gadget_syscall_number(registers));
}

/* The 64-bit call that is equivalent to this number if it is a 32-bit call. The task is not examined: the program runs
 * at every call, and that would cost more than the rest. */
static __always_inline __u32 gadget_possible_call(__u32 number)
{
	return gadget_native_call(number) & 1023;
}
