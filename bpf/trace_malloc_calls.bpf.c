// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace malloc-calls: emits one `struct trace_malloc_calls` for each call that allocates or frees memory.
 *
 * Hooks: uprobes on libc's functions, in all files in which the agent finds them (`libraries` in the YAML). Uprobe
 * programs may be preempted, so a record is built in a slot.
 */
#include <gadget/allocations.h>
#include <gadget/process.h>

/* An address in the process. */
typedef __u64 gadget_user_address;

struct trace_malloc_calls {
	struct gadget_record record;
	gadget_operation operation;
	/* 0: it failed. */
	gadget_user_address address;
	/* ~0: free does not know the size. */
	gadget_bytes bytes;
	gadget_duration duration;
	gadget_stack user_stack;
};

GADGET_RECORD(trace_malloc_calls);

GADGET_SLOTS(slots, sizeof(struct trace_malloc_calls));

static __always_inline bool gadget_follows_allocations(void)
{
	struct gadget_record marks;

	return gadget_wanted_cgroup(&marks, gadget_current_cgroup()) && gadget_wanted_task(gadget_task());
}

static __always_inline void emit(const char *word, __u64 address, __u64 bytes, __u64 duration, gadget_stack user_stack)
{
	struct trace_malloc_calls *call;

	if (!gadget_wanted_operation(word))
		return;
	call = gadget_take_slot(&slots);
	if (!call)
		return;
	if (gadget_begin(&call->record)) {
		__builtin_memcpy(call->operation, word, sizeof(call->operation));
		call->address = address;
		call->bytes = bytes;
		call->duration = duration;
		call->user_stack = user_stack;
		gadget_emit(&call->record, sizeof(*call), 0);
	}
	gadget_give_back(call);
}

static __always_inline void allocated(struct pt_regs *registers, const struct allocating *call, __u64 address)
{
	if (call->size >= min_size)
		emit(call->operation, address, call->size, bpf_ktime_get_boot_ns() - call->since, call->user_stack);
}

GADGET_UNWIND_TAIL(free);
GADGET_UNWIND_TAIL(unmap);

static __always_inline void freed(struct pt_regs *registers, const char *word, __u64 address)
{
	/* The size is unknown. */
	if (min_size)
		return;
	if (gadget_unwinds && word[0] == 'm')
		bpf_tail_call(registers, &gadget_unwind_unmap, 0);
	else if (gadget_unwinds)
		bpf_tail_call(registers, &gadget_unwind_free, 0);
	else
		emit(word, address, ~0ULL, ~0ULL, gadget_callers_stack(registers));
}

SEC("uprobe")
int unwound_free(struct pt_regs *registers)
{
	emit("free", GADGET_CALL_ARGUMENT(0), ~0ULL, ~0ULL, gadget_unwound_callers_stack(registers));
	return 0;
}

SEC("uprobe")
int unwound_unmap(struct pt_regs *registers)
{
	emit("munmap", GADGET_CALL_ARGUMENT(0), ~0ULL, ~0ULL, gadget_unwound_callers_stack(registers));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
