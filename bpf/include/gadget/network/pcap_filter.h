/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Filters as in tcpdump. The client compiles the expression with libpcap to classic BPF
 * (kubectl_gadget/filters/pcap_filter.py), and this code interprets it on a packet that begins with its IP
 * header.
 *
 * The traps: for the kernel, the instructions are data that it does not check, so all indexes are checked here; and a
 * packet does not match if an instruction reads beyond its end.
 */
#pragma once

#include <linux/bpf_common.h>

#include <bpf/bpf_endian.h>

#include <gadget/record.h>

#define GADGET_PCAP_INSTRUCTIONS 1024
#define GADGET_PCAP_MEMORY 16

/* Like struct sock_filter. */
struct gadget_pcap_instruction {
	__u16 code;
	__u8 if_true;
	__u8 if_false;
	__u32 k;
};

/* All zeros: every packet matches. */
const volatile struct gadget_pcap_instruction gadget_filter_pcap[GADGET_PCAP_INSTRUCTIONS] = {};

struct gadget_pcap_machine {
	struct __sk_buff *skb;
	__u32 next;
	__u32 a;
	__u32 x;
	__u32 result;
	__u32 memory[GADGET_PCAP_MEMORY];
};

/* Reads a number from the packet. False: the packet is too short. */
static __always_inline bool gadget_pcap_load(struct gadget_pcap_machine *machine, __u32 size, __u32 offset)
{
	__u8 bytes[4] = {};

	if (size == BPF_W) {
		if (bpf_skb_load_bytes(machine->skb, offset, bytes, 4))
			return false;
		machine->a = (__u32)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
	} else if (size == BPF_H) {
		if (bpf_skb_load_bytes(machine->skb, offset, bytes, 2))
			return false;
		machine->a = bytes[0] << 8 | bytes[1];
	} else {
		if (bpf_skb_load_bytes(machine->skb, offset, bytes, 1))
			return false;
		machine->a = bytes[0];
	}
	return true;
}

static __always_inline bool gadget_pcap_load_a(struct gadget_pcap_machine *machine, __u16 code, __u32 k)
{
	switch (BPF_MODE(code)) {
	case BPF_ABS:
		return gadget_pcap_load(machine, BPF_SIZE(code), k);
	case BPF_IND:
		/* An offset that wraps around is outside of the packet. */
		return machine->x + k >= k && gadget_pcap_load(machine, BPF_SIZE(code), machine->x + k);
	case BPF_LEN:
		machine->a = machine->skb->len;
		return true;
	case BPF_MEM:
		machine->a = machine->memory[k % GADGET_PCAP_MEMORY];
		return true;
	default:
		machine->a = k;
		return true;
	}
}

static __always_inline bool gadget_pcap_load_x(struct gadget_pcap_machine *machine, __u16 code, __u32 k)
{
	__u8 byte;

	switch (BPF_MODE(code)) {
	case BPF_MSH:
		if (bpf_skb_load_bytes(machine->skb, k, &byte, 1))
			return false;
		machine->x = (byte & 15) * 4;
		return true;
	case BPF_LEN:
		machine->x = machine->skb->len;
		return true;
	case BPF_MEM:
		machine->x = machine->memory[k % GADGET_PCAP_MEMORY];
		return true;
	default:
		machine->x = k;
		return true;
	}
}

static __always_inline bool gadget_pcap_calculate(struct gadget_pcap_machine *machine, __u16 code, __u32 k)
{
	__u32 operand = BPF_SRC(code) == BPF_X ? machine->x : k;

	switch (BPF_OP(code)) {
	case BPF_ADD:
		machine->a += operand;
		return true;
	case BPF_SUB:
		machine->a -= operand;
		return true;
	case BPF_MUL:
		machine->a *= operand;
		return true;
	case BPF_DIV:
		if (!operand)
			return false;
		machine->a /= operand;
		return true;
	case BPF_MOD:
		if (!operand)
			return false;
		machine->a %= operand;
		return true;
	case BPF_OR:
		machine->a |= operand;
		return true;
	case BPF_AND:
		machine->a &= operand;
		return true;
	case BPF_XOR:
		machine->a ^= operand;
		return true;
	case BPF_LSH:
		machine->a = operand < 32 ? machine->a << operand : 0;
		return true;
	case BPF_RSH:
		machine->a = operand < 32 ? machine->a >> operand : 0;
		return true;
	case BPF_NEG:
		machine->a = -machine->a;
		return true;
	default:
		return false;
	}
}

static __always_inline void gadget_pcap_jump(struct gadget_pcap_machine *machine,
					     const volatile struct gadget_pcap_instruction *instruction)
{
	__u16 code = instruction->code;
	__u32 k = instruction->k;
	__u32 operand = BPF_SRC(code) == BPF_X ? machine->x : k;
	bool yes;

	switch (BPF_OP(code)) {
	case BPF_JA:
		machine->next += k;
		return;
	case BPF_JEQ:
		yes = machine->a == operand;
		break;
	case BPF_JGT:
		yes = machine->a > operand;
		break;
	case BPF_JGE:
		yes = machine->a >= operand;
		break;
	default:
		yes = machine->a & operand;
	}
	machine->next += yes ? instruction->if_true : instruction->if_false;
}

/* Executes one instruction. Returns 1 after the last one. */
static long gadget_pcap_step(__u32 index, struct gadget_pcap_machine *machine)
{
	const volatile struct gadget_pcap_instruction *instruction;
	__u32 current = machine->next;
	__u16 code;
	__u32 k;

	if (current >= GADGET_PCAP_INSTRUCTIONS)
		return 1;
	instruction = &gadget_filter_pcap[current];
	code = instruction->code;
	k = instruction->k;
	machine->next = current + 1;
	switch (BPF_CLASS(code)) {
	case BPF_LD:
		return !gadget_pcap_load_a(machine, code, k);
	case BPF_LDX:
		return !gadget_pcap_load_x(machine, code, k);
	case BPF_ST:
		machine->memory[k % GADGET_PCAP_MEMORY] = machine->a;
		return 0;
	case BPF_STX:
		machine->memory[k % GADGET_PCAP_MEMORY] = machine->x;
		return 0;
	case BPF_ALU:
		return !gadget_pcap_calculate(machine, code, k);
	case BPF_JMP:
		gadget_pcap_jump(machine, instruction);
		return 0;
	case BPF_RET:
		machine->result = (code & 0x18) == 0x10 ? machine->a : k;
		return 1;
	default:
		/* TXA or TAX. */
		if (code & 0x80)
			machine->a = machine->x;
		else
			machine->x = machine->a;
		return 0;
	}
}

/* Whether the packet matches. Needs bpf_loop(), Linux 5.17, unless there is no filter. */
static __always_inline bool gadget_pcap_matches(struct __sk_buff *skb)
{
	struct gadget_pcap_machine machine = {.skb = skb};

	if (!gadget_filter_pcap[0].code)
		return true;
	/* Jumps only go forward, so this number of steps is enough. */
	bpf_loop(GADGET_PCAP_INSTRUCTIONS, gadget_pcap_step, &machine, 0);
	return machine.result;
}
