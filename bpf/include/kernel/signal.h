/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Signals, and seccomp filters, which can send one. A `struct kernel_siginfo *` may be one of two small numbers instead
 * of a pointer. */
#pragma once

#include <linux/types.h>

#define SIGKILL 9
#define SIGALRM 14
#define SIGTERM 15
#define SIGCHLD 17
#define SIGURG 23
#define SIGVTALRM 26
#define SIGPROF 27
#define SIGSYS 31

/* Why a signal was sent: by kill(), by the kernel, by a timer (include/uapi/asm-generic/siginfo.h). */
#define SI_USER 0
#define SI_KERNEL 0x80
#define SI_QUEUE -1
#define SI_TIMER -2
#define SI_TKILL -6
/* For SIGCHLD: the child has ended. */
#define CLD_EXITED 1
#define CLD_KILLED 2
/* For SIGSYS: a seccomp filter sent it. */
#define SYS_SECCOMP 1

/* Used instead of a siginfo, for kill() and for the kernel itself (include/linux/sched/signal.h). */
#define SEND_SIG_NOINFO 0UL
#define SEND_SIG_PRIV 1UL

#define SECCOMP_MODE_FILTER 2
/* The mode of a thread that is being killed by its filter, since 495ac3069a66 (5.17). */
#define SECCOMP_MODE_DEAD 3
#define SECCOMP_RET_LOG 0x7ffc0000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernel_siginfo {
	int si_signo;
	int si_code;
	union {
		struct {
			void *_call_addr;
			int _syscall;
		} _sigsys;
	} _sifields;
};

struct k_sigaction {
	struct {
		void *sa_handler;
	} sa;
};

struct sighand_struct {
	struct k_sigaction action[64];
};

#pragma clang attribute pop
