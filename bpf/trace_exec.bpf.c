// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace exec: emits one `struct trace_exec` for each executed program, and for each failed attempt.
 *
 * Hooks: the tracepoint sched_process_exec, where the new program's memory has been set up, and the exits of execve and
 * execveat for failed calls. To tell which file was missing or refused, also security_bprm_check(), where the kernel
 * has read the beginning of a file, open_exec(), which opens interpreters, and where permissions are checked
 * (gadget/files/refused.h and path_noexec()).
 */
#include <linux/errno.h>

#include <gadget/files/refused.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/processes/runtime.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/tracepoint.h>

/* The maximum size of all arguments together, with their NULs; longer lists are cut. */
#define ARGUMENT_BYTES 16384
/* The maximum number of arguments of a failed attempt, which are read one by one. */
#define ARGUMENTS 64
#define ARGUMENT_LENGTH 4095

#define INTERPRETER_BYTES 254

/* Which file or content made the attempt fail. */
enum {
	/* The path itself. */
	FAILED_ON_PATH = 1,
	/* The interpreter in the first line of a script. */
	FAILED_ON_SHEBANG,
	/* The loader that an ELF file names. */
	FAILED_ON_PT_INTERP,
	/* The interpreter that is registered for this kind of file. */
	FAILED_ON_BINFMT_MISC,
	/* The kernel does not execute such files. */
	FAILED_ON_FORMAT,
};

typedef __u32 gadget_exec_failed_on;

/* By the first bytes of the file. */
enum {
	FORMAT_ELF = 1,
	FORMAT_SCRIPT,
	/* It begins with a printable character. */
	FORMAT_TEXT,
	FORMAT_EMPTY,
	FORMAT_PE,
	FORMAT_MACH_O,
	FORMAT_OTHER,
};

typedef __u32 gadget_exec_format;
/* e_machine of an ELF file. 0: none. */
typedef __u32 gadget_elf_machine;

struct trace_exec {
	struct gadget_record record;
	gadget_errno errno;
	/* The file to be executed, as the caller passed it. */
	gadget_string path;
	gadget_strings args;
	/* The file that the kernel executes: for a script, its interpreter. None if the call failed. */
	gadget_path exe;
	gadget_path cwd;
	/* The members below are of failed attempts, else 0 or missing. */
	gadget_exec_failed_on failed_on;
	/* The interpreter that could not be executed. */
	gadget_string interpreter;
	/* Of a file that the kernel does not execute. */
	gadget_exec_format format;
	gadget_elf_machine machine;
	__u32 unused;
	GADGET_REFUSED_FIELDS;
};

GADGET_RECORD(trace_exec);

/* Path, arguments, exe and cwd. */
#define EXEC_BYTES                                                                                                     \
	GADGET_ROOM(sizeof(struct trace_exec) + GADGET_PATH_BYTES + ARGUMENT_BYTES + 2 * GADGET_PATH_BYTES +           \
		    INTERPRETER_BYTES + GADGET_REFUSED_NAME_BYTES + 4)

/* What is known of the exec of a thread, if it differs from the usual one of an ELF file of this machine. */
struct attempt {
	struct gadget_refused refused;
	__u32 format;
	__u32 machine;
	/* The kernel has read the beginning of the file. */
	bool is_checked;
	/* What the kernel could not open, and the error. */
	__u32 failed_on;
	__s32 error;
	char interpreter[INTERPRETER_BYTES + 2];
};

GADGET_REFUSED(attempt);

GADGET_SCRATCH(exec_scratch, EXEC_BYTES);
GADGET_SCRATCH(failed_scratch, EXEC_BYTES);

#define EM_386 3
#define EM_ARM 40
#define EM_X86_64 62
#define EM_AARCH64 183
#define ET_EXEC 2
#define ET_DYN 3

#if defined(__TARGET_ARCH_x86)
#define EXECVE 59
#define EXECVEAT 322
#define OWN_MACHINE EM_X86_64
#define OTHER_MACHINE EM_386
#else
#define EXECVE 221
#define EXECVEAT 281
#define OWN_MACHINE EM_AARCH64
#define OTHER_MACHINE EM_ARM
#endif

/* include/uapi/linux/elf.h, as far as 32 and 64 bits are the same. */
struct elf_head {
	unsigned char ident[16];
	__u16 type;
	__u16 machine;
};

static __always_inline __u32 format_of(const struct elf_head *head)
{
	__u32 magic = *(const __u32 *)head->ident;
	unsigned char first = head->ident[0];

	if (magic == 0x464c457f)
		return FORMAT_ELF;
	if ((magic & 0xffff) == 0x2123)
		return FORMAT_SCRIPT;
	if ((magic & 0xffff) == 0x5a4d)
		return FORMAT_PE;
	if (magic == 0xfeedface || magic == 0xfeedfacf || magic == 0xbebafeca)
		return FORMAT_MACH_O;
	if (!magic)
		return FORMAT_EMPTY;
	return (first >= ' ' && first < 0x7f) || first == '\n' || first == '\t' || first == '\r' ? FORMAT_TEXT
												 : FORMAT_OTHER;
}

static __always_inline struct attempt *make_attempt(void)
{
	struct attempt *attempt = gadget_thread_state();
	struct gadget_record marks;

	if (attempt || !gadget_wanted_cgroup(&marks, gadget_current_cgroup()))
		return attempt;
	return gadget_make_thread_state();
}

/* For each file of an exec: a script, then its interpreter. A usual file costs nothing but the look at its head. */
SEC("fentry/security_bprm_check")
int BPF_PROG(format_checked, struct linux_binprm *program)
{
	struct elf_head head = {};
	struct attempt *attempt;
	bool is_usual;
	__u32 format;

	bpf_probe_read_kernel(&head, sizeof(head), program->buf);
	format = format_of(&head);
	is_usual = format == FORMAT_ELF && head.machine == OWN_MACHINE && (head.type == ET_EXEC || head.type == ET_DYN);
	attempt = is_usual ? gadget_thread_state() : make_attempt();
	if (!attempt)
		return 0;
	attempt->is_checked = true;
	attempt->format = format;
	attempt->machine = format == FORMAT_ELF ? head.machine : 0;
	return 0;
}

SEC("fexit/open_exec")
int BPF_PROG(interpreter_opened, const char *name, struct file *file)
{
	struct attempt *attempt;
	long result;

	/* An error number if it failed. Copied, since the verifier allows no arithmetic on the pointer. */
	bpf_probe_read_kernel(&result, sizeof(result), &file);
	if (result >= 0 || result < -4095)
		return 0;
	attempt = make_attempt();
	if (!attempt)
		return 0;
	attempt->error = -result;
	if (attempt->is_checked && attempt->format == FORMAT_SCRIPT)
		attempt->failed_on = FAILED_ON_SHEBANG;
	else if (!attempt->is_checked || (attempt->format == FORMAT_ELF &&
					  (attempt->machine == OWN_MACHINE || attempt->machine == OTHER_MACHINE)))
		attempt->failed_on = FAILED_ON_PT_INTERP;
	else
		attempt->failed_on = FAILED_ON_BINFMT_MISC;
	bpf_probe_read_kernel_str(attempt->interpreter, sizeof(attempt->interpreter), name);
	return 0;
}

/* Notes a file without any x bit, for which the kernel asks for no capability, and one of a mount with noexec. The
 * function is also called when a file is mapped. */
SEC("fexit/path_noexec")
int BPF_PROG(noexec_checked, const struct path *path, bool is_noexec)
{
	struct pt_regs *registers = gadget_registers(gadget_task());
	struct inode *inode = BPF_CORE_READ(path, dentry, d_inode);
	__s32 call = gadget_syscall_number(registers);
	struct attempt *attempt;

	if ((call != EXECVE && call != EXECVEAT) || BPF_CORE_READ(inode, i_mode) & 0111)
		return 0;
	attempt = make_attempt();
	if (attempt)
		gadget_note_refused(&attempt->refused, inode);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	struct trace_exec *exec;
	struct gadget_writer writer;
	struct mm_struct *memory;
	struct file *file;
	__u64 start;

	gadget_thread_remove_state((__u64)bpf_get_current_task());
	if (filter_failed || filter_errno)
		return 0;
	exec = gadget_scratch(&exec_scratch);
	if (!exec || !gadget_begin(&exec->record) || gadget_is_runtime_executed())
		return 0;
	memory = task->mm;
	file = memory->exe_file;
	start = memory->arg_start;
	exec->errno = 0;
	exec->failed_on = exec->format = exec->machine = exec->unused = 0;
	gadget_no_text(&exec->interpreter);
	gadget_no_refused(exec);
	writer = gadget_write(exec, sizeof(*exec), EXEC_BYTES);
	gadget_append_kernel_string(&writer, &exec->path, program->filename, GADGET_PATH_BYTES);
	gadget_append_user_bytes(&writer, &exec->args, (const void *)start, memory->arg_end - start, ARGUMENT_BYTES);
	gadget_append_path(&writer, &exec->exe, &file->f_path);
	gadget_append_path(&writer, &exec->cwd, &gadget_read(gadget_task(), fs)->pwd);
	gadget_send(&writer);
	return 0;
}

/* In memory after the record, for the reason given in gadget/string.h. */
struct argument_list {
	__u64 start;
	__u64 end;
};

enum argument {
	ARGUMENT_READ,
	ARGUMENT_WAS_LAST,
	/* It could not be read, or only in part. */
	ARGUMENT_CUT,
};

/* Neither inlined nor static, so that the verifier checks one argument, and not all. `from`: the address of the list.
 */
__noinline int append_argument(__u64 from, __u32 index, __u32 pointer_bytes)
{
	void *record = gadget_scratch(&failed_scratch);
	struct argument_list *list;
	const char *argument = NULL;
	__u64 end;
	long read;

	/* The verifier does not know that it is one or the other. */
	if (pointer_bytes != sizeof(__u32))
		pointer_bytes = sizeof(__u64);
	if (!record || gadget_read_user_pointer(&argument, (const char *const *)from, index, pointer_bytes))
		return ARGUMENT_CUT;
	if (!argument)
		return ARGUMENT_WAS_LAST;
	list = record + EXEC_BYTES + GADGET_WALK_OFFSET;
	end = list->end;
	if (index == ARGUMENTS || end - list->start > ARGUMENT_BYTES - ARGUMENT_LENGTH - 1 ||
	    end > EXEC_BYTES - ARGUMENT_LENGTH - 1)
		return ARGUMENT_CUT;
	read = gadget_read_user_string(record + end, ARGUMENT_LENGTH + 1, argument);
	if (read <= 0)
		return ARGUMENT_CUT;
	list->end = end + read;
	/* An argument of exactly this length also counts as cut. */
	return read > ARGUMENT_LENGTH ? ARGUMENT_CUT : ARGUMENT_READ;
}

/* Reads the arguments one by one: if an exec fails, the kernel may not have copied them to one place. */
static __always_inline void append_arguments(struct gadget_writer *writer, struct gadget_text *text,
					     const char *const *arguments)
{
	struct argument_list *list = writer->record + EXEC_BYTES + GADGET_WALK_OFFSET;
	__u32 pointer_bytes = gadget_pointer_bytes();
	int last = ARGUMENT_CUT;

	gadget_unread(text);
	list->start = list->end = writer->progress->length;
	/* The last turn only finds out whether there are more. */
	for (int i = 0; i <= ARGUMENTS; i++) {
		last = append_argument((__u64)arguments, i, pointer_bytes);
		if (last != ARGUMENT_READ)
			break;
	}
	/* Nothing could be read, which is not the same as an empty list. */
	if (list->end == list->start && last == ARGUMENT_CUT)
		return;
	gadget_wrote(writer, text, list->start, list->end - list->start, last != ARGUMENT_WAS_LAST);
}

/* Without what the programs above have noted, the errors do not tell the path from an interpreter. */
static __always_inline void explain(struct gadget_writer *writer, struct trace_exec *exec,
				    const struct attempt *attempt)
{
	__u32 error = exec->errno;

	if (attempt && attempt->failed_on && attempt->error == error) {
		exec->failed_on = attempt->failed_on;
		gadget_append_kernel_string(writer, &exec->interpreter, attempt->interpreter, INTERPRETER_BYTES);
	} else if (error == ENOEXEC) {
		exec->failed_on = FAILED_ON_FORMAT;
		/* Without a note, it looked like a usual file. */
		exec->format = attempt && attempt->is_checked ? attempt->format : FORMAT_ELF;
		exec->machine = attempt && attempt->is_checked ? attempt->machine : OWN_MACHINE;
	} else if ((error == ENOENT || error == EACCES || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG ||
		    error == EISDIR || error == ETXTBSY) &&
		   (!attempt || !attempt->is_checked)) {
		exec->failed_on = FAILED_ON_PATH;
	}
	if (error == EACCES || error == EPERM)
		gadget_append_refused(writer, exec, attempt ? &attempt->refused : NULL);
}

static __always_inline int failed(long result, const char *path, const char *const *arguments, bool is_explained)
{
	struct trace_exec *exec;
	struct gadget_writer writer;

	exec = gadget_scratch(&failed_scratch);
	if (!exec || !gadget_wanted_result(result) || !gadget_begin_failed_exec(&exec->record))
		return 0;
	exec->errno = -result;
	exec->failed_on = exec->format = exec->machine = exec->unused = 0;
	gadget_no_text(&exec->exe);
	gadget_no_text(&exec->interpreter);
	gadget_no_refused(exec);
	writer = gadget_write(exec, sizeof(*exec), EXEC_BYTES);
	gadget_append_user_string(&writer, &exec->path, path, GADGET_PATH_BYTES);
	append_arguments(&writer, &exec->args, arguments);
	gadget_append_path(&writer, &exec->cwd, &gadget_read(gadget_task(), fs)->pwd);
	if (is_explained)
		explain(&writer, exec, gadget_thread_state());
	gadget_send(&writer);
	return 0;
}

#define FAILED(CALL, PATH, ARGUMENTS)                                                                                  \
	SEC("tracepoint/syscalls/sys_exit_" #CALL)                                                                     \
	int CALL##_failed(struct trace_event_raw_sys_exit *ctx)                                                        \
	{                                                                                                              \
		struct pt_regs *registers = gadget_call_registers(ctx);                                                \
		long result = gadget_result(ctx);                                                                      \
                                                                                                                       \
		if (result >= 0)                                                                                       \
			return 0;                                                                                      \
		failed(result, (void *)gadget_argument(registers, PATH),                                               \
		       (void *)gadget_argument(registers, ARGUMENTS), true);                                           \
		/* What was noted belongs to this call. */                                                             \
		gadget_thread_remove_state((__u64)bpf_get_current_task());                                             \
		return 0;                                                                                              \
	}                                                                                                              \
	/* Where the kernel has no fexit. */                                                                           \
	SEC("tracepoint/syscalls/sys_exit_" #CALL)                                                                     \
	int CALL##_failed_unexplained(struct trace_event_raw_sys_exit *ctx)                                            \
	{                                                                                                              \
		struct pt_regs *registers = gadget_call_registers(ctx);                                                \
		long result = gadget_result(ctx);                                                                      \
                                                                                                                       \
		if (result >= 0)                                                                                       \
			return 0;                                                                                      \
		return failed(result, (void *)gadget_argument(registers, PATH),                                        \
			      (void *)gadget_argument(registers, ARGUMENTS), false);                                   \
	}

FAILED(execve, 0, 1)
FAILED(execveat, 1, 2)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
