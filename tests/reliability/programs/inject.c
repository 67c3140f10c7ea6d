// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * inject PID CALL TEXT [NUMBER...]: makes another process, which is in a system call, execute one more: CALL, with
 * TEXT, which is written to its stack, as the first argument or, if TEXT is "-", with the numbers alone. Prints the
 * result. For x86-64: the instruction before the instruction pointer is the one that makes the call.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>

#define BELOW 4096

static void check(long result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int count, char **words)
{
	struct user_regs_struct before, now;
	unsigned long long *places[] = {&now.rdi, &now.rsi, &now.rdx, &now.r10};
	int pid = atoi(words[1]), place = 0;
	char text[512] = "";
	size_t i;

	check(ptrace(PTRACE_ATTACH, pid, 0, 0), "attach");
	check(waitpid(pid, NULL, 0), "wait");
	check(ptrace(PTRACE_GETREGS, pid, 0, &before), "registers");
	now = before;
	if (strcmp(words[3], "-")) {
		strncpy(text, words[3], sizeof(text) - 1);
		for (i = 0; i < sizeof(text); i += 8)
			check(ptrace(PTRACE_POKEDATA, pid, before.rsp - BELOW + i, *(long *)(text + i)), "stack");
		*places[place++] = before.rsp - BELOW;
	}
	for (i = 4; i < (size_t)count; i++)
		*places[place++] = strtoull(words[i], NULL, 0);
	now.rax = strtoull(words[2], NULL, 0);
	now.orig_rax = -1;
	now.rip = before.rip - 2;
	check(ptrace(PTRACE_SETREGS, pid, 0, &now), "registers");
	check(ptrace(PTRACE_SINGLESTEP, pid, 0, 0), "step");
	check(waitpid(pid, NULL, 0), "wait");
	check(ptrace(PTRACE_GETREGS, pid, 0, &now), "registers");
	printf("%lld\n", (long long)now.rax);
	/* The interrupted call starts again. */
	before.rax = before.orig_rax;
	before.rip -= 2;
	check(ptrace(PTRACE_SETREGS, pid, 0, &before), "registers");
	check(ptrace(PTRACE_DETACH, pid, 0, 0), "detach");
	return 0;
}
