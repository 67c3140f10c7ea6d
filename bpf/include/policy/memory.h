/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The maps of the engine, and the memory that one run of a program works in.
 *
 * Maps whose values are sets of selectors have their size set by the agent. Those that agent/policies/hooks/hook.py
 * names as SHARED are the same for all hooks. The trap: security modules' programs may be preempted by themselves, so
 * memory is taken by slot (gadget/slots.h).
 */
#pragma once

#include <gadget/output.h>
#include <gadget/slots.h>
#include <policy/config.h>

/* Where texts end in their memory. */
#define POLICY_TEXT_END 4096
#define POLICY_KEY_BYTES 255
#define POLICY_EVENT_BYTES 12288
#define POLICY_OWNER_BYTES 512
#define POLICY_NUMBERS 12
#define POLICY_PATTERN_BYTES 256
#define POLICY_STACK 16
#define POLICY_OPERATIONS 64
#define POLICY_GLOB_WORDS 4
#define POLICY_FUNCTION_BYTES 128
#define POLICY_ASSIGNMENTS 9

/* What a slot has been read to. */
struct policy_value {
	/* Those that the type has are set (policies/compiler/matches.py has the meaning). */
	__u64 numbers[POLICY_NUMBERS];
	__u8 addresses[2][16];
	/* Where the text begins; it ends at POLICY_TEXT_END, and there is a NUL before and behind it. */
	__u64 start;
	/* Why there is no value, or not all of it: enum policy_lack. */
	__u64 lacks;
	/* The file or the socket that was read; 0: none. */
	__u64 file;
};

enum policy_lack {
	POLICY_UNREADABLE = 1,
	POLICY_CUT = 2,
	/* Never sent: the call was made for another one, which was asked already. */
	POLICY_REPEATED = 4,
};

struct policy_prefix {
	__u32 bits;
	__u8 test;
	__u8 data[POLICY_KEY_BYTES];
};

struct policy_walk {
	struct dentry *dentry;
	struct mount *mount;
	struct dentry *mount_root;
};

struct policy_memory {
	/* Selectors that no filter has refused yet. */
	__u64 alive[POLICY_WORDS];
	/* Of each policy, the first of them. */
	__u64 chosen[POLICY_WORDS];
	__u64 found[POLICY_WORDS];
	__u64 low;
	__u64 high;
	/* Bytes of the event so far. */
	__u64 length;
	__u64 cuts;
	/* Of the file that is followed, if there is one. */
	__u64 file_id;
	/* Of each slot. */
	__u64 files[POLICY_SLOTS];
	/* The socket that has no owner any more after this event; 0: none. */
	__u64 forgotten;
	/* A struct policy_owner (sockets.h): of a socket that is tracked from now on. */
	__u64 owner[POLICY_OWNER_BYTES / 8];
	/* How many bytes of each slot's text are in the event. */
	__u64 sent[POLICY_SLOTS];
	/* Of slots that are numbers, and those of them that are not known, as bits. */
	__u64 slot_numbers[POLICY_SLOTS];
	__u64 unknown;
	/* Of an expression. */
	__u64 stack[POLICY_STACK];
	__u64 depth;
	/* Of an automaton. */
	__u64 states[POLICY_GLOB_WORDS];
	struct policy_value value;
	struct policy_walk walk;
	struct policy_prefix prefix;
	/* Its beginning, and zeros. */
	struct policy_prefix shorter;
	char text[2 * POLICY_TEXT_END];
	char event[POLICY_EVENT_BYTES];
};

GADGET_SLOTS(policy_memory, sizeof(struct policy_memory));

/* A cgroup's profile: which policies apply there. Bit 31: a container's, which cgroups below it inherit. Bit 30: a
 * pod's sandbox, in which the runtime's own start is left alone. */
#define POLICY_INHERITED 0x80000000
#define POLICY_SANDBOX 0x40000000
#define POLICY_PROFILE (~(POLICY_INHERITED | POLICY_SANDBOX))
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} policy_containers SEC(".maps");

/* The selectors of each profile. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__uint(key_size, 4);
	__uint(value_size, 8);
} policy_profiles SEC(".maps");

/* For each test two sets: selectors whose filter is negated, and selectors that have no such filter. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 16);
} policy_planes SEC(".maps");

/* Sets that a hook has once: enum policy_mask. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__uint(key_size, 4);
	__uint(value_size, 8);
} policy_masks SEC(".maps");

enum policy_mask {
	/* The bit behind each policy's selectors, and all that are not used. */
	POLICY_MASK_GUARD,
	/* The first bit of each policy. */
	POLICY_MASK_START,
	POLICY_MASK_POST,
	POLICY_MASK_OVERRIDE,
	POLICY_MASK_SIGNAL,
	POLICY_MASK_LIMIT,
	/* Always empty. */
	POLICY_MASK_NONE,
	POLICY_MASK_FOLLOW,
	POLICY_MASK_UNFOLLOW,
	POLICY_MASK_KERNEL_STACK,
	POLICY_MASK_USER_STACK,
	POLICY_MASK_HASH,
	POLICY_MASK_TRACK,
	POLICY_MASK_UNTRACK,
	POLICY_MASK_SET,
};

struct policy_number_key {
	__u32 test;
	/* Of a file, else 0. */
	__u32 device;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct policy_number_key));
	__uint(value_size, 8);
} policy_numbers SEC(".maps");

/* Files by device and inode, which the agent finds. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__uint(key_size, sizeof(struct policy_number_key));
	__uint(value_size, 8);
} policy_files SEC(".maps");

/* Sorted numbers; `policy_intervals` has one set more than a test has bounds, for what lies before each and behind. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} policy_bounds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} policy_intervals SEC(".maps");

/*
 * Beginnings of texts, of texts read backwards, and networks. For a program that may sleep the agent makes a hash of
 * it, since Linux 6.12 lets those look up no tries (7.3 does).
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct policy_prefix));
	__uint(value_size, 8);
} policy_prefixes SEC(".maps");

/* The lengths that are in such a hash, as `bits` has them, the longest first. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} policy_lengths SEC(".maps");

/* What has no table; examined one by one. The set follows. */
struct policy_pattern {
	__u64 mask;
	__u64 length;
	char text[POLICY_PATTERN_BYTES];
	__u64 selectors[];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, sizeof(struct policy_pattern) + 8);
} policy_patterns SEC(".maps");

/*
 * Patterns with wildcards, many in one automaton: bit n of its states is that what lies left of the pattern's place n
 * has been read. `step` has the places that a byte leads to, `stay` those where any byte, or all but a slash, is passed
 * over.
 */
struct policy_automaton {
	__u64 start[POLICY_GLOB_WORDS];
	__u64 any[POLICY_GLOB_WORDS];
	__u64 name[POLICY_GLOB_WORDS];
	__u64 step[256][POLICY_GLOB_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_automaton);
} policy_automata SEC(".maps");

/* Postfix; policies/compiler/encoding/postfix.py has the numbers. */
struct policy_operation {
	__u8 code;
	__u8 slot;
	__u16 unused;
	__u32 unused2;
	__u64 number;
};

/* The set follows. */
struct policy_expression {
	__u64 length;
	struct policy_operation operations[POLICY_OPERATIONS];
	__u64 selectors[];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, sizeof(struct policy_expression) + 8);
} policy_expressions SEC(".maps");

/* What a selector does, by its bit. */
struct policy_action {
	__s32 error;
	__u32 signal;
	/* Rate limit; 0: none. */
	__u64 interval;
	/* Of the limit: 0 global, 1 by process, 2 by thread. */
	__u32 scope;
	/* The slot of the file to follow or to forget. */
	__u32 file;
	/* The slot of the socket to remember or to forget. */
	__u32 socket;
	/* Of a static probe: the argument that is written to, and what. */
	__u32 argument;
	__u64 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_action);
} policy_actions SEC(".maps");

struct policy_limit_key {
	__u32 selector;
	__u32 task;
	__u64 values;
};

/* When a selector posted last. Of as many entries as are used most lately, so a flood can only make more events. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct policy_limit_key);
	__type(value, __u64);
} policy_posted SEC(".maps");

/* Counted per CPU: enum policy_count. */
enum policy_count {
	POLICY_COUNT_RUNS,
	POLICY_COUNT_OVERRIDDEN,
	POLICY_COUNT_SIGNALLED,
	POLICY_COUNT_LIMITED,
	/* No memory was free, so no policy was asked. */
	POLICY_COUNT_UNASKED,
	/* Arguments of static probes that were written to, and that could not be. */
	POLICY_COUNT_SET,
	POLICY_COUNT_UNSET,
	POLICY_COUNTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, POLICY_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} policy_counts SEC(".maps");

static __always_inline void policy_count(__u32 what)
{
	__u64 *count = bpf_map_lookup_elem(&policy_counts, &what);

	if (count)
		gadget_count(count, 1);
}

static __always_inline const __u64 *policy_mask(__u32 which)
{
	return bpf_map_lookup_elem(&policy_masks, &which);
}

/* A register's new value: by enum policy_assignment_kind, registers by their place in struct pt_regs. */
struct policy_assignment {
	__u8 kind;
	__u8 to;
	__u8 to_bytes;
	__u8 from;
	__u8 from_bytes;
	__u8 unused[3];
	__u64 number;
};

struct policy_assignments {
	__u64 count;
	struct policy_assignment one[POLICY_ASSIGNMENTS];
};

/* Of each selector that overrides a program's function. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_assignments);
} policy_assignments SEC(".maps");

/* Of a hook at many functions, their names: by the number of a system call, or by the cookie of each. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, char[POLICY_FUNCTION_BYTES]);
} policy_functions SEC(".maps");

/* What a function was called with, until it returns: by thread, and by where its stack is then. */
struct policy_call_key {
	__u64 thread;
	__u64 stack;
};

struct policy_call {
	__u64 parameters[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct policy_call_key);
	__type(value, struct policy_call);
} policy_calls SEC(".maps");
