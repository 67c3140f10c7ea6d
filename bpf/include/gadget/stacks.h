/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Call stacks: gadget_user_stack() and gadget_kernel_stack() store a stack and return its id, which goes into a record
 * or into the key of a total as a `gadget_stack`. The agent removes the stacks from the map several times a second, and
 * sends the names of their functions to the client.
 *
 * The id is a hash of a secret, the process, the program and the addresses. So equal stacks have the same id, even
 * after the agent has removed one, and no program can forge the id of another container's stack.
 *
 * The kernel unwinds user stacks by frame pointers, so it sees little of programs that are built without them. And the
 * programs of an object share the slots, so get the stack before you take a slot for the record.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/output.h>
#include <gadget/slots.h>
#include <gadget/task.h>
#include <kernel/ptrace.h>

/* The kernel's own default limit (kernel.perf_event_max_stack). */
#define GADGET_FRAMES 127
/* The maximum number of different stacks between two reads by the agent. */
#define GADGET_STACKS 8192

/* There is no stack. */
#define GADGET_NO_STACK 0
/* The stack could not be stored, which was counted. */
#define GADGET_LOST_STACK 1

/* Frames at the beginning of a kernel stack that are not part of it. */
enum gadget_stack_begins {
	GADGET_BEGINS_HERE,
	/* An interrupt, whose frames are not those of the interrupted code. */
	GADGET_BEGINS_INTERRUPT,
	/* A tracepoint and the code that it runs. */
	GADGET_BEGINS_TRACEPOINT,
	/* The scheduler, which a sleeping thread has called. */
	GADGET_BEGINS_SLEEP,
};

/* Read by kubectl_gadget/agent/symbols/gadget_stacks.py. */
struct gadget_kept_stack {
	/* The PID on the node; 0 for a kernel stack. */
	__u32 pid;
	__u32 depth;
	/* The address where the process's initial stack begins, which distinguishes the successive programs of one
	 * process. For a kernel stack: enum gadget_stack_begins. */
	__u64 program;
	/* Innermost first: the current address, then the return address of each caller. */
	__u64 addresses[GADGET_FRAMES];
};

/* Preallocated: with interrupts disabled, allocation on demand has only one entry of this size available, but two
 * stacks are needed. Before 6.1, programs for perf events may use only preallocated maps. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GADGET_STACKS);
	__type(key, __u64);
	__type(value, struct gadget_kept_stack);
} gadget_stacks SEC(".maps");

GADGET_SLOTS(gadget_stack_slots, sizeof(struct gadget_kept_stack));

/* The secret: random in each run. */
const volatile __u64 gadget_node_random = 0;

static __always_inline __u64 gadget_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

/* Stores the stack that is in the slot. */
static __noinline __u64 gadget_keep_stack(struct gadget_kept_stack *stack)
{
	__u64 id = gadget_mix(gadget_node_random, (__u64)stack->pid << 32 | stack->depth);

	id = gadget_mix(id, stack->program);
	for (__u32 i = 0; i < GADGET_FRAMES; i++) {
		if (i >= stack->depth)
			break;
		id = gadget_mix(id, stack->addresses[i]);
	}
	if (id <= GADGET_LOST_STACK)
		id += 2;
	if (bpf_map_lookup_elem(&gadget_stacks, &id))
		return id;
	switch (bpf_map_update_elem(&gadget_stacks, &id, stack, BPF_NOEXIST)) {
	case 0:
	case -EEXIST:
		return id;
	}
	gadget_count_map_full();
	return GADGET_LOST_STACK;
}

/* `begins` says which frames the agent must leave out. */
static __always_inline __u64 gadget_kernel_stack(void *context, enum gadget_stack_begins begins)
{
	struct gadget_kept_stack *stack = gadget_take_slot(&gadget_stack_slots);
	__u64 id = GADGET_NO_STACK;
	long bytes;

	if (!stack)
		return GADGET_LOST_STACK;
	bytes = bpf_get_stack(context, stack->addresses, sizeof(stack->addresses), 0);
	if (bytes > 0) {
		stack->pid = 0;
		stack->program = begins;
		stack->depth = (__u64)bytes / sizeof(__u64);
		id = gadget_keep_stack(stack);
	}
	gadget_give_back(stack);
	return id;
}

/* The kernel stack of a thread that sleeps, other than the current one (Linux 5.9). */
static __always_inline __u64 gadget_kernel_stack_of(struct task_struct *task)
{
	struct gadget_kept_stack *stack = gadget_take_slot(&gadget_stack_slots);
	__u64 id = GADGET_NO_STACK;
	long bytes;

	if (!stack)
		return GADGET_LOST_STACK;
	bytes = bpf_get_task_stack(task, stack->addresses, sizeof(stack->addresses), 0);
	if (bytes > 0) {
		stack->pid = 0;
		stack->program = GADGET_BEGINS_SLEEP;
		stack->depth = (__u64)bytes / sizeof(__u64);
		id = gadget_keep_stack(stack);
	}
	gadget_give_back(stack);
	return id;
}

static __always_inline bool gadget_begin_user_stack(struct gadget_kept_stack *stack, struct task_struct *task)
{
	stack->pid = gadget_node_pid(task);
	stack->program = BPF_CORE_READ(task, mm, start_stack);
	/* Kernel threads have no user memory. */
	return stack->program;
}

static __always_inline __u64 gadget_user_stack(void *context)
{
	struct gadget_kept_stack *stack = gadget_take_slot(&gadget_stack_slots);
	__u64 id = GADGET_NO_STACK;
	long bytes;

	if (!stack)
		return GADGET_LOST_STACK;
	if (gadget_begin_user_stack(stack, gadget_task())) {
		bytes = bpf_get_stack(context, stack->addresses, sizeof(stack->addresses), BPF_F_USER_STACK);
		if (bytes > 0) {
			stack->depth = (__u64)bytes / sizeof(__u64);
			id = gadget_keep_stack(stack);
		}
	}
	gadget_give_back(stack);
	return id;
}

/* What a frame pointer points to, on both architectures. */
struct gadget_frame {
	__u64 next;
	__u64 returns_to;
};

/*
 * The user stack of a thread that sleeps, other than the current one. Helpers do not unwind it, so its frame pointers
 * are followed here, as the kernel does. Only a sleepable program can do so (Linux 5.18). Of a 32-bit program, only the
 * current address is known.
 */
static __always_inline __u64 gadget_user_stack_of(struct task_struct *task)
{
	struct gadget_kept_stack *stack = gadget_take_slot(&gadget_stack_slots);
	struct pt_regs *registers;
	struct gadget_frame frame;
	__u64 id = GADGET_NO_STACK;
	__u32 depth;

	if (!stack)
		return GADGET_LOST_STACK;
	if (gadget_begin_user_stack(stack, task)) {
		registers = (void *)bpf_task_pt_regs(task);
		stack->addresses[0] = BPF_CORE_READ(registers, GADGET_INSTRUCTION);
		frame.next = BPF_CORE_READ(registers, GADGET_FRAME_POINTER);
		for (depth = 1; depth < GADGET_FRAMES; depth++) {
			__u64 at = frame.next;

			if (!at || at & 7 || bpf_copy_from_user_task(&frame, sizeof(frame), (void *)at, task, 0) ||
			    !frame.returns_to)
				break;
			stack->addresses[depth] = frame.returns_to;
			/* The stack grows down, so callers are above. */
			if (frame.next <= at) {
				depth++;
				break;
			}
		}
		stack->depth = depth;
		id = gadget_keep_stack(stack);
	}
	gadget_give_back(stack);
	return id;
}

/* The return address at a function's first instruction, where the frame pointer is not set up yet. */
static __always_inline __u64 gadget_return_address(struct pt_regs *registers)
{
	__u64 address = 0;

#if defined(__TARGET_ARCH_x86)
	bpf_probe_read_user(&address, sizeof(address), (const void *)BPF_CORE_READ(registers, sp));
#else
	address = BPF_CORE_READ(registers, regs[30]);
#endif
	return address;
}

/* Kernels before 6.11 omit the caller of a function that is at its first instruction, and later ones do too if they do
 * not recognize the instruction. So the caller's address replaces that of the function itself. */
static __always_inline void gadget_begin_with_caller(struct gadget_kept_stack *stack, struct pt_regs *registers)
{
	stack->addresses[0] = gadget_return_address(registers);
	/* The kernel had the caller too; the agent ignores 0. */
	if (stack->addresses[1] == stack->addresses[0])
		stack->addresses[1] = 0;
}

/* For a uprobe at a function's first instruction: the stack of its caller. */
static __always_inline __u64 gadget_callers_stack(struct pt_regs *registers)
{
	struct gadget_kept_stack *stack = gadget_take_slot(&gadget_stack_slots);
	__u64 id = GADGET_NO_STACK;
	long bytes;

	if (!stack)
		return GADGET_LOST_STACK;
	if (gadget_begin_user_stack(stack, gadget_task())) {
		bytes = bpf_get_stack(registers, stack->addresses, sizeof(stack->addresses), BPF_F_USER_STACK);
		if (bytes > 0) {
			stack->depth = (__u64)bytes / sizeof(__u64);
			gadget_begin_with_caller(stack, registers);
			id = gadget_keep_stack(stack);
		}
	}
	gadget_give_back(stack);
	return id;
}
