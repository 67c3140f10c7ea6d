// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace fdpass: emits one `struct trace_fdpass` for each file descriptor that is sent over a Unix socket, and one for
 * each that is received.
 *
 * Hooks: the exits of sendmsg, sendmmsg, recvmsg and recvmmsg, whose control messages are read from the program's
 * memory; for io_uring, the tracepoints where requests are submitted and completed, including those that pass a file to
 * another ring (IORING_OP_MSG_RING). Sender, file and socket are recorded at the entry of sendmsg and sendmmsg, since
 * the receiver may have the file before these return. The trap: the key is the file's address, which may be reused
 * after the file is gone.
 */
#include <gadget/files/path_at.h>
#include <gadget/files/uring_file.h>
#include <gadget/map_shares.h>
#include <gadget/network/socket_file.h>
#include <gadget/operation.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/credentials.h>
#include <kernel/fs.h>
#include <kernel/unix_socket.h>

#define NAME_BYTES 255
/* The result of a request that does not report success. */
#define UNKNOWN_RESULT (1L << 40)
#define NO_FILE 0170000
/* include/linux/socket.h */
#define MSG_PEEK 2
/* The maximum number of control messages examined in one message, and of messages in one call of sendmmsg or recvmmsg.
 */
#define CONTROLS 4
#define MESSAGES 8
/* The maximum number of files in transit. One container may have half of them; the receipt of a file that it sends
 * beyond that is shown with the socket's peer credentials, and counts as lost. */
#define IN_TRANSIT 16384

/* The bits of S_IFMT in an inode's mode; all ones: there is no such file. */
typedef __u32 gadget_file_type;

/* How the process at the other end was found. */
enum peer_source {
	PEER_SENDER = 1,
	PEER_CREDENTIALS,
	PEER_RING,
};

struct trace_fdpass {
	struct gadget_record record;
	gadget_operation operation;
	/* The other end; all 0 when it is unknown. */
	gadget_cgroup peer;
	gadget_comm peer_comm;
	gadget_pid peer_pid;
	gadget_uid peer_uid;
	enum peer_source peer_source;
	/* The descriptor's number at the other end; -1: unknown. */
	gadget_fd peer_fd;
	gadget_fd fd;
	gadget_fd socket_fd;
	__u64 socket_inode;
	__u64 inode;
	gadget_file_type type;
	gadget_open_flags flags;
	gadget_errno errno;
	gadget_path path;
	/* The name of a file without a path, such as [eventfd]. */
	gadget_string name;
	__u32 unused;
};

GADGET_RECORD(trace_fdpass);

#define FDPASS_BYTES GADGET_ROOM(sizeof(struct trace_fdpass) + GADGET_PATH_BYTES + NAME_BYTES + 2)

struct passed {
	struct file *file;
	/* The receiving socket; NULL if the sending socket is not connected. */
	struct sock *receiver;
};

struct sender {
	__u64 cgroup;
	gadget_comm comm;
	__u32 pid;
	__u32 uid;
	__s32 fd;
	bool is_wanted;
	bool unused[3];
	__u32 share;
	/* How often the file has been sent and not received yet. */
	__u32 sent;
};

/* The trap: a file that nobody receives, for example because the socket is closed, keeps its entry until a file at the
 * same address is sent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, IN_TRANSIT);
	__type(key, struct passed);
	__type(value, struct sender);
} senders SEC(".maps");

GADGET_MAP_SHARES(sender_shares);

/* The socket's descriptor, by io_uring request: at the completion of a request, only the file is known. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __s32);
} uring_sockets SEC(".maps");

enum phase {
	/* The file is about to be sent. */
	SENDING,
	SENT,
	RECEIVED,
	/* The file is passed from one io_uring to another, without a message. */
	TO_RING,
};

/* The message being examined. */
struct message {
	struct sock *socket;
	struct file *socket_file;
	__s32 socket_fd;
	__s32 fd;
	__s32 errno;
	__u32 phase;
	/* The address of the call's first message in the program's memory, and the number of messages. */
	__u64 header;
	__u32 count;
	__u32 unused;
	/* The descriptors stay in the socket (MSG_PEEK). */
	__u32 is_peeked;
	__u32 unused_peeked;
	/* The file being examined and, if it is passed to another io_uring, the creator of that ring. */
	struct file *file;
	struct task_struct *ring_owner;
};

GADGET_SCRATCH(message_scratch, sizeof(struct message));
GADGET_SCRATCH(fdpass_scratch, FDPASS_BYTES);

static __always_inline void note_sender(const struct message *message, __s32 fd, struct file *file)
{
	struct unix_sock *socket = (void *)message->socket;
	struct task_struct *task = gadget_task();
	struct passed key = {.file = file};
	struct sender sender = {.sent = 1};
	const struct sender *known;
	struct gadget_record marks;

	key.receiver = BPF_CORE_READ(socket, peer);
	sender.cgroup = gadget_current_cgroup();
	sender.is_wanted = gadget_wanted_cgroup(&marks, sender.cgroup);
	sender.pid = gadget_node_pid(task);
	sender.uid = bpf_get_current_uid_gid();
	sender.fd = fd;
	gadget_comm_of(task, sender.comm);
	known = bpf_map_lookup_elem(&senders, &key);
	if (known) {
		sender.share = known->share;
		sender.sent = known->sent + 1;
		bpf_map_update_elem(&senders, &key, &sender, BPF_EXIST);
		return;
	}
	sender.share = gadget_share_number(sender.cgroup);
	gadget_add_entry(&senders, &key, &sender, &sender_shares, sender.share, IN_TRANSIT);
}

/* Finds the sender of a received file, and its key. */
static __always_inline struct sender *sender_of(const struct message *message, struct file *file, struct passed *key)
{
	struct sender *sender;

	key->file = file;
	key->receiver = message->socket;
	sender = bpf_map_lookup_elem(&senders, key);
	if (sender)
		return sender;
	key->receiver = NULL;
	return bpf_map_lookup_elem(&senders, key);
}

static __always_inline void forget_sender(const struct passed *key)
{
	struct sender *sender = bpf_map_lookup_elem(&senders, key);

	if (!sender)
		return;
	if (sender->sent > 1)
		sender->sent--;
	else
		gadget_remove_entry(&senders, key, &sender_shares, &sender->share);
}

/* Call it when a send has failed: nobody will receive the file. */
static __always_inline void forget_unsent(const struct message *message, struct file *file)
{
	struct unix_sock *socket = (void *)message->socket;
	struct passed key = {.file = file};

	key.receiver = BPF_CORE_READ(socket, peer);
	forget_sender(&key);
}

/* The process at the other end according to the socket's credentials. NULL: none. */
static __always_inline struct pid *peer_of(const struct message *message)
{
	struct sock *socket = message->socket;

	return BPF_CORE_READ(socket, sk_peer_pid);
}

static __always_inline void set_peer(struct trace_fdpass *pass, struct pid *pid, struct task_struct *task,
				     enum peer_source source)
{
	if (!pid || BPF_CORE_READ(pid, level) < gadget_node_pid_level)
		return;
	pass->peer_source = source;
	pass->peer_pid = gadget_pid_at_level(pid, gadget_node_pid_level);
	if (!task)
		return;
	pass->peer = gadget_cgroup_id_of(task);
	pass->peer_uid = BPF_CORE_READ(task, cred, uid.val);
	BPF_CORE_READ_INTO(&pass->peer_comm, task, comm);
}

static __always_inline void set_sender(struct trace_fdpass *pass, const struct sender *sender)
{
	pass->peer_source = PEER_SENDER;
	pass->peer = sender->cgroup;
	pass->peer_pid = sender->pid;
	pass->peer_uid = sender->uid;
	pass->peer_fd = sender->fd;
	__builtin_memcpy(pass->peer_comm, sender->comm, sizeof(pass->peer_comm));
}

/* Like gadget_begin(), and also true when the sender is wanted. */
static __always_inline bool begin_received(struct gadget_record *record, const struct sender *sender)
{
	__u64 cgroup = gadget_current_cgroup();

	if (!gadget_wanted_cgroup(record, cgroup)) {
		if (!sender->is_wanted)
			return false;
		record->marks = 0;
	}
	if (!gadget_wanted_task(gadget_task()))
		return false;
	gadget_describe(record, gadget_task(), cgroup);
	return true;
}

static __always_inline void describe_file(struct gadget_writer *writer, struct trace_fdpass *pass, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	pass->inode = BPF_CORE_READ(inode, i_ino);
	pass->type = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	pass->flags = BPF_CORE_READ(file, f_flags);
	gadget_append_path(writer, &pass->path, &file->f_path);
	gadget_no_text(&pass->name);
	if (!pass->path.offset)
		gadget_append_kernel_string(writer, &pass->name, BPF_CORE_READ(file, f_path.dentry, d_name.name),
					    NAME_BYTES);
}

/* Records the sender of one descriptor of a message that is about to be sent. A global function, like the following
 * ones, so that the verifier checks it once and not for each descriptor. */
__noinline int note_descriptor(__s32 fd)
{
	struct message *message = gadget_scratch(&message_scratch);
	struct file *file = gadget_file_of(fd);

	if (message && file)
		note_sender(message, fd, file);
	return 0;
}

/* Reports message->file, which was sent, or received from this sender. */
static __always_inline int report_file_of(__s32 fd, const struct sender *sender)
{
	struct message *message = gadget_scratch(&message_scratch);
	struct task_struct *owner = NULL;
	struct file *socket_file, *file;
	struct gadget_writer writer;
	struct trace_fdpass *pass;
	struct pid *peer = NULL;

	if (!message)
		return 0;
	file = (void *)message->file;
	pass = gadget_scratch(&fdpass_scratch);
	if (!pass)
		return 0;
	if (message->phase == TO_RING) {
		owner = (void *)message->ring_owner;
		peer = BPF_CORE_READ(owner, thread_pid);
	} else if (!sender) {
		peer = peer_of(message);
		owner = peer ? gadget_task_of_pid(peer) : NULL;
	}
	if (sender ? !begin_received(&pass->record, sender) : !gadget_begin_with(&pass->record, owner))
		return 0;
	__builtin_memset(pass->operation, 0, sizeof(*pass) - offsetof(struct trace_fdpass, operation));
	if (message->phase == RECEIVED)
		GADGET_SET_OPERATION(pass->operation, "receive");
	else
		GADGET_SET_OPERATION(pass->operation, "send");
	socket_file = (void *)message->socket_file;
	pass->peer_fd = -1;
	if (sender)
		set_sender(pass, sender);
	else
		set_peer(pass, peer, owner, message->phase == TO_RING ? PEER_RING : PEER_CREDENTIALS);
	pass->fd = fd;
	pass->socket_fd = message->socket_fd;
	pass->socket_inode = BPF_CORE_READ(socket_file, f_inode, i_ino);
	pass->errno = message->errno;
	writer = gadget_write(pass, sizeof(*pass), FDPASS_BYTES);
	pass->type = NO_FILE;
	if (file)
		describe_file(&writer, pass, file);
	gadget_send(&writer);
	return 0;
}

__noinline int report_file(__s32 fd)
{
	struct message *message = gadget_scratch(&message_scratch);
	struct sender *sender = NULL;
	struct passed key = {};
	struct file *file;

	if (!message)
		return 0;
	file = (void *)message->file;
	if (message->phase == RECEIVED && file)
		sender = sender_of(message, file, &key);
	report_file_of(fd, sender);
	if (sender && !message->is_peeked)
		forget_sender(&key);
	if (message->phase == SENT && file && message->errno > 0)
		forget_unsent(message, file);
	return 0;
}

/* Reports one descriptor of a message that was sent or received. */
__noinline int report_descriptor(__s32 fd)
{
	struct message *message = gadget_scratch(&message_scratch);

	if (!message)
		return 0;
	message->file = gadget_file_of(fd);
	return report_file(fd);
}

static __always_inline bool read_descriptor(struct message *message, __u64 from, __u64 bytes, __u32 index)
{
	__u64 at = index * sizeof(message->fd);

	return at + sizeof(message->fd) <= bytes &&
	       !bpf_probe_read_user(&message->fd, sizeof(message->fd), (void *)(from + at));
}

__noinline int note_descriptors(__u64 from, __u64 bytes)
{
	struct message *message = gadget_scratch(&message_scratch);

	for (__u32 i = 0; i < SCM_MAX_FD && message && read_descriptor(message, from, bytes, i); i++)
		note_descriptor(message->fd);
	return 0;
}

__noinline int report_descriptors(__u64 from, __u64 bytes)
{
	struct message *message = gadget_scratch(&message_scratch);

	for (__u32 i = 0; i < SCM_MAX_FD && message && read_descriptor(message, from, bytes, i); i++)
		report_descriptor(message->fd);
	return 0;
}

static __always_inline bool read_message(struct gadget_msghdr *msg, __u64 from)
{
	struct gadget_compat_msghdr compat;

	if (!gadget_has_short_pointers())
		return !bpf_probe_read_user(msg, sizeof(*msg), (void *)from);
	if (bpf_probe_read_user(&compat, sizeof(compat), (void *)from))
		return false;
	msg->control = compat.control;
	msg->control_bytes = compat.control_bytes;
	return true;
}

/* The size of the control message's head; 0: it cannot be read. */
static __always_inline __u64 read_control(struct gadget_cmsghdr *control, __u64 from)
{
	struct gadget_compat_cmsghdr compat;

	if (!gadget_has_short_pointers())
		return bpf_probe_read_user(control, sizeof(*control), (void *)from) ? 0 : sizeof(*control);
	if (bpf_probe_read_user(&compat, sizeof(compat), (void *)from))
		return 0;
	control->bytes = compat.bytes;
	control->level = compat.level;
	control->type = compat.type;
	return sizeof(compat);
}

/* Searches a message in the program's memory for descriptors. */
static __always_inline int pass_message(__u64 header, bool is_noted)
{
	struct gadget_cmsghdr control;
	struct gadget_msghdr msg;
	__u64 at, end;

	if (!read_message(&msg, header) || !msg.control)
		return 0;
	at = msg.control;
	end = at + msg.control_bytes;
	for (int i = 0; i < CONTROLS; i++) {
		__u64 head = read_control(&control, at);

		if (!head || at + head > end || control.bytes < head || control.bytes > end - at)
			return 0;
		if (control.level == SOL_SOCKET && control.type == SCM_RIGHTS) {
			__u64 from = at + head, bytes = control.bytes - head;

			if (is_noted)
				note_descriptors(from, bytes);
			else
				report_descriptors(from, bytes);
		}
		at += gadget_has_short_pointers() ? (control.bytes + 3) & ~3ULL : (control.bytes + 7) & ~7ULL;
	}
	/* Counted once, when the message is reported: otherwise a sender could hide descriptors behind other control
	 * messages. */
	if (!is_noted && at + sizeof(struct gadget_compat_cmsghdr) <= end)
		gadget_count_unexamined();
	return 0;
}

__noinline int note_message(__u64 header)
{
	return pass_message(header, true);
}

__noinline int report_message(__u64 header)
{
	return pass_message(header, false);
}

/* The size of one message of sendmmsg() and recvmmsg(). */
static __always_inline __u64 message_bytes(void)
{
	return gadget_has_short_pointers() ? GADGET_COMPAT_MMSGHDR_BYTES : GADGET_MMSGHDR_BYTES;
}

/* NULL: the call cannot pass descriptors. */
static __always_inline struct message *begin_message(enum phase phase, int socket_fd, struct file *file, long result)
{
	struct message *message = gadget_scratch(&message_scratch);
	struct sock *socket;

	if (phase == SENT && !gadget_wanted_operation((const gadget_operation){"send"}))
		return NULL;
	/* Senders are shown when their files are received. */
	if (phase != SENT && !gadget_wanted_operation((const gadget_operation){"receive"}))
		return NULL;
	if (!message || (phase == RECEIVED && result < 0) || !gadget_wanted_result(result))
		return NULL;
	socket = file ? gadget_socket_of_file(file) : NULL;
	if (!socket || BPF_CORE_READ(socket, __sk_common.skc_family) != AF_UNIX)
		return NULL;
	message->socket = socket;
	message->socket_file = file;
	message->socket_fd = socket_fd;
	message->errno = result < 0 ? -result : 0;
	message->phase = phase;
	message->is_peeked = 0;
	return message;
}

/* The common end of all programs at exits, so that the verifier checks it once. If a call fails, the first message has
 * failed. */
GADGET_AFTER_EXIT(report_messages)
{
	struct message *message = gadget_scratch(&message_scratch);

	for (int i = 0; i < MESSAGES && message && i < message->count; i++)
		report_message(message->header + i * message_bytes());
	return 0;
}

GADGET_TAIL(after_messages, report_messages);

static __always_inline int ends(struct trace_event_raw_sys_exit *ctx, enum phase phase, struct pt_regs *registers,
				long result, __u32 count, __u32 flags)
{
	int fd = gadget_argument(registers, 0);
	struct message *message = begin_message(phase, fd, gadget_file_of(fd), result);

	if (!message)
		return 0;
	message->header = gadget_argument(registers, 1);
	message->count = count;
	message->is_peeked = flags & MSG_PEEK;
	bpf_tail_call(ctx, &after_messages, 0);
	return 0;
}

static __always_inline int starts(struct pt_regs *registers, __u64 count)
{
	__u64 header = gadget_argument(registers, 1);
	int fd = gadget_argument(registers, 0);

	if (!begin_message(SENDING, fd, gadget_file_of(fd), 0))
		return 0;
	for (int i = 0; i < MESSAGES && i < count; i++)
		note_message(header + i * message_bytes());
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_sendmsg")
int sendmsg_starts(void *ctx)
{
	return starts(gadget_call_registers(ctx), 1);
}

SEC("tracepoint/syscalls/sys_enter_sendmmsg")
int sendmmsg_starts(void *ctx)
{
	struct pt_regs *registers = gadget_call_registers(ctx);

	return starts(registers, gadget_argument(registers, 2));
}

GADGET_ON_EXIT(sendmsg)
{
	return ends(ctx, SENT, registers, result, 1, 0);
}

GADGET_ON_EXIT(sendmmsg)
{
	return ends(ctx, SENT, registers, result, result < 0 ? 1 : result, 0);
}

GADGET_ON_EXIT(recvmsg)
{
	return ends(ctx, RECEIVED, registers, result, 1, gadget_argument(registers, 2));
}

GADGET_ON_EXIT(recvmmsg)
{
	return ends(ctx, RECEIVED, registers, result, result, gadget_argument(registers, 3));
}

static __always_inline __u64 uring_header(struct io_kiocb *request)
{
	return (__u64)BPF_CORE_READ((struct io_sr_msg *)request, umsg);
}

static __always_inline bool passes_to_ring(struct io_kiocb *request, __u8 opcode)
{
	return opcode == IORING_OP_MSG_RING && BPF_CORE_READ((struct io_msg *)request, cmd) == IORING_MSG_SEND_FD;
}

/* Reports a file that is passed to the ring `to`. It is in a slot of this ring, even at completion, unless the program
 * has put another file there in between. */
static __always_inline int report_ring(struct io_kiocb *request, __s32 fd, struct file *to, __s64 result)
{
	const struct mm_struct *memory;
	struct message *message = gadget_scratch(&message_scratch);
	__u32 slot = BPF_CORE_READ((struct io_msg *)request, src_fd);
	struct io_ring_ctx *ring;

	if (!message || !gadget_wanted_operation((const gadget_operation){"send"}))
		return 0;
	if (result != UNKNOWN_RESULT && !gadget_wanted_result(result))
		return 0;
	ring = BPF_CORE_READ(to, private_data);
	message->socket_file = to;
	message->socket_fd = fd;
	message->errno = result < 0 ? -result : 0;
	if (result == UNKNOWN_RESULT)
		message->errno = -1;
	message->phase = TO_RING;
	message->file = gadget_uring_direct_file(BPF_CORE_READ(request, ctx), slot);
	memory = BPF_CORE_READ(ring, mm_account);
	message->ring_owner = NULL;
	if (bpf_core_field_exists(memory->owner))
		message->ring_owner = BPF_CORE_READ(memory, owner);
	return report_file(-1);
}

/* Here, the current task has the submitter's memory and descriptors, even if a kernel thread submits (SQPOLL). A
 * registered socket has no descriptor, and is not known yet. */
static __always_inline int uring_begins(struct io_kiocb *request)
{
	__u8 opcode = request->opcode;
	__u64 key = (__u64)request;
	struct message *message;
	struct file *file;
	__u32 flags;
	__s32 fd;

	if (opcode != IORING_OP_SENDMSG && opcode != IORING_OP_RECVMSG && !passes_to_ring(request, opcode))
		return 0;
	flags = BPF_CORE_READ(request, flags);
	fd = flags & GADGET_URING_FIXED_FILE ? -1 : BPF_CORE_READ(request, cqe.fd);
	bpf_map_update_elem(&uring_sockets, &key, &fd, BPF_ANY);
	if (opcode == IORING_OP_MSG_RING)
		return flags & GADGET_URING_SKIPS_SUCCESS
			       ? report_ring(request, fd, gadget_uring_file_of(request), UNKNOWN_RESULT)
			       : 0;
	file = fd < 0 ? NULL : gadget_file_of(fd);
	if (opcode == IORING_OP_RECVMSG || !begin_message(SENDING, fd, file, 0))
		return 0;
	note_message(uring_header(request));
	if (!(flags & GADGET_URING_SKIPS_SUCCESS))
		return 0;
	message = begin_message(SENT, fd, file, 0);
	if (!message)
		return 0;
	/* Unknown, since only a failure would be reported. */
	message->errno = -1;
	return report_message(uring_header(request));
}

GADGET_ON_URING_SUBMIT(uring_begins)

SEC("tp_btf/io_uring_complete")
int uring_complete(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__u8 opcode = BPF_CORE_READ(request, opcode);
	__u64 key = (__u64)request;
	const __s32 *fd;

	if (opcode != IORING_OP_SENDMSG && opcode != IORING_OP_RECVMSG && !passes_to_ring(request, opcode))
		return 0;
	fd = bpf_map_lookup_elem(&uring_sockets, &key);
	if (opcode == IORING_OP_MSG_RING)
		return report_ring(request, fd ? *fd : -1, BPF_CORE_READ(request, file), gadget_uring_result(ctx));
	if (!begin_message(opcode == IORING_OP_SENDMSG ? SENT : RECEIVED, fd ? *fd : -1, BPF_CORE_READ(request, file),
			   gadget_uring_result(ctx)))
		return 0;
	return report_message(uring_header(request));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
