// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace ssl: emits one `struct trace_ssl` for each call with which a program reads or writes through TLS, when it
 * returns, with the unencrypted data.
 *
 * Hooks: uprobes on OpenSSL's and GnuTLS's functions, in all files in which the agent finds them (`libraries` in the
 * YAML). The trap: the agent may attach a program twice to the same file, so a call is reported by the program that
 * sets its start to 0.
 */
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/thread_state.h>
#include <gadget/slots.h>
#include <gadget/string.h>
#include <kernel/ptrace.h>

#define MOST_DATA_BYTES 8192

struct trace_ssl {
	struct gadget_record record;
	gadget_operation operation;
	char library[8];
	gadget_duration duration;
	/* ~0: the call failed, or would block. */
	gadget_bytes bytes;
	/* The library's object for the connection: an address in the process. */
	__u64 session;
	gadget_string data;
	__u32 unused2;
};

GADGET_RECORD(trace_ssl);

#define SSL_BYTES GADGET_ROOM(sizeof(struct trace_ssl) + MOST_DATA_BYTES)

/* 0: no data. */
const volatile __u32 data_bytes = 0;
/* Microseconds. 0: any. */
const volatile __u64 filter_min = 0;
/* Also calls without data. */
const volatile bool all_calls = false;

enum { READ, WRITE, HANDSHAKE };
enum { OPENSSL, GNUTLS };

/* A thread's call. It may never return, for example by longjmp(); then the thread's next call replaces it. */
struct call {
	/* 0: no call is in progress. */
	__u64 start;
	__u64 session;
	__u64 buffer;
	/* Where the function stores the number of bytes; 0: it returns the number. */
	__u64 count;
	__u64 operation;
	__u64 library;
};

GADGET_THREAD_STATE(call);

GADGET_SLOTS(slots, SSL_BYTES);

#define PARAMETER(N) BPF_CORE_READ(registers, GADGET_FUNCTION_ARGUMENT_##N)

static __always_inline int begin(struct pt_regs *registers, __u64 library, __u64 operation, bool counts)
{
	struct call *call = gadget_make_thread_state();

	if (!call)
		return 0;
	call->session = PARAMETER(0);
	call->buffer = operation == HANDSHAKE ? 0 : PARAMETER(1);
	call->count = counts ? PARAMETER(3) : 0;
	call->operation = operation;
	call->library = library;
	call->start = bpf_ktime_get_boot_ns();
	return 0;
}

/* How much was read or written; ~0 when the call failed. */
static __always_inline __u64 transferred(const struct call *call, __s64 result)
{
	__u64 bytes = 0;

	if (call->library == GNUTLS)
		return result < 0 ? ~0ULL : result;
	/* The function returns an int; the upper half is undefined. */
	result = (__s32)result;
	if (result <= 0)
		return ~0ULL;
	if (!call->count)
		return result;
	return bpf_probe_read_user(&bytes, sizeof(bytes), (const void *)call->count) ? ~0ULL : bytes;
}

static __always_inline void fill(struct trace_ssl *ssl, const struct call *call, __u64 bytes)
{
	/* As many entries as the mask below allows: verifiers before Linux 6.12 derive bounds from the mask, but not
	 * from a comparison. */
	static const gadget_operation words[] = {"read", "write", "handshake", ""};
	static const char libraries[][8] = {"openssl", "gnutls"};

	__builtin_memcpy(ssl->operation, words[call->operation & 3], sizeof(gadget_operation));
	__builtin_memcpy(ssl->library, libraries[call->library & 1], sizeof(ssl->library));
	ssl->duration = bpf_ktime_get_boot_ns() - call->start;
	ssl->bytes = call->operation == HANDSHAKE ? ~0ULL : bytes;
	ssl->session = call->session;
	ssl->unused2 = 0;
}

SEC("uretprobe")
int returns(struct pt_regs *registers)
{
	struct call *found = gadget_thread_state();
	__u32 limit = data_bytes > MOST_DATA_BYTES ? MOST_DATA_BYTES : data_bytes;
	struct gadget_writer writer;
	struct trace_ssl *ssl;
	struct call call;
	__u64 bytes;

	if (!found || !found->start)
		return 0;
	call = *found;
	found->start = 0;
	bytes = transferred(&call, BPF_CORE_READ(registers, GADGET_FUNCTION_RESULT));
	if (!all_calls && (bytes == ~0ULL || call.operation == HANDSHAKE))
		return 0;
	if (filter_min && bpf_ktime_get_boot_ns() - call.start < filter_min * 1000)
		return 0;
	ssl = gadget_take_slot(&slots);
	if (!ssl)
		return 0;
	if (gadget_begin(&ssl->record)) {
		fill(ssl, &call, bytes);
		if (gadget_wanted_operation(ssl->operation)) {
			writer = gadget_write(ssl, sizeof(*ssl), SSL_BYTES);
			gadget_no_text(&ssl->data);
			if (limit && bytes != ~0ULL && call.operation != HANDSHAKE)
				gadget_append_user_bytes(&writer, &ssl->data, (const void *)call.buffer, bytes, limit);
			gadget_send(&writer);
		}
	}
	gadget_give_back(ssl);
	return 0;
}

#define BEGINS(NAME, LIBRARY, OPERATION, COUNTS)                                                                       \
	SEC("uprobe")                                                                                                  \
	int NAME(struct pt_regs *registers)                                                                            \
	{                                                                                                              \
		return begin(registers, LIBRARY, OPERATION, COUNTS);                                                   \
	}

BEGINS(openssl_reads, OPENSSL, READ, false)
BEGINS(openssl_writes, OPENSSL, WRITE, false)
BEGINS(openssl_reads_counted, OPENSSL, READ, true)
BEGINS(openssl_writes_counted, OPENSSL, WRITE, true)
BEGINS(openssl_shakes_hands, OPENSSL, HANDSHAKE, false)
BEGINS(gnutls_reads, GNUTLS, READ, false)
BEGINS(gnutls_writes, GNUTLS, WRITE, false)
BEGINS(gnutls_shakes_hands, GNUTLS, HANDSHAKE, false)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
