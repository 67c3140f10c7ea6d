// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Calls the gadgets' programs for single system calls from the raw tracepoints of all of them. The tracepoints
 * syscalls/… are not used: they do not see calls of 32-bit programs, int 0x80 calls of 64-bit programs, and calls of
 * x32, so a container could hide its calls; and many kernels refuse perf_event_open(), which is needed to attach to
 * them. Emits nothing itself.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit, each once for all gadgets of a run, since a second program there
 * costs as much again (docs/design/hooks.md); task_newtask, sched_process_exec and sched_process_exit. The agent
 * (kubectl_gadget/agent/bpf/syscall_programs.py) puts programs into the arrays by the number of their call, and sets a
 * bit for each in `followers`.
 *
 * The traps: calls of 32-bit programs have other numbers, arguments and structs, so programs are called for them by the
 * number of the equivalent 64-bit call and with translated arguments (gadget/translated_call.h). And the path for calls
 * without a follower must not call any helper: each one costs as much as the rest.
 *
 * The registers at the exit are those of the entry, since the kernel stops for a tracer only after that tracepoint. But
 * clone, fork, vfork and exec stop for a tracer in between, which could make them look like another call. So these
 * calls of traced processes are recorded, and ignored if they return as another call.
 */
#include <gadget/compat_call.h>
#include <kernel/syscalls.h>

/* More than the number of calls of each architecture; GADGET_NO_CALL and GADGET_SOCKETCALL are among them. */
#define SYSCALLS 512
/* The maximum number of programs that follow one side of one call. */
#define FOLLOWERS 16

/* Text, to be read by the agent: "read=0 write=1 …". */
const char numbers[] SEC(".rodata.numbers") = SYSCALL_NUMBERS;

/* By FOLLOWER * SYSCALLS + number. */
struct programs {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, FOLLOWERS *SYSCALLS);
	__type(key, __u32);
	__type(value, __u32);
};

struct programs enter_programs SEC(".maps");
struct programs exit_programs SEC(".maps");
struct programs compat_enter_programs SEC(".maps");
struct programs compat_exit_programs SEC(".maps");

/* Which entries of these arrays are used, a bit for each. */
struct followers {
	__u32 enter;
	__u32 exit;
	__u32 compat_enter;
	__u32 compat_exit;
};

/* The agent maps it, like of_interest, to see at once whether another process has changed it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SYSCALLS);
	__type(key, __u32);
	__type(value, struct followers);
} followers SEC(".maps");

/* Which sides of a number are followed, for the call that has it in 64-bit or in 32-bit programs. For most calls, only
 * this is read. Written by the agent: a program that computed it took most of this object's load time. */
enum { ENTER = 1, EXIT = 2 };

__u8 of_interest[SYSCALLS] SEC(".data.interest");

static __always_inline const struct followers *followers_of(__u32 number)
{
	return bpf_map_lookup_elem(&followers, &number);
}

/* Calls that are about to stop for a tracer: their number, by task. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __s32);
} stopping SEC(".maps");

/* The number of these calls: while it is 0, no lookup is needed. */
__u64 stopping_count;

/* Runs right before the kernel may stop the current task for its tracer. */
static __always_inline int note_stopping(void)
{
	struct task_struct *task = gadget_task();
	__u64 key = (__u64)task;
	__s32 number;

	if (!gadget_read(task, ptrace))
		return 0;
	number = gadget_syscall_number(gadget_registers(task));
	if (!bpf_map_update_elem(&stopping, &key, &number, BPF_NOEXIST))
		__sync_fetch_and_add(&stopping_count, 1);
	return 0;
}

/* Whether the returning call was another one when it stopped. */
static __noinline bool was_another_call(__s32 number)
{
	__u64 key = (__u64)gadget_task();
	const __s32 *before = bpf_map_lookup_elem(&stopping, &key);
	bool is_another = before && *before != number;

	if (before && !bpf_map_delete_elem(&stopping, &key))
		__sync_fetch_and_sub(&stopping_count, 1);
	return is_another;
}

/* A function that calls one program and returns, as bpf_tail_call() does in a function; and a function that calls all
 * programs. Where a place is not used, it calls what is beyond the array, which does nothing: a branch would have the
 * verifier follow the rest of the loop twice. Places are used from the first one on. */
#define CALLS(SIDE)                                                                                                    \
	static __noinline int call_##SIDE(__u64 *ctx, __u32 place)                                                     \
	{                                                                                                              \
		bpf_tail_call(ctx, &SIDE##_programs, place);                                                           \
		return 0;                                                                                              \
	}                                                                                                              \
	static __always_inline void call_all_##SIDE(__u64 *ctx, __u32 number, __u32 mask)                              \
	{                                                                                                              \
		for (int i = 0; i < FOLLOWERS && mask; i++, mask >>= 1)                                                \
			call_##SIDE(ctx, (i * SYSCALLS + number) | ((mask & 1) - 1));                                  \
	}

CALLS(enter)
CALLS(exit)
CALLS(compat_enter)
CALLS(compat_exit)

/* Translates the current call, and returns the number of the equivalent 64-bit call. Not static, so that the verifier
 * checks it once, and not all that follows for each kind of call. */
__noinline __u32 translate(__s32 number)
{
	struct gadget_compat_call *other = gadget_compat_call_now();
	struct task_struct *task = gadget_task();

	if (!other)
		return GADGET_NO_CALL;
	gadget_translate(other, task, gadget_registers(task), number);
	return other->native;
}

/*
 * Handles a call with followers. A separate function, so that the programs, which run for all calls, need not save
 * registers for it. Only here it is checked whether the call is one of a 32-bit program.
 */
#define FOLLOW(SIDE)                                                                                                   \
	static __noinline int follow_##SIDE(__u64 *ctx, __u64 number)                                                  \
	{                                                                                                              \
		struct pt_regs *registers = (struct pt_regs *)ctx[0];                                                  \
		const struct followers *followed;                                                                      \
                                                                                                                       \
		if (gadget_is_other_call(gadget_task(), registers, number)) {                                          \
			struct gadget_compat_call *other;                                                              \
                                                                                                                       \
			number = translate(number);                                                                    \
			other = gadget_compat_call_now();                                                              \
			followed = followers_of(number);                                                               \
			if (!other || !followed)                                                                       \
				return 0;                                                                              \
			other->is_current = true;                                                                      \
			__sync_fetch_and_add(&gadget_compat_calls_count, 1);                                           \
			call_all_compat_##SIDE(ctx, number, followed->compat_##SIDE);                                  \
			__sync_fetch_and_sub(&gadget_compat_calls_count, 1);                                           \
			other->is_current = false;                                                                     \
			return 0;                                                                                      \
		}                                                                                                      \
		followed = followers_of(number);                                                                       \
		if (followed)                                                                                          \
			call_all_##SIDE(ctx, number, followed->SIDE);                                                  \
		return 0;                                                                                              \
	}

FOLLOW(enter)
FOLLOW(exit)

/* Read through the context, whose pointer has a type: with bpf_task_pt_regs() it took 50 ns more. */
static __always_inline __u64 number_of(const __u64 *ctx)
{
	__u64 number = (__u32)((struct pt_regs *)ctx[0])->GADGET_SYSCALL_NUMBER;

	/* Without this, the compiler would use the value that it was computed from. */
	asm volatile("" : "+r"(number));
	return number;
}

/* -1, for a task that is in no call, is beyond the array as an unsigned number. */
static __always_inline bool is_followed(__u64 number, __u8 side)
{
	return number < SYSCALLS ? of_interest[number] & side : gadget_is_x32(number);
}

SEC("tp_btf/sys_enter")
int at_enter(__u64 *ctx)
{
	__u64 number = number_of(ctx);

	return is_followed(number, ENTER) ? follow_enter(ctx, number) : 0;
}

SEC("tp_btf/sys_exit")
int at_exit(__u64 *ctx)
{
	__u64 number = number_of(ctx);

	if (stopping_count && was_another_call(number))
		return 0;
	return is_followed(number, EXIT) ? follow_exit(ctx, number) : 0;
}

SEC("tp_btf/task_newtask")
int at_clone(void *ctx)
{
	return note_stopping();
}

SEC("tp_btf/sched_process_exec")
int at_exec(void *ctx)
{
	return note_stopping();
}

/* The task was killed while it was stopped. */
SEC("tp_btf/sched_process_exit")
int at_end(void *ctx)
{
	if (stopping_count)
		was_another_call(0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
