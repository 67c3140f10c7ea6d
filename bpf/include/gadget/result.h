/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which results of calls are wanted: --failed and --errno, for every gadget that includes this. The trap: a gadget that
 * sends what did not fail without asking shows it although an error was asked for.
 */
#pragma once

#include <gadget/record.h>

const volatile bool filter_failed = false;
/* Positive. 0: any. */
const volatile __u32 filter_errno = 0;

/* `result` is what a call returned; an error is negative. */
static __always_inline bool gadget_wanted_result(long result)
{
	bool failed = result < 0 && result >= -4095;

	if (filter_errno)
		return failed && -result == filter_errno;
	return failed || !filter_failed;
}
