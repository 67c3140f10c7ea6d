/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The system call in which a thread other than the current one sleeps, and what calls wait for. The trap: only the
 * registers of a thread that sleeps are its own call's; those of a running one may be of any time.
 */
#pragma once

#include <gadget/syscalls/compat_call.h>

#if defined(__TARGET_ARCH_x86)
#define GADGET_BY_ARCHITECTURE(X86, ARM64) X86
#else
#define GADGET_BY_ARCHITECTURE(X86, ARM64) ARM64
#endif

/* Numbers of calls; negative: the architecture has no such call. */
enum gadget_blocking_call {
	CALL_READ = GADGET_BY_ARCHITECTURE(0, 63),
	CALL_WRITE = GADGET_BY_ARCHITECTURE(1, 64),
	CALL_OPEN = GADGET_BY_ARCHITECTURE(2, -1),
	CALL_POLL = GADGET_BY_ARCHITECTURE(7, -2),
	CALL_READV = GADGET_BY_ARCHITECTURE(19, 65),
	CALL_WRITEV = GADGET_BY_ARCHITECTURE(20, 66),
	CALL_SELECT = GADGET_BY_ARCHITECTURE(23, -3),
	CALL_PAUSE = GADGET_BY_ARCHITECTURE(34, -4),
	CALL_NANOSLEEP = GADGET_BY_ARCHITECTURE(35, 101),
	CALL_CONNECT = GADGET_BY_ARCHITECTURE(42, 203),
	CALL_ACCEPT = GADGET_BY_ARCHITECTURE(43, 202),
	CALL_SENDTO = GADGET_BY_ARCHITECTURE(44, 206),
	CALL_RECVFROM = GADGET_BY_ARCHITECTURE(45, 207),
	CALL_SENDMSG = GADGET_BY_ARCHITECTURE(46, 211),
	CALL_RECVMSG = GADGET_BY_ARCHITECTURE(47, 212),
	CALL_WAIT4 = GADGET_BY_ARCHITECTURE(61, 260),
	CALL_FCNTL = GADGET_BY_ARCHITECTURE(72, 25),
	CALL_FLOCK = GADGET_BY_ARCHITECTURE(73, 32),
	CALL_TRUNCATE = GADGET_BY_ARCHITECTURE(76, 45),
	CALL_CREAT = GADGET_BY_ARCHITECTURE(85, -5),
	CALL_RT_SIGTIMEDWAIT = GADGET_BY_ARCHITECTURE(128, 137),
	CALL_RT_SIGSUSPEND = GADGET_BY_ARCHITECTURE(130, 133),
	CALL_FUTEX = GADGET_BY_ARCHITECTURE(202, 98),
	CALL_CLOCK_NANOSLEEP = GADGET_BY_ARCHITECTURE(230, 115),
	CALL_EPOLL_WAIT = GADGET_BY_ARCHITECTURE(232, -6),
	CALL_WAITID = GADGET_BY_ARCHITECTURE(247, 95),
	CALL_OPENAT = GADGET_BY_ARCHITECTURE(257, 56),
	CALL_PSELECT6 = GADGET_BY_ARCHITECTURE(270, 72),
	CALL_PPOLL = GADGET_BY_ARCHITECTURE(271, 73),
	CALL_EPOLL_PWAIT = GADGET_BY_ARCHITECTURE(281, 22),
	CALL_ACCEPT4 = GADGET_BY_ARCHITECTURE(288, 242),
	CALL_RECVMMSG = GADGET_BY_ARCHITECTURE(299, 243),
	CALL_SENDMMSG = GADGET_BY_ARCHITECTURE(307, 269),
	CALL_OPENAT2 = 437,
	CALL_EPOLL_PWAIT2 = 441,
	CALL_FUTEX_WAIT = 455,
};

/* Describes the call in which `task`, which sleeps, is. The trap: `native` is GADGET_NO_CALL where the arguments are in
 * the memory of a 32-bit program (socketcall). */
static __always_inline void gadget_call_of_sleeper(struct gadget_compat_call *call, struct task_struct *task)
{
	struct pt_regs *registers =
		GADGET_HAS_TASK_PT_REGS ? (void *)bpf_task_pt_regs(task) : gadget_registers_on_stack(task);
	__s32 number = gadget_syscall_number(registers);
	__u32 entry;

	__builtin_memset(call, 0, sizeof(*call));
	call->number = number;
	call->native = GADGET_NO_CALL;
	/* A kernel thread, or an interrupt or a fault of the program. */
	if (number < 0 || !gadget_read(task, mm))
		call->number = -1;
	else if (gadget_is_compat_call(task, registers)) {
		entry = gadget_native_call(number);
		call->number = GADGET_COMPAT | (__u32)number;
		gadget_read_registers(call, registers);
		if (entry != GADGET_NO_CALL && !GADGET_HOW_OF(entry))
			call->native = entry & 1023;
	} else {
		gadget_read_own_registers(call, registers);
		call->native = gadget_is_x32(number) ? gadget_native_x32_call(number) : (__u32)number;
	}
}
