// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace tty: emits one `struct trace_tty` for each call with which a process writes to a terminal and, on request, for
 * each read. The client joins them to lines (kubectl_gadget/protocols/tty.py).
 *
 * Hooks: the exits of the system calls that write and read; for io_uring, the tracepoint where requests complete, and
 * the one where they are submitted for requests that may complete silently or in parts. A pseudo-terminal has two ends,
 * and the program at the master end (the container's shim, sshd) reads and writes the same bytes, so the master end is
 * ignored.
 */
#include <gadget/files/open_file.h>
#include <gadget/files/uring_file.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/fs.h>
#include <kernel/tty.h>

#define MOST_DATA_BYTES 4096
#define PIECES 16
#define UNKNOWN (~0ULL)

typedef struct gadget_text gadget_terminal_text;
enum direction { OUTPUT = 1, INPUT };

struct trace_tty {
	struct gadget_record record;
	/* The number of bytes written or read; ~0: the kernel does not report it. If it is more than MOST_DATA_BYTES,
	 * the text is incomplete; if the data came from a file (sendfile), there is no text. */
	gadget_bytes bytes;
	char terminal[16];
	enum direction direction;
	gadget_terminal_text text;
};

GADGET_RECORD(trace_tty);

/* Room for twice the data: the verifier does not see that a piece is not longer than the rest. */
#define TTY_BYTES GADGET_ROOM(sizeof(struct trace_tty) + 2 * MOST_DATA_BYTES)

GADGET_SCRATCH(scratch, TTY_BYTES);
GADGET_SCRATCH(uring_write_scratch, TTY_BYTES);
GADGET_SCRATCH(uring_read_scratch, TTY_BYTES);

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

/* NULL: not a terminal, or its master end. */
static __always_inline struct tty_struct *terminal_of(struct file *file)
{
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

/* An operation on a terminal, and the program's memory that it uses. */
struct transfer {
	enum direction direction;
	/* The number of bytes written or read; when a request is submitted, the requested number. */
	__s64 bytes;
	struct file *file;
	const void *from;
	/* `from` is an array of this many struct piece; 0: it points to the data itself. */
	__u64 pieces;
	/* It is unknown whether the operation was carried out. */
	bool is_uncertain;
};

/* NULL: not wanted. */
static __always_inline struct trace_tty *begin(struct trace_tty *row, const struct transfer *transfer)
{
	struct tty_struct *tty;

	if (transfer->bytes <= 0 || !row || !gadget_begin(&row->record))
		return NULL;
	tty = terminal_of(transfer->file);
	if (!tty)
		return NULL;
	__builtin_memset(row->terminal, 0, sizeof(row->terminal));
	bpf_core_read_str(row->terminal, sizeof(row->terminal), &tty->name);
	row->direction = transfer->direction;
	row->bytes = transfer->is_uncertain ? UNKNOWN : transfer->bytes;
	gadget_no_text(&row->text);
	return row;
}

static __always_inline int one(void *memory, const struct transfer *transfer)
{
	struct trace_tty *row = begin(memory, transfer);
	struct gadget_writer writer;

	if (!row)
		return 0;
	writer = gadget_write(row, sizeof(*row), TTY_BYTES);
	gadget_append_user_bytes(&writer, &row->text, transfer->from, transfer->bytes, MOST_DATA_BYTES);
	gadget_send(&writer);
	return 0;
}

/* Reads one piece of the program's array. */
static __always_inline bool read_piece(struct piece *piece, const struct piece *from, __u32 index)
{
	__u32 compat[2];

	if (!gadget_has_short_pointers())
		return !bpf_probe_read_user(piece, sizeof(*piece), from + index);
	if (bpf_probe_read_user(compat, sizeof(compat), (const void *)from + index * sizeof(compat)))
		return false;
	piece->base = (const void *)(__u64)compat[0];
	piece->length = compat[1];
	return true;
}

/* False: there are no more. `left` is the number of bytes still to come. */
static __noinline bool append_piece(struct trace_tty *row, const struct piece *from, __u32 index, __u64 left)
{
	struct gadget_progress *progress = (void *)row + TTY_BYTES;
	__u64 used = progress->length - sizeof(*row);
	struct piece piece;
	__u64 bytes;

	/* Keeps the compiler from comparing the length instead, since then the verifier does not know the bounds of
	 * `used`. */
	asm volatile("" : "+r"(used));
	if (used >= MOST_DATA_BYTES || !read_piece(&piece, from, index))
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

static __always_inline int several(void *memory, const struct transfer *transfer)
{
	struct trace_tty *row = begin(memory, transfer);
	__s64 result = transfer->bytes;
	struct gadget_writer writer;
	__u64 written;

	if (!row)
		return 0;
	writer = gadget_write(row, sizeof(*row), TTY_BYTES);
	for (int i = 0; i < PIECES; i++) {
		__u64 done = writer.progress->length - sizeof(*row);

		if (i >= transfer->pieces || done >= result || !append_piece(row, transfer->from, i, result - done))
			break;
	}
	written = writer.progress->length - sizeof(*row);
	if (written)
		gadget_wrote(&writer, &row->text, sizeof(*row), written, written < result);
	else
		gadget_unread(&row->text);
	/* Keeps the compiler from comparing another register than the one that it passes on, which the verifier of
	 * Linux 6.12 does not accept. */
	asm volatile("" ::: "memory");
	gadget_send(&writer);
	return 0;
}

#define ON_ONE(CALL, DIRECTION)                                                                                        \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		struct transfer transfer = {.direction = DIRECTION, .bytes = result};                                  \
                                                                                                                       \
		transfer.file = gadget_file_of(gadget_argument(registers, 0));                                         \
		transfer.from = (const void *)gadget_argument(registers, 1);                                           \
		return one(gadget_scratch(&scratch), &transfer);                                                       \
	}

#define ON_SEVERAL(CALL, DIRECTION)                                                                                    \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		struct transfer transfer = {.direction = DIRECTION, .bytes = result};                                  \
                                                                                                                       \
		transfer.file = gadget_file_of(gadget_argument(registers, 0));                                         \
		transfer.from = (const void *)gadget_argument(registers, 1);                                           \
		transfer.pieces = gadget_argument(registers, 2);                                                       \
		return several(gadget_scratch(&scratch), &transfer);                                                   \
	}

ON_ONE(write, OUTPUT)
ON_ONE(read, INPUT)
ON_SEVERAL(writev, OUTPUT)
ON_SEVERAL(readv, INPUT)

/* For data that is moved between files and does not pass through the process's memory. */
static __always_inline int unseen(void *memory, const struct transfer *transfer)
{
	struct trace_tty *row = begin(memory, transfer);

	if (row)
		gadget_emit(&row->record, sizeof(*row), 0);
	return 0;
}

GADGET_ON_EXIT(sendfile64)
{
	struct transfer transfer = {.direction = OUTPUT, .bytes = result};

	transfer.file = gadget_file_of(gadget_argument(registers, 0));
	return unseen(gadget_scratch(&scratch), &transfer);
}

GADGET_ON_EXIT(splice)
{
	struct transfer transfer = {.direction = OUTPUT, .bytes = result};

	transfer.file = gadget_file_of(gadget_argument(registers, 2));
	return unseen(gadget_scratch(&scratch), &transfer);
}

static __always_inline bool is_vector(__u8 opcode)
{
	return opcode == IORING_OP_WRITEV || opcode == IORING_OP_WRITEV_FIXED || opcode == IORING_OP_READV ||
	       opcode == IORING_OP_READV_FIXED;
}

/* Sets the address of the request's data. */
static __always_inline void set_memory(struct transfer *transfer, struct io_kiocb *request, __u8 opcode)
{
	struct io_rw *moves = (struct io_rw *)request;

	transfer->from = (const void *)BPF_CORE_READ(moves, addr);
	if (is_vector(opcode))
		transfer->pieces = BPF_CORE_READ(moves, len);
}

static __always_inline bool uring_writes(__u8 opcode)
{
	return opcode == IORING_OP_SPLICE || gadget_uring_kind_of(opcode) == GADGET_URING_WRITES;
}

/* The bytes of a splice are not in the program's memory; the request's file is the destination. */
static __always_inline int uring_written(void *memory, struct transfer *transfer, struct io_kiocb *request, __u8 opcode)
{
	if (opcode == IORING_OP_SPLICE)
		return unseen(memory, transfer);
	set_memory(transfer, request, opcode);
	return transfer->pieces ? several(memory, transfer) : one(memory, transfer);
}

SEC("tp_btf/io_uring_complete")
int uring_write_ends(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__u8 opcode = BPF_CORE_READ(request, opcode);
	struct transfer transfer = {.direction = OUTPUT, .bytes = gadget_uring_result(ctx)};

	if (!uring_writes(opcode))
		return 0;
	transfer.file = BPF_CORE_READ(request, file);
	return uring_written(gadget_scratch(&uring_write_scratch), &transfer, request, opcode);
}

SEC("tp_btf/io_uring_complete")
int uring_read_ends(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__u8 opcode = BPF_CORE_READ(request, opcode);
	struct transfer transfer = {.direction = INPUT, .bytes = gadget_uring_result(ctx)};
	void *memory = gadget_scratch(&uring_read_scratch);

	if (gadget_uring_kind_of(opcode) != GADGET_URING_READS || opcode == IORING_OP_READ_MULTISHOT)
		return 0;
	transfer.file = BPF_CORE_READ(request, file);
	set_memory(&transfer, request, opcode);
	return transfer.pieces ? several(memory, &transfer) : one(memory, &transfer);
}

/* A request that does not report success may transfer data, but the kernel does not report how much. */
static __always_inline int uring_write_begins(struct io_kiocb *request)
{
	struct transfer transfer = {.direction = OUTPUT, .is_uncertain = true};
	__u8 opcode = request->opcode;

	if (!uring_writes(opcode) || !(BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS))
		return 0;
	transfer.file = gadget_uring_file_of(request);
	/* For several pieces, only the lengths of the pieces limit it. */
	transfer.bytes = MOST_DATA_BYTES;
	if (opcode != IORING_OP_SPLICE && !is_vector(opcode))
		transfer.bytes = BPF_CORE_READ((struct io_rw *)request, len);
	return uring_written(gadget_scratch(&uring_write_scratch), &transfer, request, opcode);
}

/* The same for reads; also for a multishot read, which continues until it is cancelled. */
static __always_inline int uring_read_begins(struct io_kiocb *request)
{
	struct transfer transfer = {.direction = INPUT, .bytes = 1, .is_uncertain = true};
	__u8 opcode = request->opcode;

	if (gadget_uring_kind_of(opcode) != GADGET_URING_READS)
		return 0;
	if (opcode != IORING_OP_READ_MULTISHOT && !(BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS))
		return 0;
	transfer.file = gadget_uring_file_of(request);
	return unseen(gadget_scratch(&uring_read_scratch), &transfer);
}

#define ON_SUBMIT(NAME)                                                                                                \
	SEC("tp_btf/io_uring_submit_req")                                                                              \
	int BPF_PROG(uring_##NAME, struct io_kiocb *request)                                                           \
	{                                                                                                              \
		return uring_##NAME##_begins(request);                                                                 \
	}                                                                                                              \
	SEC("tp_btf/io_uring_submit_sqe")                                                                              \
	int BPF_PROG(uring_##NAME##_sqe, struct io_kiocb *request)                                                     \
	{                                                                                                              \
		return uring_##NAME##_begins(request);                                                                 \
	}

ON_SUBMIT(write)
ON_SUBMIT(read)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
