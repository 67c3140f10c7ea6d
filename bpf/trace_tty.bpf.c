// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace tty: emits one `struct trace_tty` for each call by which a process writes to a terminal, and, when asked, for
 * each by which it reads from one. The client joins them into lines (kubectl_gadget/views/tty.py).
 *
 * Hooks: the exits of the system calls that write and read. The trap: a pseudo-terminal has two ends, and what the
 * program behind it (the container's shim, sshd) reads and writes at the other one would be the same bytes again.
 */
#include <gadget/open_file.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/fs.h>
#include <kernel/tty.h>

#define MOST_DATA_BYTES 4096
#define PIECES 16

typedef struct gadget_text gadget_terminal_text;
enum direction { OUTPUT = 1, INPUT };

struct trace_tty {
	struct gadget_record record;
	/* Written or read; of more than MOST_DATA_BYTES, and of what came from a file (sendfile), not all is in the
	 * text. */
	gadget_bytes bytes;
	char terminal[16];
	enum direction direction;
	gadget_terminal_text text;
};

GADGET_RECORD(trace_tty);

/* Twice the data: the verifier does not see that a piece is no longer than what is left. */
#define TTY_BYTES GADGET_ROOM(sizeof(struct trace_tty) + 2 * MOST_DATA_BYTES)

GADGET_SCRATCH(scratch, TTY_BYTES);

struct piece {
	const char *base;
	__u64 length;
};

static __always_inline __u32 subtype_of(struct tty_struct *tty)
{
	struct tty_driver *driver = BPF_CORE_READ(tty, driver);
	struct tty_driver___enum *newer = (void *)driver;

	if (bpf_core_field_exists(newer->subtype))
		return BPF_CORE_READ(newer, subtype);
	return BPF_CORE_READ(driver, subtype);
}

/* NULL: it is none, or the other end of one. */
static __always_inline struct tty_struct *terminal_of(long fd)
{
	struct file *file = gadget_file_of(fd);
	struct tty_file_private *opened;
	struct inode *inode;
	struct tty_struct *tty;
	__u32 major;

	if (!file)
		return NULL;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFCHR)
		return NULL;
	major = BPF_CORE_READ(inode, i_rdev) >> 20;
	if (major != TTY_MAJOR && major != TTYAUX_MAJOR && (major < PTY_SLAVES || major >= PTY_SLAVES_END))
		return NULL;
	opened = BPF_CORE_READ(file, private_data);
	tty = BPF_CORE_READ(opened, tty);
	if (!tty || (major == TTYAUX_MAJOR && subtype_of(tty) == PTY_TYPE_MASTER))
		return NULL;
	return tty;
}

/* NULL: not wanted. */
static __always_inline struct trace_tty *begin(enum direction direction, long fd, long result)
{
	struct trace_tty *row = gadget_scratch(&scratch);
	struct tty_struct *tty;

	if (result <= 0 || !row || !gadget_begin(&row->record))
		return NULL;
	tty = terminal_of(fd);
	if (!tty)
		return NULL;
	__builtin_memset(row->terminal, 0, sizeof(row->terminal));
	bpf_core_read_str(row->terminal, sizeof(row->terminal), &tty->name);
	row->direction = direction;
	row->bytes = result;
	gadget_no_text(&row->text);
	return row;
}

static __always_inline int one(enum direction direction, long fd, const void *from, long result)
{
	struct trace_tty *row = begin(direction, fd, result);
	struct gadget_writer writer;

	if (!row)
		return 0;
	writer = gadget_write(row, sizeof(*row), TTY_BYTES);
	gadget_append_user_bytes(&writer, &row->text, from, result, MOST_DATA_BYTES);
	gadget_send(&writer);
	return 0;
}

/* The piece at `place` of the program's array. */
static __always_inline bool read_piece(struct piece *piece, const struct piece *from, __u32 place)
{
	__u32 compat[2];

	if (!gadget_has_short_pointers())
		return !bpf_probe_read_user(piece, sizeof(*piece), from + place);
	if (bpf_probe_read_user(compat, sizeof(compat), (const void *)from + place * sizeof(compat)))
		return false;
	piece->base = (const void *)(__u64)compat[0];
	piece->length = compat[1];
	return true;
}

/* False: that was all. `left` bytes are still to come. */
static __noinline bool append_piece(struct trace_tty *row, const struct piece *from, __u32 place, __u64 left)
{
	struct gadget_progress *progress = (void *)row + TTY_BYTES;
	__u64 used = progress->length - sizeof(*row);
	struct piece piece;
	__u64 bytes;

	/* Or the compiler compares the length itself, and the verifier does not know what is used. */
	asm volatile("" : "+r"(used));
	if (used >= MOST_DATA_BYTES || !read_piece(&piece, from, place))
		return false;
	bytes = piece.length < left ? piece.length : left;
	if (bytes > MOST_DATA_BYTES - used)
		bytes = MOST_DATA_BYTES - used;
	asm volatile("" : "+r"(bytes));
	if (bytes > MOST_DATA_BYTES || bpf_probe_read_user((char *)row + sizeof(*row) + used, bytes, piece.base))
		return false;
	progress->length = sizeof(*row) + used + bytes;
	return true;
}

static __always_inline int several(enum direction direction, long fd, const struct piece *from, __u64 count,
				   long result)
{
	struct trace_tty *row = begin(direction, fd, result);
	struct gadget_writer writer;
	__u64 written;

	if (!row)
		return 0;
	writer = gadget_write(row, sizeof(*row), TTY_BYTES);
	for (int i = 0; i < PIECES; i++) {
		__u64 done = writer.progress->length - sizeof(*row);

		if (i >= count || done >= result || !append_piece(row, from, i, result - done))
			break;
	}
	written = writer.progress->length - sizeof(*row);
	if (written)
		gadget_wrote(&writer, &row->text, sizeof(*row), written, written < result);
	else
		gadget_unread(&row->text);
	/* Or the compiler compares another register than it sends, which the verifier of Linux 6.12 does not follow. */
	asm volatile("" ::: "memory");
	gadget_send(&writer);
	return 0;
}

GADGET_ON_EXIT(write)
{
	return one(OUTPUT, gadget_argument(registers, 0), (const void *)gadget_argument(registers, 1), result);
}

GADGET_ON_EXIT(writev)
{
	return several(OUTPUT, gadget_argument(registers, 0), (const struct piece *)gadget_argument(registers, 1),
		       gadget_argument(registers, 2), result);
}

/* What goes from one file to another does not pass the process's memory. */
static __always_inline int unseen(long fd, long result)
{
	struct trace_tty *row = begin(OUTPUT, fd, result);

	if (row)
		gadget_emit(&row->record, sizeof(*row), 0);
	return 0;
}

GADGET_ON_EXIT(sendfile64)
{
	return unseen(gadget_argument(registers, 0), result);
}

GADGET_ON_EXIT(splice)
{
	return unseen(gadget_argument(registers, 2), result);
}

GADGET_ON_EXIT(read)
{
	return one(INPUT, gadget_argument(registers, 0), (const void *)gadget_argument(registers, 1), result);
}

GADGET_ON_EXIT(readv)
{
	return several(INPUT, gadget_argument(registers, 0), (const struct piece *)gadget_argument(registers, 1),
		       gadget_argument(registers, 2), result);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
