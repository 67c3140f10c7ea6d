// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * racer {open|connect|exec|arguments|absent} COUNT HARMLESS REAL [MAP]: makes system calls whose argument another
 * thread replaces between check and use (TOCTOU): HARMLESS and REAL differ in one byte. For each call, prints which
 * process made it and what it did: 0, the harmless thing; 1, the real one; 100, nothing, since it was refused.
 *
 * open and arguments: by userfaultfd, the kernel waits for data that it reads before the argument. connect and exec: it
 * reads nothing before, so a slow tracer makes it wait (slow_tracer.bpf.c; MAP is the descriptor of its map). absent:
 * nothing is replaced, but the real path is in memory that is not paged in until the kernel reads it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REFUSED 100
#define PAGE 4096

/* As in slow_tracer.bpf.c. */
struct race {
	unsigned int thread;
	unsigned int begun;
	unsigned int exchanged;
	char shown[64];
};

/* The argument that is replaced. */
static volatile char *byte;
static char harmless_byte, real_byte;
static volatile struct race *race;
/* Zeros that are not paged in before the kernel waits for them: an open_how for reading, or an environment without
 * entries. */
static void *zeros;
static int faults;
static cpu_set_t processors;

static void check(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(3);
	}
}

static void *exchange_at_faults(void *unused)
{
	struct uffd_msg fault;

	while (read(faults, &fault, sizeof(fault)) == sizeof(fault)) {
		struct uffdio_zeropage page = {.range = {.start = (unsigned long)zeros, .len = PAGE}};

		*byte = real_byte;
		check(ioctl(faults, UFFDIO_ZEROPAGE, &page), "UFFDIO_ZEROPAGE");
	}
	return unused;
}

/* The tracer waits on the CPU that makes the calls. */
static void stay_on(int number)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	for (int cpu = 0, found = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &processors) && found++ == number)
			CPU_SET(cpu, &one);
	check(sched_setaffinity(0, sizeof(one), &one), "this takes two processors");
}

static void *exchange_at_calls(void *unused)
{
	stay_on(1);
	for (;;) {
		unsigned int begun = race->begun;

		if (begun != race->exchanged) {
			*byte = real_byte;
			__sync_synchronize();
			race->exchanged = begun;
		}
		/* On a busy machine, a thread that sleeps gets the CPU before those that run. */
		usleep(20);
	}
	return unused;
}

static void start(void *(*run)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, NULL))
		abort();
}

static void wait_at_faults(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register where = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	check(faults, "userfaultfd");
	check(ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
	zeros = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	where.range.start = (unsigned long)zeros;
	where.range.len = PAGE;
	check(ioctl(faults, UFFDIO_REGISTER, &where), "UFFDIO_REGISTER");
	start(exchange_at_faults);
}

static void wait_at_calls(void)
{
	check(sched_getaffinity(0, sizeof(processors), &processors), "sched_getaffinity");
	race->thread = syscall(SYS_gettid);
	start(exchange_at_calls);
	stay_on(0);
}

/* Before each call. */
static void prepare(void)
{
	*byte = harmless_byte;
	if (zeros)
		madvise(zeros, PAGE, MADV_DONTNEED);
}

/* Files begin with the digit that is the result. */
static int digit_of(int fd)
{
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

/* The page belongs to a file, and is unmapped from the process before each call. */
static const char *absent(const char *path)
{
	static char *page;
	int fd;

	if (!page) {
		fd = memfd_create("path", 0);
		if (write(fd, path, strlen(path) + 1) < 0)
			abort();
		page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	}
	madvise(page, PAGE, MADV_DONTNEED);
	return page;
}

struct execution {
	const char *program;
	char *arguments[4];
};

static int execute(void *given)
{
	const struct execution *this = given;

	if (race)
		race->thread = syscall(SYS_gettid);
	syscall(SYS_execve, this->program, this->arguments, zeros);
	_exit(REFUSED);
}

/* In a process that shares this process's memory until its exec. */
static int execute_one(struct execution *this, pid_t *process)
{
	static char stack[65536] __attribute__((aligned(16)));
	int status;

	*process = clone(execute, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, this);
	check(*process, "clone");
	waitpid(*process, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : REFUSED;
}

/* The exit code of the executed program says which one it was: the last digit of its argument or of its name. */
static int executed(int argc, char **argv)
{
	char self[4096];
	ssize_t length;

	if (!strcmp(argv[1], "argument"))
		return argv[2][strlen(argv[2]) - 1] - '0';
	length = readlink("/proc/self/exe", self, sizeof(self));
	return length > 0 ? self[length - 1] - '0' : REFUSED;
}

/* The position at which two texts of the same length differ. */
static size_t difference(const char *one, const char *other)
{
	size_t at = 0;

	while (one[at] && one[at] == other[at])
		at++;
	return at;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return executed(argc, argv);
	const char *mode = argv[1], *harmless = argv[3], *real = argv[4];
	bool connects = !strcmp(mode, "connect"), executes = !strcmp(mode, "exec"), argues = !strcmp(mode, "arguments");
	char *raced = strdup(harmless);
	size_t at = difference(harmless, real);
	in_port_t port = htons(atoi(harmless)), other = htons(atoi(real));
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = port, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct execution execution = {executes ? raced : "/proc/self/exe",
				      {"racer", executes ? "program" : "argument", raced, NULL}};

	/* Ports that differ only in their lower byte. */
	byte = connects ? (char *)&address.sin_port + 1 : raced + at;
	harmless_byte = connects ? port >> 8 : harmless[at];
	real_byte = connects ? other >> 8 : real[at];
	if (argc > 5)
		race = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[5]), 0);
	if (connects || executes)
		wait_at_calls();
	else
		wait_at_faults();
	for (int i = 0; i < atoi(argv[2]); i++) {
		pid_t process = getpid();
		int result;

		prepare();
		if (!strcmp(mode, "open"))
			result = digit_of(syscall(SYS_openat2, AT_FDCWD, raced, zeros, sizeof(struct open_how)));
		else if (!strcmp(mode, "absent"))
			result = digit_of(syscall(SYS_openat, AT_FDCWD, absent(real), O_RDONLY));
		else if (connects)
			result = connect_one(&address, other);
		else
			result = execute_one(&execution, &process);
		printf("%d %d%s%s\n", process, result, argues ? " " : "", argues ? (const char *)race->shown : "");
	}
	return 0;
}
