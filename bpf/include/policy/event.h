/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The event that is sent when selectors match: a head, the set of selectors that post it, and the values of all slots.
 *
 * The trap: one record stands for all policies whose selectors are in the set; the client makes one event for each
 * policy.
 */
#pragma once

#include <gadget/credentials.h>
#include <gadget/files/followed_file.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/stacks.h>
#include <policy/memory.h>

struct policy_event {
	struct gadget_record record;
	__u32 hook;
	/* The return value of the call; 0: the call proceeds. */
	__s32 verdict;
	/* The signal sent to the process; 0: none. */
	__u32 signal;
	/* The size of the set that follows the head. */
	__u16 words;
	/* The number of values that follow the set. */
	__u16 values;
	gadget_exec_id exec;
	gadget_exec_id parent;
	struct gadget_credentials credentials;
	struct gadget_namespaces namespaces;
	/* The followed file; 0: none. */
	gadget_file_id file_id;
	gadget_stack kernel_stack;
	gadget_stack user_stack;
};

/* `length` bytes follow: numbers, addresses and text, depending on the type. */
struct policy_value_head {
	__u8 slot;
	/* enum policy_lack. */
	__u8 lacks;
	__u16 length;
};

/* The position of the type in `lacks`. */
#define POLICY_TYPE_SHIFT 2
/* The first of the types that are sent for numbers: there is one for each size, signed and unsigned. */
#define POLICY_NUMBER_FORMS 40

/* A type as it is sent in records. */
static __always_inline __u32 policy_sent_type(const volatile struct policy_slot *slot)
{
	__u32 width = slot->size == 8 ? 3 : slot->size == 4 ? 2 : slot->size == 2 ? 1 : 0;

	if (slot->type != POLICY_NUMBER)
		return slot->type;
	return POLICY_NUMBER_FORMS + 2 * width + (slot->flags & POLICY_SIGNED ? 1 : 0);
}

/* How many numbers a value of this type has. */
static __always_inline __u32 policy_numbers_of(__u32 type)
{
	switch (type) {
	case POLICY_NUMBER:
	case POLICY_CAPABILITY_SET:
	case POLICY_FUNCTION:
	case POLICY_BUFFER:
	case POLICY_IOVEC:
	case POLICY_IOV_ITER:
		return 1;
	case POLICY_PID:
	case POLICY_MODULE:
	case POLICY_LOAD_INFO:
	case POLICY_BPF_ATTR:
		return 2;
	case POLICY_BPF_PROGRAM:
		return 2;
	case POLICY_PATH:
	case POLICY_DENTRY:
	case POLICY_PERF_EVENT:
		return 3;
	case POLICY_FILE:
	case POLICY_BINPRM:
	case POLICY_KIOCB:
	case POLICY_BINARY:
	case POLICY_PARENT_BINARY:
	case POLICY_USER_NAMESPACE:
	case POLICY_BPF_MAP:
		return 4;
	case POLICY_FD:
		return 5;
	case POLICY_SOCK:
	case POLICY_SOCKET:
	case POLICY_SOCKADDR:
	case POLICY_SKB:
		return 8;
	case POLICY_NAMESPACES:
		return 11;
	case POLICY_CRED:
	case POLICY_CAPABILITIES:
		return 12;
	default:
		return 0;
	}
}

static __always_inline bool policy_has_addresses(__u32 type)
{
	return type == POLICY_SOCK || type == POLICY_SOCKET || type == POLICY_SOCKADDR || type == POLICY_SKB;
}

/* Appends the value that was just read. If its text does not fit, it is omitted and the value is marked as cut. */
static __always_inline void policy_append(struct policy_memory *memory, __u32 slot, __u32 type, __u32 sent_type)
{
	struct policy_value_head *head;
	__u32 fixed = policy_numbers_of(type) * 8 + (policy_has_addresses(type) ? 32 : 0);
	__u64 start = memory->value.start & (2 * POLICY_TEXT_END - 1);
	__u64 text = POLICY_TEXT_END - start;
	__u64 length = memory->length;

	/* The end of the event's buffer is used for reading strings. */
	if (length > POLICY_EVENT_BYTES - POLICY_TEXT_END - 256)
		return;
	head = (void *)&memory->event[length];
	head->slot = slot;
	/* The type is sent too, since it may be known only on the node. */
	head->lacks = memory->value.lacks | sent_type << POLICY_TYPE_SHIFT;
	length += sizeof(*head);
	/* Unrolled, since the compiler would otherwise produce a loop that Linux 6.1 rejects. */
#pragma unroll
	for (__u32 i = 0; i < POLICY_NUMBERS; i++)
		if (i < policy_numbers_of(type))
			*(__u64 *)&memory->event[length + i * 8] = memory->value.numbers[i];
	length += policy_numbers_of(type) * 8;
	if (policy_has_addresses(type)) {
		__builtin_memcpy(&memory->event[length], memory->value.addresses, 32);
		length += 32;
	}
	if (start > POLICY_TEXT_END)
		return;
	if (length + text > POLICY_EVENT_BYTES - POLICY_TEXT_END) {
		text = 0;
		head->lacks |= POLICY_CUT;
	}
	asm volatile("" : "+r"(text));
	if (text > POLICY_TEXT_END)
		return;
	/* Keeps the compiler from merging the two comparisons into one that the verifier does not understand. */
	asm volatile("" : "+r"(text));
	if (text) {
		bpf_probe_read_kernel(&memory->event[length], text, &memory->text[start]);
		if (policy_large_count && slot < POLICY_SLOTS)
			memory->sent[slot] = text;
	}
	head->length = fixed + text;
	if (head->lacks & POLICY_CUT)
		memory->cuts++;
	memory->length = length + text;
	((struct policy_event *)memory->event)->values++;
}
