/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The operation of an event, as text: gadget_operation. A word has at most 15 characters. */
#pragma once

#include <gadget/record.h>

/* GADGET_SET_OPERATION(file->operation, "unlink") */
#define GADGET_SET_OPERATION(FIELD, WORD)                                                                              \
	({                                                                                                             \
		const gadget_operation word = WORD;                                                                    \
		_Static_assert(sizeof(WORD) <= sizeof(gadget_operation), "the word is too long");                      \
		__builtin_memcpy(FIELD, word, sizeof(word));                                                           \
	})

/* Empty: any. */
const volatile char gadget_filter_operation[16] __attribute__((aligned(8))) = "";

static __always_inline bool gadget_wanted_operation(const gadget_operation operation)
{
	const volatile __u64 *wanted = (const volatile __u64 *)gadget_filter_operation;
	const __u64 *words = (const __u64 *)operation;

	return !gadget_filter_operation[0] || (words[0] == wanted[0] && words[1] == wanted[1]);
}
