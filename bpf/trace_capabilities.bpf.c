// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace capabilities: emits one `struct trace_capabilities` each time the kernel checks whether a task has a
 * capability, with the verdict.
 *
 * Hooks: the tracepoint cap_capable (since 6.14); else the function of that name, by fexit or kprobes.
 */
#include <gadget/kernel_stack.h>
#include <gadget/map_shares.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/runtime.h>
#include <gadget/string.h>
#include <gadget/syscalls/compat.h>
#include <gadget/syscall.h>
#include <gadget/unique.h>
#include <kernel/privilege.h>
#include <kernel/task.h>

/* The maximum number of checks in progress at the same time, for kprobes. One container may have half of them. */
#define IN_PROGRESS 4096

struct trace_capabilities {
	struct gadget_record record;
	/* The task's capabilities. */
	gadget_capabilities effective;
	gadget_capability capability;
	/* 0: the task has the capability. EPERM: it does not. */
	gadget_errno errno;
	/* The system call during which the capability was checked. */
	gadget_in_syscall syscall;
	/* Inode numbers of user namespaces: the task's, and the one in which it needs the capability. */
	__u32 user_ns;
	__u32 target_user_ns;
	gadget_strings stack;
	/* 1: a denial would be audited, 2: it would not. 0: the hook does not say. */
	enum gadget_known_bool audited;
	__u32 unused_end;
};

GADGET_RECORD(trace_capabilities);

#define CHECK_BYTES GADGET_ROOM(sizeof(struct trace_capabilities) + GADGET_STACK_BYTES)

const volatile bool filter_denied = false;
/* ~0: any. */
const volatile __u32 filter_capability = ~0U;
const volatile bool collect_stack = false;
/* Also checks whose denial would not be audited. */
const volatile bool show_unaudited = false;

/* With --unique: each process, capability and verdict is shown once; with stacks, once for each call path. */
struct check {
	__u64 call_path;
	__u32 pid;
	/* Distinguishes the successive programs of a process. */
	__u32 program;
	__u16 capability;
	__u16 denied;
	__u32 unused;
};

GADGET_SEEN(struct check, 16384);

/* The function's arguments, for kprobes. */
struct arguments {
	const struct cred *cred;
	struct user_namespace *target;
	__s32 capability;
	__u32 options;
};

GADGET_STATES(in_progress, arguments, IN_PROGRESS);

GADGET_SCRATCH(check_scratch, CHECK_BYTES);

/* The number of innermost frames by which call paths are distinguished. With more frames, paths would differ that are
 * the same to a user. */
#define PATH_FRAMES 6

static __always_inline __u64 call_path_of(void *ctx)
{
	__u64 frames[PATH_FRAMES] = {}, call_path = 0;

	if (!collect_stack || bpf_get_stack(ctx, frames, sizeof(frames), GADGET_OWN_FRAMES) <= 0)
		return 0;
	for (int i = 0; i < PATH_FRAMES; i++)
		call_path = call_path * 31 + frames[i];
	return call_path;
}

/* The process's number of execs: 32 bits before 5.7, since then the lower half of 64 bits. */
static __always_inline __u32 program_of(struct task_struct *task)
{
	__u32 number = 0;

	bpf_core_read(&number, sizeof(number), &task->self_exec_id);
	return number;
}

static __always_inline bool is_new(void *ctx, __u32 pid, __u32 capability, bool denied)
{
	struct check check = {.call_path = call_path_of(ctx), .pid = pid, .capability = capability, .denied = denied};
	__u8 once = 1;

	check.program = program_of(gadget_task());
	return !bpf_map_update_elem(&gadget_seen, &check, &once, BPF_NOEXIST);
}

static __always_inline __u32 is_audited(__u32 options)
{
	return options & CAP_OPT_NOAUDIT ? GADGET_KNOWN_NO : GADGET_KNOWN_YES;
}

/* The tracepoint does not have the function's options, but most callers that request no audit are recognized by their
 * names. They call the function directly, or through one more function. */
#define CALLER_FRAMES 4
#define NAME_BYTES 64

/* Memory accounting checks at each mapping whether the process may use the reserved pages. That would be too many
 * events. */
static __always_inline bool checks_memory(const char *name)
{
	static const char names[3][16] __attribute__((aligned(8))) = {
		"cap_vm_enough_me",
		"security_vm_enou",
		"__vm_enough_memo",
	};
	const __u64 *words = (const __u64 *)name;

	for (int i = 0; i < 3; i++)
		if (words[0] == ((__u64 *)names[i])[0] && words[1] == ((__u64 *)names[i])[1])
			return true;
	return false;
}

static __always_inline bool ends_with_noaudit(const char *name, __u64 length)
{
	const char wanted[8] = "_noaudit";
	char end[8] = {};

	if (length < sizeof(end) || length > NAME_BYTES)
		return false;
	bpf_probe_read_kernel(end, sizeof(end), name + length - sizeof(end));
	return *(__u64 *)end == *(__u64 *)wanted;
}

/* Kernels with the tracepoint have bpf_snprintf(), which came with 5.13. */
static __always_inline __u32 audited_by_name(void *ctx)
{
	static const char format[] = "%ps";
	char name[NAME_BYTES] __attribute__((aligned(8))) = {};
	__u64 frames[CALLER_FRAMES] = {};

	if (bpf_get_stack(ctx, frames, sizeof(frames), GADGET_OWN_FRAMES) <= 0)
		return 0;
	for (int i = 0; i < CALLER_FRAMES; i++) {
		/* Including its NUL. */
		long written = bpf_snprintf(name, sizeof(name), format, &frames[i], sizeof(frames[i]));

		if (written <= 0)
			break;
		if (checks_memory(name) || ends_with_noaudit(name, written - 1))
			return GADGET_KNOWN_NO;
	}
	return 0;
}

static __always_inline int checked(void *ctx, const struct cred *cred, struct user_namespace *target, __u32 capability,
				   long result, __u32 audited)
{
	struct trace_capabilities *check;
	struct gadget_writer writer;

	if ((filter_denied && !result) || (filter_capability != ~0U && capability != filter_capability))
		return 0;
	check = gadget_scratch(&check_scratch);
	if (!check || !gadget_begin_outside_runtime(&check->record))
		return 0;
	if (!audited)
		audited = audited_by_name(ctx);
	if (audited == GADGET_KNOWN_NO && !show_unaudited)
		return 0;
	if (gadget_unique && !is_new(ctx, check->record.pid, capability, result))
		return 0;
	check->effective = ~0ULL;
	bpf_core_read(&check->effective, sizeof(check->effective), &cred->cap_effective);
	check->capability = capability;
	check->errno = result < 0 ? -result : 0;
	check->syscall = gadget_shown_number(gadget_task(), gadget_registers(gadget_task()),
					     gadget_syscall_number(gadget_registers(gadget_task())));
	check->user_ns = BPF_CORE_READ(cred, user_ns, ns.inum);
	check->target_user_ns = BPF_CORE_READ(target, ns.inum);
	check->audited = audited;
	check->unused_end = 0;
	gadget_no_text(&check->stack);
	writer = gadget_write(check, sizeof(*check), CHECK_BYTES);
	if (collect_stack)
		gadget_append_kernel_stack(&writer, &check->stack, ctx);
	gadget_send(&writer);
	return 0;
}

SEC("tp_btf/cap_capable")
int BPF_PROG(checked_tracepoint, const struct cred *cred, struct user_namespace *target,
	     const struct user_namespace *capable, int capability, int result)
{
	return checked(ctx, cred, target, capability, result, 0);
}

SEC("fexit/cap_capable")
int BPF_PROG(checked_fexit, const struct cred *cred, struct user_namespace *target, int capability,
	     unsigned int options, int result)
{
	return checked(ctx, cred, target, capability, result, is_audited(options));
}

SEC("kprobe/cap_capable")
int checked_starts(struct pt_regs *ctx)
{
	struct arguments arguments = {
		.cred = (void *)ctx->GADGET_FUNCTION_ARGUMENT_0,
		.target = (void *)ctx->GADGET_FUNCTION_ARGUMENT_1,
		.capability = ctx->GADGET_FUNCTION_ARGUMENT_2,
		.options = ctx->GADGET_FUNCTION_ARGUMENT_3,
	};
	struct arguments *kept = in_progress_make_state(bpf_get_current_task(), gadget_current_cgroup());

	if (kept)
		*kept = arguments;
	return 0;
}

SEC("kretprobe/cap_capable")
int checked_ends(struct pt_regs *ctx)
{
	int result = ctx->GADGET_FUNCTION_RESULT;
	__u64 task = bpf_get_current_task();
	struct arguments *kept = in_progress_state_of(task);
	struct arguments arguments;

	if (!kept)
		return 0;
	arguments = *kept;
	in_progress_remove_state(task);
	return checked(ctx, arguments.cred, arguments.target, arguments.capability, result,
		       is_audited(arguments.options));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
