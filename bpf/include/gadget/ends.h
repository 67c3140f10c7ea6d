/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The filter --address: one end of a connection must have it. If --port is given too, it may be that of the other end,
 * so that a user can select a server's port together with a client's address.
 */
#pragma once

#include <gadget/network/address.h>

/* An IPv4 address is stored as ::ffff:1.2.3.4. All zeros: any. */
const volatile __u8 filter_address[16] __attribute__((aligned(8))) = {};

static __always_inline bool gadget_is_filter_address(const gadget_ip address)
{
	const volatile __u64 *wanted = (const volatile __u64 *)filter_address;
	__u64 words[2];

	__builtin_memcpy(words, address, sizeof(words));
	return words[0] == wanted[0] && words[1] == wanted[1];
}

static __always_inline bool gadget_wanted_addresses(const gadget_ip one, const gadget_ip other)
{
	const volatile __u64 *wanted = (const volatile __u64 *)filter_address;

	return (!wanted[0] && !wanted[1]) || gadget_is_filter_address(one) || gadget_is_filter_address(other);
}
