/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Turns the remaining selectors into actions: chooses the first selector of each policy, then determines the verdict,
 * sends the signal and posts the event.
 *
 * The trap: the cost must not depend on the number of policies, so nothing here iterates over policies, only over the
 * words of sets. The exceptions are rate limits.
 */
#pragma once

#include <policy/event.h>
#include <policy/values.h>

/*
 * Keeps the lowest bit of each policy: x & -x for each policy's group of bits. -x is ~x + 1; the guard bit after each
 * group takes the carry, so that it does not reach the next policy.
 */
static __always_inline void policy_choose(struct policy_memory *memory)
{
	const __u64 *guard = policy_mask(POLICY_MASK_GUARD);
	const __u64 *start = policy_mask(POLICY_MASK_START);
	__u64 carried = 0;

	if (!guard || !start)
		return;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++) {
		__u64 alive = memory->alive[i];
		__u64 left = ~alive & ~guard[i];
		__u64 sum = left + start[i];
		__u64 carry = sum < left;

		sum += carried;
		carry |= sum < carried;
		carried = carry;
		memory->chosen[i] = alive & sum;
	}
}

/* The index of the lowest set bit. */
static __always_inline __u32 policy_lowest(__u64 word)
{
	return __builtin_ctzll(word);
}

/* The action of the first chosen selector that is in a mask. NULL: there is none. */
static __always_inline const struct policy_action *policy_first_of(struct policy_memory *memory, __u32 which)
{
	const __u64 *mask = policy_mask(which);

	if (!mask)
		return NULL;
	memory->low = ~0ULL;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++) {
		__u64 word = memory->chosen[i] & mask[i];

		if (word && memory->low == ~0ULL)
			memory->low = i * 64 + policy_lowest(word);
	}
	__u32 selector = memory->low;

	return bpf_map_lookup_elem(&policy_actions, &selector);
}

static __always_inline __s32 policy_verdict(struct policy_memory *memory)
{
	const struct policy_action *action = policy_first_of(memory, POLICY_MASK_OVERRIDE);

	if (!action)
		return 0;
	policy_count(POLICY_COUNT_OVERRIDDEN);
	return action->error;
}

/* Sends the signal to the current process. Returns the signal that was sent; 0: none. */
static __always_inline __u32 policy_signal(struct policy_memory *memory)
{
	const struct policy_action *action = policy_first_of(memory, POLICY_MASK_SIGNAL);

	if (!action || bpf_send_signal(action->signal))
		return 0;
	policy_count(POLICY_COUNT_SIGNALLED);
	return action->signal;
}

/* One step of FNV-1a, over the values as they are sent. */
static long policy_hash_byte(__u32 index, struct policy_memory **context)
{
	struct policy_memory *memory = *context;
	__u64 position = memory->high + index;

	if (position >= POLICY_EVENT_BYTES)
		return 1;
	memory->low = (memory->low ^ (__u8)memory->event[position]) * 0x100000001b3ULL;
	return 0;
}

static __always_inline __u64 policy_hash_values(struct policy_memory *memory)
{
	struct policy_memory *context = memory;
	__u64 first = sizeof(struct policy_event) + policy_words * 8;

	memory->low = 0xcbf29ce484222325ULL;
	memory->high = first;
	if (memory->length > first)
		bpf_loop(memory->length - first, policy_hash_byte, &context, 0);
	return memory->low;
}

/* Whether a selector with a rate limit may post now. If so, notes the time. */
static __always_inline bool policy_within_limit(const struct policy_action *action, struct policy_limit_key *key)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u64 task = bpf_get_current_pid_tgid();
	const __u64 *last;

	key->task = action->scope == 0 ? 0 : action->scope == 1 ? task >> 32 : (__u32)task;
	last = bpf_map_lookup_elem(&policy_posted, key);
	if (last && now - *last < action->interval) {
		policy_count(POLICY_COUNT_LIMITED);
		return false;
	}
	bpf_map_update_elem(&policy_posted, key, &now, BPF_ANY);
	return true;
}

struct policy_limited {
	struct policy_memory *memory;
	__u64 hash;
	__u64 left;
	__u32 word;
};

static long policy_limit_one(__u32 index, struct policy_limited *limited)
{
	__u32 bit;
	struct policy_limit_key key = {};
	const struct policy_action *action;

	if (!limited->left || limited->word >= POLICY_WORDS)
		return 1;
	bit = policy_lowest(limited->left);
	limited->left &= limited->left - 1;
	key.selector = limited->word * 64 + bit;
	key.values = limited->hash;
	action = bpf_map_lookup_elem(&policy_actions, &key.selector);
	if (action && !policy_within_limit(action, &key))
		limited->memory->chosen[limited->word] &= ~(1ULL << (bit & 63));
	return 0;
}

/* Removes the selectors that have posted the same event within their limit. */
static __always_inline void policy_limit(struct policy_memory *memory)
{
	const __u64 *mask = policy_mask(POLICY_MASK_LIMIT);
	__u64 hash = policy_hash_values(memory);

	if (!mask)
		return;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++) {
		struct policy_limited limited = {
			.memory = memory, .hash = hash, .left = memory->chosen[i] & mask[i], .word = i};

		bpf_loop(64, policy_limit_one, &limited, 0);
	}
}

/* Whether any chosen selector posts. Leaves only those that do in the chosen set. */
static __always_inline bool policy_posts(struct policy_memory *memory)
{
	const __u64 *mask = policy_mask(POLICY_MASK_POST);
	__u64 any = 0;

	if (!mask)
		return false;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		memory->chosen[i] &= mask[i];
	if (policy_limits)
		policy_limit(memory);
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		any |= memory->chosen[i];
	return any;
}

/* Whether one of the chosen selectors is in a mask. */
static __always_inline bool policy_is_any(struct policy_memory *memory, __u32 which)
{
	const __u64 *mask = policy_mask(which);
	__u64 any = 0;

	if (!mask)
		return false;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		any |= memory->chosen[i] & mask[i];
	return any;
}

static __always_inline struct file *policy_file_of(struct policy_memory *memory, __u32 which)
{
	const struct policy_action *action = policy_first_of(memory, which);

	return action && action->file < POLICY_SLOTS ? (struct file *)memory->files[action->file] : NULL;
}

/* Starts to follow a file, and stops following a file whose last descriptor is closed. */
static __always_inline void policy_follow(struct policy_memory *memory)
{
	struct file *file = policy_file_of(memory, POLICY_MASK_FOLLOW);

	/* A duplicated descriptor has the same file. */
	if (file && !gadget_followed_of(file))
		memory->file_id = gadget_follow(file);
	file = policy_file_of(memory, POLICY_MASK_UNFOLLOW);
	if (file && gadget_references(file) == 1)
		gadget_unfollow((__u64)file);
}

/* The slot number of the file's hash from the integrity subsystem (IMA), which is not a value of a slot. */
#define POLICY_HASH_SLOT 255
#define POLICY_HASH_BYTES 64

/* An argument of the security hook, read so that the verifier knows its type. */
static __always_inline void *policy_trusted(void *ctx, __s32 index)
{
	switch (index) {
	case 0:
		return (void *)((__u64 *)ctx)[0];
	case 1:
		return (void *)((__u64 *)ctx)[1];
	case 2:
		return (void *)((__u64 *)ctx)[2];
	}
	return NULL;
}

/* The maximum number of a CPU's slots (gadget/slots.h) that may be held while the kernel computes a hash. The others
 * stay free for programs that do not wait. */
#define POLICY_WAITING_SLOTS 2

/*
 * Whether the kernel may read the file while this program holds its slot. It must not if a user-space program serves
 * the file: that program could block the read for ever, in as many processes as there are slots, and then no policy on
 * the node would be evaluated any more. This is possible for FUSE, and for file systems mounted in a user namespace,
 * such as an overlayfs on FUSE.
 */
static __always_inline bool policy_may_hash(const void *memory, struct file *file)
{
	struct super_block *block = BPF_CORE_READ(file, f_inode, i_sb);

	if (BPF_CORE_READ(block, s_magic) == FUSE_SUPER_MAGIC || BPF_CORE_READ(block, s_iflags) & SB_I_NODEV)
		return false;
	return gadget_slot_number(memory) < POLICY_WAITING_SLOTS;
}

/* Appends the hash as a value: one byte for the algorithm (enum hash_algo), then the hash. Only in programs that may
 * sleep, since Linux 5.18. */
static __always_inline void policy_append_hash(struct policy_memory *memory, void *ctx)
{
	struct policy_value_head *head;
	__u64 at = memory->length;
	struct file *file;
	long algorithm;
	char *hash;

	if (policy_hash_program) {
		struct linux_binprm *program = policy_trusted(ctx, policy_hash_index);

		file = program ? program->file : NULL;
	} else {
		file = policy_trusted(ctx, policy_hash_index);
	}
	if (!file || at > POLICY_EVENT_BYTES - 128 || !policy_may_hash(memory, file))
		return;
	head = (void *)&memory->event[at];
	at += sizeof(*head);
	/* The hash may be shorter than the buffer. */
	hash = &memory->event[at + 1];
	__builtin_memset(hash, 0, POLICY_HASH_BYTES);
	algorithm = bpf_ima_file_hash(file, hash, POLICY_HASH_BYTES);
	if (algorithm < 0)
		return;
	head->slot = POLICY_HASH_SLOT;
	head->lacks = POLICY_STRING << POLICY_TYPE_SHIFT;
	head->length = 1 + POLICY_HASH_BYTES;
	memory->event[at] = algorithm;
	memory->length = at + 1 + POLICY_HASH_BYTES;
	((struct policy_event *)memory->event)->values++;
}

/* Fills in the event's data about the current process. False: the process is not selected. */
static __noinline bool policy_describe(struct policy_event *event, __u64 cgroup)
{
	struct task_struct *task = gadget_task();
	bool wanted = gadget_wanted_cgroup(&event->record, cgroup) && gadget_wanted_task(task);

	/* If sockets are tracked, this process may become the owner of one even if it is not selected. */
	if (!wanted && !policy_tracks_sockets)
		return false;
	gadget_describe(&event->record, task, cgroup);
	gadget_exec_of(&event->exec, task);
	gadget_exec_of_parent(&event->parent, task);
	gadget_describe_credentials(&event->credentials, task);
	gadget_describe_namespaces(&event->namespaces, task);
	return wanted;
}

/* Fills in the rest of the event, after `policy_describe()`. */
static __always_inline void policy_complete(struct policy_memory *memory, void *ctx, __s32 verdict, __u32 signal)
{
	struct policy_event *event = (void *)memory->event;

	event->hook = policy_hook;
	event->verdict = verdict;
	event->signal = signal;
	event->words = policy_words;
	event->file_id = policy_follows_files ? memory->file_id : 0;
	event->kernel_stack = event->user_stack = GADGET_NO_STACK;
	if (policy_stacks && policy_is_any(memory, POLICY_MASK_KERNEL_STACK))
		event->kernel_stack = gadget_kernel_stack(ctx, GADGET_BEGINS_HERE);
	if (policy_stacks && policy_is_any(memory, POLICY_MASK_USER_STACK))
		event->user_stack = gadget_user_stack(ctx);
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		*(__u64 *)&memory->event[sizeof(*event) + i * 8] = memory->chosen[i];
	if (policy_hash_index >= 0 && policy_is_any(memory, POLICY_MASK_HASH))
		policy_append_hash(memory, ctx);
}

static __always_inline void policy_emit(struct policy_memory *memory)
{
	__u64 length = memory->length;

	if (length <= POLICY_EVENT_BYTES)
		gadget_emit((void *)memory->event, length, memory->cuts);
}
