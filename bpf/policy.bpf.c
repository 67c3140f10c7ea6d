// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The policy engine: one program for each hook, for any number of policies. The object is loaded once for each hook,
 * with the hook's tables. Emits one `struct policy_event` for each call for which a selector posts an event.
 *
 * Hooks: the agent attaches one of the programs to the policy's hook. The trap: a program that may deny calls (lsm,
 * fmod_ret) must return 0 on every path on which no policy denies the call.
 */
/* Programs have no room on the stack for one more call. */
#define GADGET_LEVEL_FUNCTION static __always_inline

#include <policy/decide.h>
#include <policy/match.h>
#include <policy/registers.h>
#include <policy/remember.h>
#include <policy/set_argument.h>
#include <policy/sockets.h>
#include <policy/values.h>
#include <policy/whole.h>

/* The selectors of the policies that apply to a cgroup, either the current one or that of a socket's owner. */
static __noinline const __u64 *policy_applicable(__u64 cgroup, const struct policy_owner *owner)
{
	__u32 profile = policy_profile_of(cgroup, owner);

	return bpf_map_lookup_elem(&policy_profiles, &profile);
}

/* Reads the hook's values and applies all tests. False: no selector is left. */
static __always_inline bool policy_evaluate(struct policy_memory *memory, const struct policy_context *context)
{
	for (__u32 i = 0; i < POLICY_SLOTS; i++) {
		const volatile struct policy_slot *slot = &policy_slots[i];

		if (i >= policy_slot_count)
			break;
		policy_read(memory, context, slot);
		if (memory->value.lacks & POLICY_REPEATED)
			return false;
		if (policy_follows_files || policy_tracks_sockets)
			memory->files[i] = memory->value.file;
		if (slot->type == POLICY_NUMBER) {
			memory->slot_numbers[i] = memory->value.numbers[0];
			memory->unknown |= (__u64) !!memory->value.lacks << i;
		}
		for (__u32 test = 0; test < POLICY_TESTS; test++) {
			if (test >= slot->tests || slot->first_test + test >= POLICY_TESTS)
				break;
			policy_test(memory, slot->first_test + test);
		}
		if (slot->tests && !policy_any_alive(memory))
			return false;
		if (!(slot->flags & POLICY_UNSENT))
			policy_append(memory, i, slot->type, policy_sent_type(slot));
	}
	return true;
}

/* Carries out the actions of the remaining selectors. Returns the call's return value. */
static __noinline __s32 policy_carry_out(struct policy_memory *memory, struct policy_context *context,
					 const struct policy_owner *owner, __u64 cgroup)
{
	struct policy_event *event = (void *)memory->event;
	__u32 signal = 0;
	__s32 verdict = 0;

	policy_choose(memory);
	if (policy_follows_files)
		policy_follow(memory);
	if (policy_overrides) {
		verdict = policy_verdict(memory);
		context->selector = memory->low;
	}
	if (policy_signals)
		signal = policy_signal(memory);
	if (policy_sets && context->kind == POLICY_OF_USDT)
		policy_set_argument(memory, context->ctx);
	if (policy_tracks_sockets)
		policy_track(memory, owner);
	/* The event is only sent if the user has selected the process; the actions above do not depend on that. */
	if (policy_posts(memory) && (owner ? policy_describe_owner(event, owner) : policy_describe(event, cgroup))) {
		policy_complete(memory, context->ctx, verdict, signal);
		if (!policy_large_count || !policy_emit_whole(memory, context))
			policy_emit(memory);
	}
	if (policy_tracks_sockets)
		policy_forget(memory);
	return verdict;
}

/* The common part of all programs. Returns the call's return value. */
static __always_inline __s32 policy_run(struct policy_context *context)
{
	const struct policy_owner *owner = policy_tracks_sockets ? policy_owner_of(context) : NULL;
	__u64 cgroup = owner ? owner->head.record.cgroup : gadget_current_cgroup();
	const __u64 *selectors = policy_applicable(cgroup, owner);
	struct policy_memory *memory;
	__s32 verdict = 0;

	if (!selectors)
		return 0;
	policy_count(POLICY_COUNT_RUNS);
	memory = gadget_take_slot(&policy_memory);
	if (!memory) {
		policy_count(POLICY_COUNT_NOT_EVALUATED);
		return 0;
	}
	((struct policy_event *)memory->event)->values = 0;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		memory->alive[i] = selectors[i];
	memory->length = sizeof(struct policy_event) + policy_words * 8;
	memory->cuts = 0;
	memory->file_id = 0;
	memory->unknown = 0;
	if (policy_large_count)
		__builtin_memset(memory->sent, 0, sizeof(memory->sent));
	if (policy_evaluate(memory, context))
		verdict = policy_carry_out(memory, context, owner, cgroup);
	gadget_give_back(memory);
	/* The verifier demands this range of an LSM program (6.12). */
	if (verdict < -4095 || verdict > 0)
		return 0;
	return verdict;
}

SEC("?lsm")
int on_lsm(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_TRAMPOLINE};

	return policy_run(&context);
}

/* The same, for a hook where reading the values may sleep. */
SEC("?lsm.s")
int on_lsm_sleepable(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_TRAMPOLINE};

	return policy_run(&context);
}

SEC("?fmod_ret")
int on_fmod_ret(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_TRAMPOLINE};

	return policy_run(&context);
}

SEC("?fentry")
int on_fentry(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_TRAMPOLINE};

	policy_run(&context);
	return 0;
}

SEC("?fexit")
int on_fexit(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_TRAMPOLINE};

	policy_run(&context);
	return 0;
}

SEC("?kprobe")
int on_kprobe(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE};

	policy_run(&context);
	return 0;
}

/* For functions on the kernel's error injection list, if the kernel was built with CONFIG_BPF_KPROBE_OVERRIDE. */
SEC("?kprobe")
int on_kprobe_override(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE};
	__s32 verdict = policy_run(&context);

	if (verdict)
		bpf_override_return(ctx, verdict);
	return 0;
}

SEC("?raw_tp")
int on_raw_tracepoint(void *ctx)
{
	struct policy_context context = {.ctx = ctx};

	policy_run(&context);
	return 0;
}

SEC("?tracepoint")
int on_tracepoint(void *ctx)
{
	struct policy_context context = {.ctx = ctx};

	policy_run(&context);
	return 0;
}

SEC("?tracepoint")
int on_syscall_exit(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .result_at = POLICY_SYSCALL_RESULT};

	policy_run(&context);
	return 0;
}

/* bpf/syscalls.bpf.c calls this program for one system call, and a second instance (with gadget_node_compat) for the
 * equivalent 32-bit call. The agent sets the tracepoint when it loads the program, but never attaches it there, where
 * it would run for every call. */
SEC("?tp_btf")
int on_call(void *ctx)
{
	struct policy_context context = {.ctx = ctx};

	policy_run(&context);
	return 0;
}

SEC("?tp_btf")
int on_call_exit(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .result_at = POLICY_RAW_RESULT};

	policy_run(&context);
	return 0;
}

/* At the raw tracepoints of all system calls: whether this is not the wanted call. This runs for all calls, so the
 * registers are read through the typed pointer in the context: bpf_task_pt_regs() takes longer than the rest. */
static __always_inline bool policy_is_other_call(const __u64 *ctx)
{
	struct pt_regs *registers = (struct pt_regs *)ctx[0];

	return gadget_is_compat_call(gadget_task(), registers) != policy_compat ||
	       (policy_syscall >= 0 && gadget_syscall_number(registers) != policy_syscall);
}

SEC("?tp_btf/sys_enter")
int on_sys_enter(void *ctx)
{
	struct policy_context context = {.ctx = ctx};

	if (!policy_is_other_call(ctx))
		policy_run(&context);
	return 0;
}

SEC("?tp_btf/sys_exit")
int on_sys_exit(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .result_at = POLICY_RAW_RESULT};

	if (!policy_is_other_call(ctx))
		policy_run(&context);
	return 0;
}

/* For many functions at once. */
SEC("?kprobe.multi")
int on_kprobe_multi(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE};

	policy_run(&context);
	return 0;
}

SEC("?uprobe")
int on_uprobe(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE};

	policy_run(&context);
	return 0;
}

/* For a policy that changes registers (since Linux 6.18). */
SEC("?uprobe")
int on_uprobe_override(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE, .selector = POLICY_NO_SELECTOR};

	policy_run(&context);
	if (context.selector != POLICY_NO_SELECTOR)
		policy_set_registers(ctx, context.selector);
	return 0;
}

/* On x86, the return has popped the return address that the call has pushed. */
static __always_inline struct policy_call_key policy_key_of_call(struct pt_regs *registers, bool at_call)
{
	struct policy_call_key key = {.thread = bpf_get_current_pid_tgid(), .stack = BPF_CORE_READ(registers, sp)};

#if defined(__TARGET_ARCH_x86)
	key.stack += at_call ? sizeof(__u64) : 0;
#endif
	return key;
}

/* Stores the parameters until the return. */
SEC("?uprobe")
int on_uprobe_entry(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE};
	struct policy_call_key key = policy_key_of_call(ctx, true);
	struct policy_call call = {};

	for (__u32 i = 0; i < POLICY_PARAMETERS; i++)
		call.parameters[i] = policy_argument(&context, i);
	bpf_map_update_elem(&policy_calls, &key, &call, BPF_ANY);
	return 0;
}

/* The entry of a call was dropped: more calls are in progress than there is room for, which one container may cause. Or
 * the function was called while the probes were being attached. */
static __always_inline void policy_miss_call(void)
{
	__u64 cgroup = gadget_current_cgroup();

	if (!policy_applicable(cgroup, NULL))
		return;
	policy_count(POLICY_COUNT_NOT_EVALUATED);
	gadget_count_share_full(gadget_share_number(cgroup));
}

SEC("?uretprobe")
int on_uretprobe(void *ctx)
{
	struct policy_call_key key = policy_key_of_call(ctx, false);
	const struct policy_call *call = bpf_map_lookup_elem(&policy_calls, &key);
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_PROBE};

	if (!call) {
		policy_miss_call();
		return 0;
	}
	context.parameters = call->parameters;
	policy_run(&context);
	bpf_map_delete_elem(&policy_calls, &key);
	return 0;
}

SEC("?usdt")
int on_usdt(void *ctx)
{
	struct policy_context context = {.ctx = ctx, .kind = POLICY_OF_USDT};

	policy_run(&context);
	return 0;
}

/* Unused: policies that need this event have a hook for it. */
static __always_inline void gadget_file_closes(struct file *file, const struct gadget_followed *followed, long fd)
{
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
