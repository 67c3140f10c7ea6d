/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What one hook's program has to do: the values it reads, and the tests that it makes of them. Set before the program
 * is loaded, so the verifier removes the code for what is not there.
 *
 * Every selector of every policy on the hook is one bit, in the order of policies and selectors. A test gives the bits
 * of the selectors whose filter holds. The trap: the numbers here are those of
 * kubectl_gadget/policies/compiler/encoding/comparison_tables.py.
 */
#pragma once

#include <gadget/record.h>

#define POLICY_SLOTS 24
#define POLICY_TESTS 64
/* Of 64 bits each. */
#define POLICY_WORDS 64
#define POLICY_STEPS 6

enum policy_type {
	POLICY_NUMBER = 1,
	POLICY_STRING,
	POLICY_BUFFER,
	POLICY_FILE,
	POLICY_PATH,
	POLICY_FD,
	POLICY_DENTRY,
	POLICY_BINPRM,
	POLICY_SOCK,
	POLICY_SOCKET,
	POLICY_SOCKADDR,
	POLICY_CRED,
	POLICY_KIOCB,
	POLICY_USER_NAMESPACE,
	POLICY_MODULE,
	POLICY_BPF_MAP,
	POLICY_BPF_PROGRAM,
	POLICY_NET_DEVICE,
	POLICY_SKB,
	POLICY_CAPABILITY_SET,
	POLICY_DATA_LOC,
	POLICY_IOVEC,
	POLICY_IOV_ITER,
	POLICY_LOAD_INFO,
	POLICY_BPF_ATTR,
	POLICY_PERF_EVENT,
	/* Of the process. */
	POLICY_PID,
	POLICY_BINARY,
	POLICY_PARENT_BINARY,
	POLICY_NAMESPACES,
	POLICY_CAPABILITIES,
	POLICY_NAMESPACE_CHANGES,
	POLICY_CAPABILITY_CHANGES,
	/* Nothing but what its tests look up. */
	POLICY_STARTED_BY,
	/* What the set at `index` has and the one at `size_index` has not. */
	POLICY_CAPABILITIES_GAINED,
	/* Nothing but what its tests make of the numbers of other slots, which come before it. */
	POLICY_EXPRESSION,
	/* Which of the functions that the hook stands at was called. */
	POLICY_FUNCTION,
};

enum policy_source {
	/* An argument by its index: of a function, a raw tracepoint, a security hook. */
	POLICY_ARGUMENT = 1,
	/* An argument of the system call whose registers are the function's first argument. */
	POLICY_SYSCALL_ARGUMENT,
	/* At `index` bytes of the context: the field of a tracepoint. */
	POLICY_CONTEXT,
	/* What the function returned. */
	POLICY_RETURN,
	/* The current task. */
	POLICY_TASK,
	/* The registers at the probe. */
	POLICY_REGISTERS,
	/* The address of that place of the context. */
	POLICY_CONTEXT_ADDRESS,
	/* The caller's registers, at a system call. */
	POLICY_CALL_REGISTERS,
};

enum policy_flag {
	POLICY_SIGNED = 1,
	/* A pointer into the caller's memory. */
	POLICY_USER = 2,
	/* The steps end at the value's address, not at the value. */
	POLICY_EMBEDDED = 4,
	/* Only tests want it. */
	POLICY_UNSENT = 8,
	/* Of a buffer: its size is what the function returned. */
	POLICY_RETURNED_SIZE = 16,
	/* Of a system call's number: bit 31 says that a 32-bit program makes it. */
	POLICY_OF_CALL = 32,
	/* Of a buffer: what does not fit into the event's memory is sent as well (policy/whole.h). */
	POLICY_WHOLE = 64,
	/* A socket that the hook makes: it is not asked for its owner. */
	POLICY_NEW_SOCKET = 128,
};

struct policy_slot {
	__u8 type;
	__u8 source;
	__u8 flags;
	/* Of a number, in bytes. */
	__u8 size;
	/* Of capabilities, 1: unreadable in the node's user namespace. */
	__u16 index;
	/* Of a buffer: the index of the argument that has its size. */
	__u16 size_index;
	__u16 first_test;
	__u16 tests;
	/* Of `step`. */
	__u32 steps;
	/* Offsets that a path of fields leads along; each is followed by a load. */
	__u32 step[POLICY_STEPS];
};

enum policy_class {
	/* The number is in a set. */
	POLICY_IN_SET = 1,
	/* The number lies in some intervals. */
	POLICY_IN_INTERVAL,
	/* The number has one of some bits. */
	POLICY_MASK,
	/* The text begins so; with its NUL: is so. */
	POLICY_PREFIX,
	POLICY_POSTFIX,
	POLICY_SUBSTRING,
	/* An address lies in some networks. */
	POLICY_NETWORK,
	/* The process or one of its ancestors has a number of a set. */
	POLICY_DESCENDS,
	/* The process or an ancestor has run a program whose number is in a set. */
	POLICY_RAN,
	/* The text matches a pattern with wildcards. */
	POLICY_GLOB,
	/* An expression over numbers is true. */
	POLICY_COMPUTED,
	/* The file is one of some, by device and inode. */
	POLICY_SAME_FILE,
	/* The namespace's number is in a set, or it is the node's own and that is in the set. */
	POLICY_IN_NAMESPACE,
};

enum policy_test_flag {
	/* The number is signed, and its order is that of signed numbers. */
	POLICY_BIASED = 1,
	/* Of a mode, the type alone. */
	POLICY_FILE_TYPE = 2,
};

struct policy_test {
	__u8 class;
	/* Which number or address of the value. */
	__u8 part;
	__u16 flags;
	/* Where its bounds or patterns begin, and how many there are. */
	__u32 first;
	__u32 count;
	__u32 first_interval;
};

const volatile __u32 policy_hook = 0;
/* Words of each set of selectors. */
const volatile __u32 policy_words = 1;
const volatile __u32 policy_slot_count = 0;
const volatile struct policy_slot policy_slots[POLICY_SLOTS] = {};
const volatile struct policy_test policy_tests[POLICY_TESTS] = {};
/* None of these is examined when no selector has it. */
const volatile bool policy_overrides = false;
const volatile bool policy_signals = false;
const volatile bool policy_limits = false;
/* Files are followed, by this hook or another. */
const volatile bool policy_follows_files = false;
const volatile bool policy_stacks = false;
/* Programs' memory is written to. */
const volatile bool policy_sets = false;
/* Sockets are whose who made them: the policies at this hook have an action that says so. */
const volatile bool policy_tracks_sockets = false;
/* Of events with whole buffers that may be under way; 0: there are none such. */
const volatile __u32 policy_rooms_count = 0;
/* Which argument of a security hook is the file whose hash is sent; -1: none. And whether that is a linux_binprm. */
const volatile __s32 policy_hash_index = -1;
const volatile bool policy_hash_program = false;
/* The program may sleep: `policy_prefixes` is not a trie, and the lengths of what is in there are tried. */
const volatile bool policy_tries_lengths = false;
/* At the raw tracepoints of all system calls: which one is meant; -1: any. And whether 32-bit programs' are, or others.
 */
const volatile __s32 policy_syscall = -1;
const volatile bool policy_compat = false;
