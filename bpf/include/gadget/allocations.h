/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Programs for the functions of libc that allocate and free memory. A gadget defines two functions and gets the
 * programs:
 *
 *   allocated(call, address): an allocation has returned; `address` 0: it failed.
 *   freed(registers, word, address): memory is about to be freed.
 *
 * The traps: functions call each other (realloc calls malloc, malloc calls mmap), so of nested calls only the innermost
 * counts, and it also frees the old memory of an outer realloc; an mmap counts only outside of other calls. And the
 * agent may attach a program twice to the same file, so a call is counted by the program that removes its entry from
 * the map.
 */
#pragma once

#include <gadget/operation.h>
#include <gadget/stacks.h>
#include <gadget/unwind.h>

/* The maximum number of calls in progress at the same time. */
#define GADGET_ALLOCATING 16384
/* MAP_ANONYMOUS of mmap(), on both architectures. */
#define GADGET_ANONYMOUS 0x20

struct allocating {
	gadget_operation operation;
	__u64 size;
	__u64 since;
	/* Lower in nested calls. */
	__u64 stack_pointer;
	/* The memory that realloc frees if it succeeds. */
	__u64 old;
	/* Where the function stores the address; 0: it returns the address. */
	__u64 stored_at;
	gadget_stack user_stack;
	__u64 is_mapping;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_ALLOCATING);
	__type(key, __u64);
	__type(value, struct allocating);
} gadget_allocating SEC(".maps");

/* Smaller allocations are ignored. */
const volatile __u64 min_size = 0;
/* Also anonymous memory of mmap(). */
const volatile bool mappings = false;

GADGET_UNWIND_TAIL(caller);

static __always_inline bool gadget_follows_allocations(void);
static __always_inline void allocated(struct pt_regs *registers, const struct allocating *call, __u64 address);
static __always_inline void freed(struct pt_regs *registers, const char *word, __u64 address);

#define GADGET_CALL_ARGUMENT(N) BPF_CORE_READ(registers, GADGET_FUNCTION_ARGUMENT_##N)

static __always_inline int gadget_begin_allocation(struct pt_regs *registers, const gadget_operation word, __u64 size,
						   __u64 old, __u64 stored_at, bool is_mapping)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct allocating *outer, call = {
					  .size = size,
					  .since = bpf_ktime_get_boot_ns(),
					  .stack_pointer = BPF_CORE_READ(registers, sp),
					  .old = old,
					  .stored_at = stored_at,
					  .is_mapping = is_mapping,
				  };

	if (!gadget_follows_allocations())
		return 0;
	outer = bpf_map_lookup_elem(&gadget_allocating, &thread);
	if (outer && call.stack_pointer < outer->stack_pointer) {
		if (is_mapping)
			return 0;
		call.old = call.old ?: outer->old;
	}
	/* A realloc to a size that is too small still frees the old memory. */
	if (size < min_size && !call.old)
		return 0;
	__builtin_memcpy(call.operation, word, sizeof(call.operation));
	if (!gadget_unwinds && size >= min_size)
		call.user_stack = gadget_callers_stack(registers);
	if (bpf_map_update_elem(&gadget_allocating, &thread, &call, BPF_ANY))
		gadget_count_map_full();
	else if (gadget_unwinds && size >= min_size)
		bpf_tail_call(registers, &gadget_unwind_caller, 0);
	return 0;
}

/* Adds its stack to the call that has begun. */
SEC("uprobe")
int unwound_caller(struct pt_regs *registers)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct allocating *call;
	__u64 stack = gadget_unwound_callers_stack(registers);

	call = bpf_map_lookup_elem(&gadget_allocating, &thread);
	if (call)
		call->user_stack = stack;
	return 0;
}

static __always_inline int gadget_end_allocation(struct pt_regs *registers, bool is_mapping)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct allocating *found = bpf_map_lookup_elem(&gadget_allocating, &thread);
	struct allocating call;
	__u64 address;

	if (!found || found->is_mapping != is_mapping)
		return 0;
	call = *found;
	bpf_map_delete_elem(&gadget_allocating, &thread);
	address = BPF_CORE_READ(registers, GADGET_FUNCTION_RESULT);
	if (call.stored_at) {
		/* posix_memalign() returns an error or 0. */
		if ((__s32)address || bpf_probe_read_user(&address, sizeof(address), (const void *)call.stored_at))
			address = 0;
	}
	/* MAP_FAILED */
	if (address == ~0ULL)
		address = 0;
	allocated(registers, &call, address);
	return 0;
}

#define GADGET_ALLOCATES(NAME, WORD, SIZE, OLD, STORED_AT)                                                             \
	SEC("uprobe")                                                                                                  \
	int NAME(struct pt_regs *registers)                                                                            \
	{                                                                                                              \
		static const gadget_operation word = WORD;                                                             \
                                                                                                                       \
		return gadget_begin_allocation(registers, word, SIZE, OLD, STORED_AT, false);                          \
	}

GADGET_ALLOCATES(mallocs, "malloc", GADGET_CALL_ARGUMENT(0), 0, 0)
GADGET_ALLOCATES(callocs, "calloc", GADGET_CALL_ARGUMENT(0) * GADGET_CALL_ARGUMENT(1), 0, 0)
GADGET_ALLOCATES(reallocs, "realloc", GADGET_CALL_ARGUMENT(1), GADGET_CALL_ARGUMENT(0), 0)
GADGET_ALLOCATES(aligns, "aligned", GADGET_CALL_ARGUMENT(1), 0, 0)
GADGET_ALLOCATES(aligns_posix, "aligned", GADGET_CALL_ARGUMENT(2), 0, GADGET_CALL_ARGUMENT(0))
GADGET_ALLOCATES(aligns_pages, "aligned", GADGET_CALL_ARGUMENT(0), 0, 0)

SEC("uprobe")
int maps(struct pt_regs *registers)
{
	static const gadget_operation word = "mmap";

	if (!mappings || !(GADGET_CALL_ARGUMENT(3) & GADGET_ANONYMOUS))
		return 0;
	return gadget_begin_allocation(registers, word, GADGET_CALL_ARGUMENT(1), 0, 0, true);
}

SEC("uretprobe")
int returns(struct pt_regs *registers)
{
	return gadget_end_allocation(registers, false);
}

SEC("uretprobe")
int mapped(struct pt_regs *registers)
{
	return gadget_end_allocation(registers, true);
}

SEC("uprobe")
int frees(struct pt_regs *registers)
{
	static const gadget_operation word = "free";

	if (GADGET_CALL_ARGUMENT(0) && gadget_follows_allocations())
		freed(registers, word, GADGET_CALL_ARGUMENT(0));
	return 0;
}

SEC("uprobe")
int unmaps(struct pt_regs *registers)
{
	static const gadget_operation word = "munmap";

	if (mappings && gadget_follows_allocations())
		freed(registers, word, GADGET_CALL_ARGUMENT(0));
	return 0;
}
