// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Finds the file that is mapped at an address of this process, for the agent, which runs `find_file` directly
 * (BPF_PROG_TEST_RUN). Since Linux 5.17. Emits nothing.
 *
 * The trap: on overlayfs, containers of one image see different files, but map the same file of the lower file system,
 * to which uprobes must be attached. Only the mapping has that file.
 */
#include <gadget/task.h>
#include <kernel/fs.h>
#include <kernel/task.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Read and written by kubectl_gadget/agent/policies/files.py. */
struct mapped_file {
	__u64 address;
	__u64 inode;
	__u64 device;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mapped_file);
} mapped_file SEC(".maps");

static long describe(struct task_struct *task, struct vm_area_struct *area, struct mapped_file *found)
{
	const struct file *file = BPF_CORE_READ(area, vm_file);

	found->inode = BPF_CORE_READ(file, f_inode, i_ino);
	found->device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	return 0;
}

SEC("raw_tp/sys_enter")
int find_file(void *ctx)
{
	struct mapped_file *asked, found = {};
	__u32 key = 0;
	long failed;

	asked = bpf_map_lookup_elem(&mapped_file, &key);
	if (!asked)
		return -1;
	failed = bpf_find_vma(bpf_get_current_task_btf(), asked->address, describe, &found, 0);
	asked->inode = found.inode;
	asked->device = found.device;
	return failed;
}
