// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Calls a gadget's programs for single system calls from the raw tracepoints of all of them, where the kernel keeps
 * perf_event_open() and with it the tracepoints syscalls/… from the agent. Emits nothing itself.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit. The agent (kubectl_gadget/agent/syscalls.py) loads one instance
 * per object, only with what that has programs for. A call costs one access to an array; what is in it runs in the
 * place of this program. Like the tracepoints, it passes over the calls of 32-bit programs, which have other numbers.
 */
#include <gadget/compat.h>
#include <gadget/syscall.h>
#include <kernel/syscalls.h>

/* More than either architecture has; x32's numbers begin far above. */
#define SYSCALLS 1024

/* Text, to be read by the agent: "read=0 write=1 …". */
const char numbers[] SEC(".rodata.numbers") = SYSCALL_NUMBERS;

struct programs {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SYSCALLS);
	__type(key, __u32);
	__type(value, __u32);
};

struct programs enter_programs SEC(".maps");
struct programs exit_programs SEC(".maps");

/* The number is read through the context, whose pointer has a type: bpf_task_pt_regs() took 50 ns more. */
static __always_inline int call(__u64 *ctx, void *programs)
{
	struct pt_regs *registers = (struct pt_regs *)ctx[0];

	/* -1, of a task in no call at all, is beyond the array as an unsigned number. */
	if (!gadget_is_compat_call(gadget_task(), registers))
		bpf_tail_call(ctx, programs, (__u32)registers->GADGET_SYSCALL_NUMBER);
	return 0;
}

SEC("tp_btf/sys_enter")
int at_enter(__u64 *ctx)
{
	return call(ctx, &enter_programs);
}

SEC("tp_btf/sys_exit")
int at_exit(__u64 *ctx)
{
	return call(ctx, &exit_programs);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
