// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* For a test: both ways to read a system call's registers, at the exit of openat. */
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/syscall.h>

struct registers {
	struct gadget_record record;
	__u64 by_helper;
	__u64 on_stack;
	/* The second argument of openat, the path's address, read in both ways. */
	__u64 path_by_helper;
	__u64 path_on_stack;
};

GADGET_RECORD(registers);
GADGET_SCRATCH(scratch, sizeof(struct registers));

SEC("tracepoint/syscalls/sys_exit_openat")
int openat_exit(void *ctx)
{
	struct registers *found = gadget_scratch(&scratch);
	struct task_struct *task = gadget_task();
	struct pt_regs *helper = gadget_registers(task);
	struct pt_regs *stack = gadget_registers_on_stack(task);

	if (!found || !gadget_begin(&found->record))
		return 0;
	found->by_helper = (__u64)helper;
	found->on_stack = (__u64)stack;
	found->path_by_helper = gadget_argument(helper, 1);
	found->path_on_stack = BPF_CORE_READ(stack, GADGET_ARGUMENT_1);
	gadget_emit(&found->record, sizeof(*found), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
