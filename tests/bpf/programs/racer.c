// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * racer {open|connect|exec|arguments|absent} COUNT HARMLESS REAL: system calls while another thread changes what their
 * argument points to, between two things that differ in one byte. Prints how many calls did the harmless thing, did the
 * real one, and were refused.
 *
 * absent changes nothing, but has the real path in memory that is not there until the kernel wants it.
 * exec and arguments make a process for each call, and print its number and what it did, 0, 1 or 100, before that; the
 * program that is executed says by its exit code which it was.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REFUSED 100

static volatile char *byte;
static char both[2];
static volatile int changing;

static void *change(void *unused)
{
	/* Each for as long as the other, or the one that is written last would be there nearly always. */
	for (;;) {
		for (int i = 0; i < 100; i++)
			*byte = both[1];
		for (int i = 0; i < 100; i++)
			*byte = both[0];
		changing = 1;
	}
	return unused;
}

static void race(volatile char *at, char harmless, char real)
{
	pthread_t thread;

	byte = at;
	both[0] = harmless;
	both[1] = real;
	pthread_create(&thread, NULL, change, NULL);
	while (!changing)
		;
}

/* Where two texts of the same length differ. */
static size_t difference(const char *one, const char *other)
{
	size_t at = 0;

	while (one[at] && one[at] == other[at])
		at++;
	return at;
}

/* 0: the harmless one, 1: the real one, or REFUSED. Files begin with that digit. */
static int open_one(const char *path)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
	char digit;

	if (fd < 0)
		return REFUSED;
	if (read(fd, &digit, 1) != 1)
		abort();
	close(fd);
	return digit - '0';
}

static int connect_one(const struct sockaddr_in *address, in_port_t real)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in peer;
	socklen_t length = sizeof(peer);
	int result = REFUSED;

	if (!syscall(SYS_connect, fd, address, sizeof(*address))) {
		if (getpeername(fd, (struct sockaddr *)&peer, &length))
			abort();
		result = peer.sin_port == real;
	}
	close(fd);
	return result;
}

/* The page is the file's, and taken away from the process before each call. */
static const char *absent(const char *path)
{
	static char *page;
	int fd;

	if (!page) {
		fd = memfd_create("path", 0);
		if (write(fd, path, strlen(path) + 1) < 0)
			abort();
		page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	}
	madvise(page, 4096, MADV_DONTNEED);
	return page;
}

/* Executes a program whose path, or whose argument, is raced for. */
static int exec_one(char *raced, const char *harmless, const char *real, const char *program)
{
	size_t at = difference(harmless, real);
	int status;
	pid_t pid = fork();

	if (!pid) {
		char *arguments[] = {"racer", program ? "argument" : "program", raced, NULL};

		race(raced + at, harmless[at], real[at]);
		syscall(SYS_execve, program ? program : raced, arguments, NULL);
		_exit(REFUSED);
	}
	waitpid(pid, &status, 0);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : REFUSED;
	printf("%d %d\n", pid, status);
	return status;
}

int main(int argc, char **argv)
{
	int counts[REFUSED + 1] = {};
	const char *mode = argv[1];

	/* Executed: which it is says the last digit of its argument, or of its own name. */
	if (!strcmp(mode, "argument"))
		return argv[2][strlen(argv[2]) - 1] - '0';
	if (!strcmp(mode, "program")) {
		char self[4096];
		ssize_t length = readlink("/proc/self/exe", self, sizeof(self));

		return length > 0 ? self[length - 1] - '0' : REFUSED;
	}
	if (argc < 5)
		return 2;
	int count = atoi(argv[2]);
	const char *harmless = argv[3], *real = argv[4];
	char *raced = strdup(harmless);
	size_t at = difference(harmless, real);
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(atoi(harmless)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	in_port_t other = htons(atoi(real));

	if (!strcmp(mode, "open"))
		race(raced + at, harmless[at], real[at]);
	if (!strcmp(mode, "connect")) /* ports that differ in their lower byte alone */
		race((char *)&address.sin_port + 1, address.sin_port >> 8, other >> 8);
	for (int i = 0; i < count; i++) {
		if (!strcmp(mode, "open"))
			counts[open_one(raced)]++;
		else if (!strcmp(mode, "absent"))
			counts[open_one(absent(real))]++;
		else if (!strcmp(mode, "connect"))
			counts[connect_one(&address, other)]++;
		else
			counts[exec_one(raced, harmless, real, strcmp(mode, "exec") ? "/proc/self/exe" : NULL)]++;
	}
	printf("%d %d %d\n", counts[0], counts[1], counts[REFUSED]);
	return 0;
}
