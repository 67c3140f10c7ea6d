// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Calls the gadgets' programs for single system calls from the raw tracepoints of all of them. The tracepoints
 * syscalls/… are not used: they do not run for calls of 32-bit programs, int 0x80 calls of 64-bit programs and calls of
 * x32, so a container could hide its calls; and attaching to them requires perf_event_open(), which many kernels
 * refuse. Emits nothing itself.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit, with one program each for all gadgets of a run, since each further
 * program there costs as much as the first (docs/design/hooks.md); task_newtask, sched_process_exec and
 * sched_process_exit. The agent (kubectl_gadget/agent/bpf/syscall_programs.py) puts programs into the arrays by the
 * number of their call, and sets the bit of each in `followers`.
 *
 * The traps: 32-bit calls have other numbers, arguments and structs, so for them, the programs of the equivalent 64-bit
 * call are called with translated arguments (gadget/syscalls/translated_call.h). And the path for calls without a
 * follower must not call any helper: each one costs as much as the rest.
 *
 * At the exit, the registers are still those of the entry, since the kernel stops for a tracer (ptrace) only after that
 * tracepoint. But in clone, fork, vfork and exec, it stops for a tracer in between, which can change the registers so
 * that the call looks like another one. So the numbers of these calls are recorded for traced processes, and the exit
 * is ignored if the number has changed.
 */
#include <gadget/syscalls/compat_call.h>
#include <kernel/syscalls.h>

/* More than the number of calls of each architecture; also has room for GADGET_NO_CALL and GADGET_SOCKETCALL. */
#define SYSCALLS 512
/* The maximum number of programs that follow one side of one call. */
#define FOLLOWERS 16

/* Text that the agent reads: "read=0 write=1 …". */
const char numbers[] SEC(".rodata.numbers") = SYSCALL_NUMBERS;

/* The index is FOLLOWER * SYSCALLS + number. */
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

/* A bit for each entry of these arrays that is used. */
struct followers {
	__u32 enter;
	__u32 exit;
	__u32 compat_enter;
	__u32 compat_exit;
};

/* The agent maps this array, like of_interest, so that it sees at once whether another process has changed it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SYSCALLS);
	__type(key, __u32);
	__type(value, struct followers);
} followers SEC(".maps");

/* Which sides of a call number are followed, as a 64-bit or a 32-bit call. For most calls, only this is read. Written
 * by the agent, since a program that computed it took most of this object's load time. */
enum { ENTER = 1, EXIT = 2 };

__u8 of_interest[SYSCALLS] SEC(".data.interest");

static __always_inline const struct followers *followers_of(__u32 number)
{
	return bpf_map_lookup_elem(&followers, &number);
}

/* Calls that are about to stop for a tracer: the call number, by task. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __s32);
} stopping SEC(".maps");

/* The number of these entries. While it is 0, no lookup is needed. */
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

/* Whether the call that returns had another number when it stopped. */
static __noinline bool was_another_call(__s32 number)
{
	__u64 key = (__u64)gadget_task();
	const __s32 *before = bpf_map_lookup_elem(&stopping, &key);
	bool is_another = before && *before != number;

	if (before && !bpf_map_delete_elem(&stopping, &key))
		__sync_fetch_and_sub(&stopping_count, 1);
	return is_another;
}

/* Defines call_SIDE(), which calls one program: a tail call in a subprogram returns to the subprogram's caller. And
 * call_all_SIDE(), which calls all programs of a call. For an unused entry, it uses an index beyond the array, for
 * which a tail call does nothing: with a branch, the verifier would follow the rest of the loop twice. Entries are used
 * from the first one on. */
#define CALLS(SIDE)                                                                                                    \
	static __noinline int call_##SIDE(__u64 *ctx, __u32 index)                                                     \
	{                                                                                                              \
		bpf_tail_call(ctx, &SIDE##_programs, index);                                                           \
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
 * checks it once, and does not check the following code for each of its paths. */
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
 * Handles a call that may have followers. A separate function, so that the programs, which run for all calls, need not
 * save registers for it. Only here, 32-bit calls are distinguished from 64-bit calls.
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

/* Reads the number through the typed pointer in the context: bpf_task_pt_regs() took 50 ns more. */
static __always_inline __u64 number_of(const __u64 *ctx)
{
	__u64 number = (__u32)((struct pt_regs *)ctx[0])->GADGET_SYSCALL_NUMBER;

	/* Keeps the compiler from using the value from which it was computed. */
	asm volatile("" : "+r"(number));
	return number;
}

/* -1, for a task that is in no call, is beyond the array, since the number is unsigned. */
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

/* The task may have been killed while it was stopped: removes its entry. */
SEC("tp_btf/sched_process_exit")
int at_end(void *ctx)
{
	if (stopping_count)
		was_another_call(0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
