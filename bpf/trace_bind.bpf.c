// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace bind: emits one `struct trace_bind` for each attempt to bind an IPv4 or IPv6 socket to a local address.
 *
 * Hooks: the exit of bind; and, for sockets that io_uring binds, the exit of the function that both use,
 * __sys_bind_socket (6.11). Not seen: addresses that the kernel assigns itself, at connect, listen or sendto.
 */
#include <gadget/network/address.h>
#include <gadget/ends.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/network/socket_file.h>
#include <gadget/syscalls/compat_call.h>
#include <gadget/syscall.h>
#include <kernel/net_device.h>
#include <kernel/socket.h>
#include <kernel/tracepoint.h>

#if defined(__TARGET_ARCH_x86)
#define BIND 49
#else
#define BIND 200
#endif

/* Socket options that affect whether an address is available. */
enum {
	OPTION_REUSEADDR = 1,
	OPTION_REUSEPORT = 2,
	OPTION_FREEBIND = 4,
	OPTION_TRANSPARENT = 8,
	OPTION_BIND_ADDRESS_NO_PORT = 16,
	OPTION_V6ONLY = 32,
};

/* A network device's name; empty: none. */
typedef char gadget_device[16];

struct trace_bind {
	struct gadget_record record;
	/* The address that the kernel assigned or, if the call failed, the requested one. */
	gadget_ip address;
	gadget_port port;
	/* The requested port; 0 for any free port. */
	gadget_port asked_port;
	gadget_ip_protocol protocol;
	gadget_address_family family;
	gadget_fd fd;
	gadget_errno errno;
	__u32 options;
	/* The device that the socket is bound to; 0 and empty: none. */
	__u32 device_index;
	gadget_device device;
};

GADGET_RECORD(trace_bind);

/* Requested or assigned. 0: any. */
const volatile __u16 filter_port = 0;

static __always_inline __u32 inet_options(struct sock *sk)
{
	struct inet_sock *flags = (void *)sk;
	struct inet_sock___bits *bits = (void *)sk;
	unsigned long set;

	if (bpf_core_field_exists(flags->inet_flags)) {
		set = BPF_CORE_READ(flags, inet_flags);
		return (set >> INET_FLAGS_FREEBIND & 1 ? OPTION_FREEBIND : 0) |
		       (set >> INET_FLAGS_TRANSPARENT & 1 ? OPTION_TRANSPARENT : 0) |
		       (set >> INET_FLAGS_BIND_ADDRESS_NO_PORT & 1 ? OPTION_BIND_ADDRESS_NO_PORT : 0);
	}
	return (BPF_CORE_READ_BITFIELD_PROBED(bits, freebind) ? OPTION_FREEBIND : 0) |
	       (BPF_CORE_READ_BITFIELD_PROBED(bits, transparent) ? OPTION_TRANSPARENT : 0) |
	       (BPF_CORE_READ_BITFIELD_PROBED(bits, bind_address_no_port) ? OPTION_BIND_ADDRESS_NO_PORT : 0);
}

static __always_inline __u32 options_of(struct sock *sk)
{
	struct sock_common *common = &sk->__sk_common;

	return inet_options(sk) | (BPF_CORE_READ_BITFIELD_PROBED(common, skc_reuse) ? OPTION_REUSEADDR : 0) |
	       (BPF_CORE_READ_BITFIELD_PROBED(common, skc_reuseport) ? OPTION_REUSEPORT : 0) |
	       (BPF_CORE_READ_BITFIELD_PROBED(common, skc_ipv6only) ? OPTION_V6ONLY : 0);
}

/* `asked` is the requested address. */
static __always_inline void send(struct trace_bind *bind, struct sock *sk, long result)
{
	bind->errno = -result;
	bind->port = bind->asked_port;
	if (!result) {
		gadget_local_ip(bind->address, sk);
		/* For a raw socket, this is the protocol number. */
		if (BPF_CORE_READ(sk, sk_type) != SOCK_RAW)
			bind->port = gadget_local_port(sk);
	}
	if (!gadget_wanted_addresses(bind->address, bind->address))
		return;
	if (filter_port && bind->port != filter_port && bind->asked_port != filter_port)
		return;
	bind->protocol = BPF_CORE_READ(sk, sk_protocol);
	bind->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	bind->options = options_of(sk);
	bind->device_index = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	gadget_device_name(bind->device, sk, bind->device_index);
	gadget_emit(&bind->record, sizeof(*bind), 0);
}

static __always_inline bool is_inet(struct sock *sk)
{
	__u16 family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;

	return family == AF_INET || family == AF_INET6;
}

SEC("tracepoint/syscalls/sys_exit_bind")
int bind_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_call_registers(ctx);
	int fd = gadget_argument(registers, 0);
	long result = gadget_result(ctx);
	struct trace_bind bind;
	struct sock *sk;

	if (!gadget_wanted_result(result))
		return 0;
	sk = gadget_socket_of_fd(fd);
	if (!is_inet(sk) || !gadget_begin(&bind.record))
		return 0;
	bind.fd = fd;
	if (!gadget_user_address(bind.address, &bind.asked_port, (const void *)gadget_argument(registers, 1))) {
		gadget_no_ip(bind.address);
		bind.asked_port = 0;
	}
	send(&bind, sk, result);
	return 0;
}

SEC("?fexit/__sys_bind_socket")
int BPF_PROG(bind_of_uring, struct socket *socket, void *address, int length, int result)
{
	struct gadget_compat_call call;
	struct trace_bind bind;
	struct sock *sk;

	/* The system call has its own program, which knows the descriptor. */
	gadget_current_call(&call);
	if (call.native == BIND || !gadget_wanted_result(result))
		return 0;
	sk = BPF_CORE_READ(socket, sk);
	if (!is_inet(sk) || !gadget_begin(&bind.record))
		return 0;
	bind.fd = -1;
	if (!gadget_kernel_address(bind.address, &bind.asked_port, address)) {
		gadget_no_ip(bind.address);
		bind.asked_port = 0;
	}
	send(&bind, sk, result);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
