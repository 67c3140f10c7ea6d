/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The maps of the engine, and the working memory of one run of a program.
 *
 * The agent sets the value size of maps whose values are sets of selectors. The maps in SHARED of
 * agent/policies/hook.py are the same for all hooks. The trap: an LSM program may be preempted by another run of
 * itself, so memory comes from slots (gadget/slots.h).
 */
#pragma once

#include <gadget/output.h>
#include <gadget/slots.h>
#include <policy/config.h>

/* Where texts end in their buffer. */
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

/* The value that was read for a slot. */
struct policy_value {
	/* Set as far as the type has numbers; wire/record_reader.py has their meaning. */
	__u64 numbers[POLICY_NUMBERS];
	__u8 addresses[2][16];
	/* Where the text begins; it ends at POLICY_TEXT_END, with a NUL before and after it. */
	__u64 start;
	/* Why the value or part of it is missing: enum policy_lack. */
	__u64 lacks;
	/* The file or socket that was read; 0: none. */
	__u64 file;
};

enum policy_lack {
	POLICY_UNREADABLE = 1,
	POLICY_CUT = 2,
	/* Never sent: the hook was called again for a call that was already evaluated. */
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
	/* The selectors that no filter has excluded yet. */
	__u64 alive[POLICY_WORDS];
	/* Of these, the first one of each policy. */
	__u64 chosen[POLICY_WORDS];
	__u64 found[POLICY_WORDS];
	__u64 low;
	__u64 high;
	/* Bytes of the event so far. */
	__u64 length;
	__u64 cuts;
	/* The id of the followed file; 0: none. */
	__u64 file_id;
	/* The file of each slot. */
	__u64 files[POLICY_SLOTS];
	/* The socket whose entry is removed after this event; 0: none. */
	__u64 forgotten;
	/* A struct policy_owner (sockets.h), for a socket that is tracked from now on. */
	__u64 owner[POLICY_OWNER_BYTES / 8];
	/* The number of bytes of each slot's text in the event. */
	__u64 sent[POLICY_SLOTS];
	/* The numbers of slots, and as bits the slots whose number is unknown. */
	__u64 slot_numbers[POLICY_SLOTS];
	__u64 unknown;
	/* The stack of an expression. */
	__u64 stack[POLICY_STACK];
	__u64 depth;
	/* The states of an automaton. */
	__u64 states[POLICY_GLOB_WORDS];
	struct policy_value value;
	struct policy_walk walk;
	struct policy_prefix prefix;
	/* The beginning of the prefix, then zeros. */
	struct policy_prefix shorter;
	char text[2 * POLICY_TEXT_END];
	char event[POLICY_EVENT_BYTES];
};

GADGET_SLOTS(policy_memory, sizeof(struct policy_memory));

/* The profile of each cgroup, which says which policies apply to it. Bit 31: the profile of a container, which cgroups
 * below it inherit. Bit 30: a pod's sandbox, in which the runtime itself is exempt. */
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

/* Two sets for each test: the selectors whose filter is negated, and the selectors without this filter. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 16);
} policy_planes SEC(".maps");

/* Sets of the whole hook: enum policy_mask. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__uint(key_size, 4);
	__uint(value_size, 8);
} policy_masks SEC(".maps");

enum policy_mask {
	/* The bit after each policy's selectors, and all unused bits. */
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
	/* The device of a file, else 0. */
	__u32 device;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct policy_number_key));
	__uint(value_size, 8);
} policy_numbers SEC(".maps");

/* Files by device and inode, filled in by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__uint(key_size, sizeof(struct policy_number_key));
	__uint(value_size, 8);
} policy_files SEC(".maps");

/* The sorted bounds of all tests. A test with n bounds has n + 1 sets in `policy_intervals`: one for the numbers below
 * each bound, and one for the rest. */
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
 * Prefixes of texts, prefixes of reversed texts (postfixes), and networks. For a program that may sleep, the agent
 * replaces the trie with a hash map, since Linux 6.12 does not allow such programs to look up tries (7.3 does).
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct policy_prefix));
	__uint(value_size, 8);
} policy_prefixes SEC(".maps");

/* The prefix lengths in that hash map, in bits, longest first. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} policy_lengths SEC(".maps");

/* Patterns that cannot be looked up in a map, so they are tried one by one. The pattern's set of selectors follows. */
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
 * Patterns with wildcards, many in one automaton: bit n of its states means that the pattern matches up to position n.
 * `step` has the positions to which a byte leads. At the positions in `any`, every byte is skipped; at those in `name`,
 * every byte except a slash.
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

/* An operation of an expression; policies/compiler/tables.py has the codes. */
struct policy_operation {
	__u8 code;
	__u8 slot;
	__u16 unused;
	__u32 unused2;
	__u64 number;
};

/* The set of selectors follows. */
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

/* The action of a selector, by its bit. */
struct policy_action {
	__s32 error;
	__u32 signal;
	/* Rate limit; 0: none. */
	__u64 interval;
	/* The scope of the limit: 0 global, 1 by process, 2 by thread. */
	__u32 scope;
	/* The slot of the file to follow or to stop following. */
	__u32 file;
	/* The slot of the socket to track or to stop tracking. */
	__u32 socket;
	/* For static probes: the argument to write to, and the new value. */
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

/* When a selector last posted an event with these values. The least recently used entries are dropped, so a flood can
 * cause more events, but cannot hide any. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct policy_limit_key);
	__type(value, __u64);
} policy_posted SEC(".maps");

/* Counters, one of each per CPU: the keys of policy_counts. */
enum policy_count {
	POLICY_COUNT_RUNS,
	POLICY_COUNT_OVERRIDDEN,
	POLICY_COUNT_SIGNALLED,
	POLICY_COUNT_LIMITED,
	/* No slot was free, or the arguments of a call that returns were dropped, so no policy was evaluated. */
	POLICY_COUNT_NOT_EVALUATED,
	/* Writes to arguments of static probes that succeeded, and those that failed. */
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

/* A register's new value: kind (enum policy_assignment_kind) and registers (offsets in struct pt_regs). */
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

/* The assignments of each selector that overrides a function of a program. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_assignments);
} policy_assignments SEC(".maps");

/* The names of functions, for a hook on many: by system call number, or by the function's cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, char[POLICY_FUNCTION_BYTES]);
} policy_functions SEC(".maps");

/* The arguments of a call, stored until it returns: by thread and stack pointer. The least recently used entries are
 * dropped; when such a call returns, it counts as not evaluated. */
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
