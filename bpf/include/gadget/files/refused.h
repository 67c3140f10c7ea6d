/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The file or directory whose owner and mode refused a call (EACCES, EPERM): the kernel asks for a capability only
 * after the mode was not enough, so its answer names the very inode, which may be a directory on the way.
 *
 * A gadget keeps a struct gadget_refused in its state of the thread (GADGET_REFUSED), and its YAML lists the programs
 * permission_refused and thread_ends. Refusals by other means (LSMs, mount options, immutable files) are not noted.
 *
 * A thread may make other calls that are refused, such as access(). So a note counts only for the call in which it was
 * made, which is recognized by its number and arguments.
 */
#pragma once

#include <gadget/path.h>
#include <gadget/processes/thread_state.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/fs.h>
#include <kernel/privilege.h>

#define GADGET_REFUSED_NAME_BYTES 254

struct gadget_refused {
	__u64 arguments[3];
	__s32 call;
	__u32 owner;
	__u32 group;
	__u32 mode;
	/* The last component of its path; "/" for a root. With a slash at the end: a directory. */
	char name[GADGET_REFUSED_NAME_BYTES + 2];
};

/* The members of a record. ~0: nothing was noted. */
#define GADGET_REFUSED_FIELDS                                                                                          \
	gadget_new_mode refused_mode;                                                                                  \
	gadget_new_owner refused_owner;                                                                                \
	gadget_new_owner refused_group;                                                                                \
	gadget_string refused_name;                                                                                    \
	__u32 unused_of_refused

static __always_inline void gadget_read_call(struct gadget_refused *refused)
{
	struct pt_regs *registers = gadget_registers(gadget_task());

	refused->call = gadget_syscall_number(registers);
	refused->arguments[0] = GADGET_REGISTER(registers, GADGET_ARGUMENT_0);
	refused->arguments[1] = GADGET_REGISTER(registers, GADGET_ARGUMENT_1);
	refused->arguments[2] = GADGET_REGISTER(registers, GADGET_ARGUMENT_2);
}

static __always_inline void gadget_note_refused(struct gadget_refused *refused, struct inode *inode)
{
	void *alias = BPF_CORE_READ(inode, i_dentry.first);
	struct dentry *dentry = alias - bpf_core_field_offset(struct dentry, d_u.d_alias);
	long length = 0;
	__u64 end;

	gadget_read_call(refused);
	refused->owner = BPF_CORE_READ(inode, i_uid.val);
	refused->group = BPF_CORE_READ(inode, i_gid.val);
	refused->mode = BPF_CORE_READ(inode, i_mode);
	refused->name[0] = 0;
	if (alias)
		length = bpf_probe_read_kernel_str(refused->name, GADGET_REFUSED_NAME_BYTES,
						   BPF_CORE_READ(dentry, d_name.name));
	if ((refused->mode & S_IFMT) != S_IFDIR || length <= 1 || refused->name[0] == '/')
		return;
	/* The verifier does not carry the comparison over to the index. */
	end = length;
	asm volatile("" : "+r"(end));
	end &= 255;
	if (end > GADGET_REFUSED_NAME_BYTES)
		return;
	refused->name[(end - 1) & 255] = '/';
	refused->name[end] = 0;
}

/* True if the note was made in the current call. */
static __always_inline bool gadget_is_of_this_call(const struct gadget_refused *refused)
{
	struct gadget_refused now;

	gadget_read_call(&now);
	return refused->mode && refused->call == now.call && refused->arguments[0] == now.arguments[0] &&
	       refused->arguments[1] == now.arguments[1] && refused->arguments[2] == now.arguments[2];
}

static __always_inline bool gadget_has_idmap_argument(void)
{
	/* Since 5.12 (0558c1bf5a08 "capability: handle idmapped mounts"); another type since 6.3. */
	return bpf_core_field_exists(((struct vfsmount___idmapped *)0)->mnt_idmap) ||
	       bpf_core_field_exists(((struct vfsmount___userns *)0)->mnt_userns);
}

/* In assembly, since the verifier accepts only a constant offset from the context. */
#define GADGET_CONTEXT_WORD(CTX, OFFSET)                                                                               \
	({                                                                                                             \
		__u64 word;                                                                                            \
                                                                                                                       \
		asm volatile("%0 = *(u64 *)(%1 + " #OFFSET ")" : "=r"(word) : "r"(CTX));                               \
		word;                                                                                                  \
	})

/* Defines the state STATE of threads, which has the member `refused`, and permission_refused. */
#define GADGET_REFUSED(STATE)                                                                                          \
	GADGET_THREAD_STATE(STATE);                                                                                    \
                                                                                                                       \
	static __always_inline int gadget_permission_answered(struct inode *inode, __u64 is_granted)                   \
	{                                                                                                              \
		struct gadget_record marks;                                                                            \
		struct STATE *state = gadget_thread_state();                                                           \
                                                                                                                       \
		/* The first of two capabilities may have been refused. */                                             \
		if ((__u8)is_granted) {                                                                                \
			if (state)                                                                                     \
				state->refused.mode = 0;                                                               \
			return 0;                                                                                      \
		}                                                                                                      \
		if (!state && gadget_wanted_cgroup(&marks, gadget_current_cgroup()))                                   \
			state = gadget_make_thread_state();                                                            \
		if (state)                                                                                             \
			gadget_note_refused(&state->refused, inode);                                                   \
		return 0;                                                                                              \
	}                                                                                                              \
                                                                                                                       \
	SEC("fexit/capable_wrt_inode_uidgid")                                                                          \
	int permission_refused(__u64 *ctx)                                                                             \
	{                                                                                                              \
		struct inode *inode;                                                                                   \
		__u64 is_granted;                                                                                      \
                                                                                                                       \
		if (gadget_has_idmap_argument()) {                                                                     \
			inode = (struct inode *)GADGET_CONTEXT_WORD(ctx, 8);                                           \
			is_granted = GADGET_CONTEXT_WORD(ctx, 24);                                                     \
		} else {                                                                                               \
			inode = (struct inode *)GADGET_CONTEXT_WORD(ctx, 0);                                           \
			is_granted = GADGET_CONTEXT_WORD(ctx, 16);                                                     \
		}                                                                                                      \
		return gadget_permission_answered(inode, is_granted);                                                  \
	}                                                                                                              \
	struct gadget_thread_entry

/* Sets these members. NOTE is NULL if there is none. */
#define gadget_no_refused(ROW)                                                                                         \
	({                                                                                                             \
		(ROW)->refused_mode = (ROW)->refused_owner = (ROW)->refused_group = ~0ULL;                             \
		(ROW)->unused_of_refused = 0;                                                                          \
		gadget_no_text(&(ROW)->refused_name);                                                                  \
	})
#define gadget_append_refused(WRITER, ROW, NOTE)                                                                       \
	({                                                                                                             \
		const struct gadget_refused *note = NOTE;                                                              \
                                                                                                                       \
		gadget_no_refused(ROW);                                                                                \
		if (note && gadget_is_of_this_call(note)) {                                                            \
			(ROW)->refused_mode = note->mode & 07777;                                                      \
			(ROW)->refused_owner = note->owner;                                                            \
			(ROW)->refused_group = note->group;                                                            \
			if (note->name[0])                                                                             \
				gadget_append_kernel_string(WRITER, &(ROW)->refused_name, note->name,                  \
							    GADGET_REFUSED_NAME_BYTES);                                \
		}                                                                                                      \
	})
