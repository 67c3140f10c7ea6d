/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The filters --failed and --errno, which every gadget that includes this file has. The trap: a gadget must apply them
 * to successful events too, or it shows these although only errors are wanted.
 */
#pragma once

#include <gadget/record.h>

const volatile bool filter_failed = false;
/* Positive. 0: any. */
const volatile __u32 filter_errno = 0;

/* `result` is the return value of a call; errors are negative. */
static __always_inline bool gadget_wanted_result(long result)
{
	bool failed = result < 0 && result >= -4095;

	if (filter_errno)
		return failed && -result == filter_errno;
	return failed || !filter_failed;
}
