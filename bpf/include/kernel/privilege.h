/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Users, capabilities and namespaces, and the calls that change them. The trap: clone() uses the bit of CLONE_NEWTIME
 * for the signal to the parent. */
#pragma once

#include <linux/types.h>
#include <kernel/credentials.h>
#include <kernel/task.h>

/* include/uapi/linux/sched.h */
#define CLONE_NEWTIME 0x80
#define GADGET_NAMESPACES 0x7e020080

/* The number is the same on all architectures, and for 32-bit programs. */
#define GADGET_CLONE3 435

/* include/uapi/linux/ptrace.h */
#define PTRACE_TRACEME 0
#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206

/* include/uapi/linux/prctl.h */
#define PR_SET_DUMPABLE 4
#define PR_SET_KEEPCAPS 8
#define PR_SET_SECCOMP 22
#define PR_CAPBSET_DROP 24
#define PR_SET_SECUREBITS 28
#define PR_SET_NO_NEW_PRIVS 38
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_RAISE 2
#define PR_SET_PTRACER 0x59616d61

/* include/linux/security.h */
#define CAP_OPT_NOAUDIT 2
