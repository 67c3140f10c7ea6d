/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Signals: their codes and results. `info` may be one of two small numbers instead of a pointer. */
#pragma once

#include <gadget/record.h>
#include <kernel/signal.h>

#define GADGET_NO_SIGNAL_TARGET (-2147483647 - 1)

/* The first five are the kernel's (include/trace/events/signal.h), plus 1. */
enum gadget_signal_result {
	GADGET_SIGNAL_DELIVERED = 1,
	GADGET_SIGNAL_IGNORED,
	GADGET_SIGNAL_PENDING,
	GADGET_SIGNAL_QUEUE_FULL,
	GADGET_SIGNAL_LOST_INFO,
	/* The call failed. */
	GADGET_SIGNAL_FAILED,
};

static __always_inline __s32 gadget_code_of_signal(const struct kernel_siginfo *info)
{
	if ((__u64)info == SEND_SIG_NOINFO)
		return SI_USER;
	if ((__u64)info == SEND_SIG_PRIV)
		return SI_KERNEL;
	return BPF_CORE_READ(info, si_code);
}
