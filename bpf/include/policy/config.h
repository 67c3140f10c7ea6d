/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The configuration of one hook's program: the values that it reads, and their tests. Set before the program is loaded,
 * so that the verifier removes unused code.
 *
 * Each selector of each policy on the hook has one bit, in the order of policies and selectors. The result of a test is
 * a set of these bits: the selectors whose filter matches. The trap: these numbers must agree with
 * kubectl_gadget/policies/compiler/tables.py.
 */
#pragma once

#include <gadget/record.h>

#define POLICY_SLOTS 24
#define POLICY_TESTS 64
/* Words of 64 bits. */
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
	/* Properties of the process. */
	POLICY_PID,
	POLICY_BINARY,
	POLICY_PARENT_BINARY,
	POLICY_NAMESPACES,
	POLICY_CAPABILITIES,
	POLICY_NAMESPACE_CHANGES,
	POLICY_CAPABILITY_CHANGES,
	/* No value: its tests examine ancestors. */
	POLICY_STARTED_BY,
	/* The capabilities in the set at `index` and not in the set at `size_index`. */
	POLICY_CAPABILITIES_GAINED,
	/* No value: its tests compute with the numbers of earlier slots. */
	POLICY_EXPRESSION,
	/* Which of the hook's functions was called. */
	POLICY_FUNCTION,
};

enum policy_source {
	/* An argument, by its index: of a function, a raw tracepoint or a security hook. */
	POLICY_ARGUMENT = 1,
	/* An argument of a system call, whose registers are the function's first argument. */
	POLICY_SYSCALL_ARGUMENT,
	/* A field of a tracepoint, `index` bytes into the context. */
	POLICY_CONTEXT,
	/* The function's return value. */
	POLICY_RETURN,
	/* The current task. */
	POLICY_TASK,
	/* The address of the registers at the probe. */
	POLICY_REGISTERS,
	/* The address of a field of the context, `index` bytes into it. */
	POLICY_CONTEXT_ADDRESS,
	/* The address of the caller's registers at a system call. */
	POLICY_CALL_REGISTERS,
};

enum policy_flag {
	POLICY_SIGNED = 1,
	/* A pointer into the caller's memory. */
	POLICY_USER = 2,
	/* The value is the address after the last step, not the memory at that address. */
	POLICY_EMBEDDED = 4,
	/* Only tests use the value; it is not sent. */
	POLICY_UNSENT = 8,
	/* For buffers: the size is the function's return value. */
	POLICY_RETURNED_SIZE = 16,
	/* For system call numbers: bit 31 marks calls of 32-bit programs. */
	POLICY_OF_CALL = 32,
	/* For buffers: the part that does not fit into the event's memory is sent as well (policy/whole.h). */
	POLICY_WHOLE = 64,
	/* A socket that the hook creates: its owner is not looked up. */
	POLICY_NEW_SOCKET = 128,
};

struct policy_slot {
	__u8 type;
	__u8 source;
	__u8 flags;
	/* For numbers, in bytes. */
	__u8 size;
	/* For the process's capabilities and for changes, 1: unreadable unless the process is in a user namespace other
	 * than the node's. */
	__u16 index;
	/* For buffers: the index of the argument with the size. */
	__u16 size_index;
	__u16 first_test;
	__u16 tests;
	/* The number of entries in `step`. */
	__u32 steps;
	/* The offset of each field on the way to the value; after each, a pointer is loaded. */
	__u32 step[POLICY_STEPS];
};

enum policy_class {
	/* The number is in a set. */
	POLICY_IN_SET = 1,
	/* The number is in one of several intervals. */
	POLICY_IN_INTERVAL,
	/* The number has at least one of the given bits. */
	POLICY_MASK,
	/* The text begins with the pattern; a pattern that ends with a NUL must match the whole text. */
	POLICY_PREFIX,
	POLICY_POSTFIX,
	POLICY_SUBSTRING,
	/* The address is in one of several networks. */
	POLICY_NETWORK,
	/* The PID of the process or of an ancestor is in a set. */
	POLICY_DESCENDS,
	/* The process or an ancestor has run a program with a number in a set. */
	POLICY_RAN,
	/* The text matches a pattern with wildcards. */
	POLICY_GLOB,
	/* An expression over numbers is true. */
	POLICY_COMPUTED,
	/* The file is one of several, by device and inode. */
	POLICY_SAME_FILE,
	/* The namespace's number is in a set, or it is the node's own namespace and the set contains that. */
	POLICY_IN_NAMESPACE,
};

enum policy_test_flag {
	/* The number is signed and compared as such. */
	POLICY_BIASED = 1,
	/* Only the file type of a mode. */
	POLICY_FILE_TYPE = 2,
};

struct policy_test {
	__u8 class;
	/* Which of the value's numbers or addresses. */
	__u8 part;
	__u16 flags;
	/* The first of its bounds or patterns, and how many it has. */
	__u32 first;
	__u32 count;
	__u32 first_interval;
};

const volatile __u32 policy_hook = 0;
/* The number of words in each set of selectors. */
const volatile __u32 policy_words = 1;
const volatile __u32 policy_slot_count = 0;
const volatile struct policy_slot policy_slots[POLICY_SLOTS] = {};
const volatile struct policy_test policy_tests[POLICY_TESTS] = {};
/* False if no selector has such an action; then the code for it is removed. */
const volatile bool policy_overrides = false;
const volatile bool policy_signals = false;
const volatile bool policy_limits = false;
/* This hook or another one follows files. */
const volatile bool policy_follows_files = false;
const volatile bool policy_stacks = false;
/* Some action writes to a program's memory. */
const volatile bool policy_sets = false;
/* A socket belongs to the process that made it, for policies with an action that tracks sockets. */
const volatile bool policy_tracks_sockets = false;
/* The maximum number of events with whole buffers in progress; 0: there are no such events. */
const volatile __u32 policy_large_count = 0;
/* The index of the security hook's argument whose file hash is sent (-1: none), and whether this argument is a
 * linux_binprm. */
const volatile __s32 policy_hash_index = -1;
const volatile bool policy_hash_program = false;
/* The program may sleep; then `policy_prefixes` is a hash map instead of a trie, and each length is looked up. */
const volatile bool policy_tries_lengths = false;
/* At the raw tracepoints of all system calls: the wanted call (-1: any), and whether 32-bit calls are wanted instead of
 * 64-bit calls. */
const volatile __s32 policy_syscall = -1;
const volatile bool policy_compat = false;
