// SPDX-License-Identifier: Apache-2.0
// tcp_loop connect N [CPU]: N connections over loopback, one after the other: connect, accept, one byte, close both
// ends. tcp_loop stream N [CPU]: N pieces of 64 KiB through one connection. tcp_loop hold N: opens N connections,
// prints `open`, and closes them when its input ends. Prints nanoseconds and CPU nanoseconds per connection or piece.
// A closed connection keeps its port for a minute (TIME_WAIT), so the search for a free port takes longer, up to half a
// millisecond; connect and stream use their own network namespace without that. And the number of descriptors is
// limited, so `hold` forks for each 8,000 connections.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pin.h"
#include "report.h"

#define PORT 7321
#define PIECE 65536
#define PER_ADDRESS 16000
#define PER_PROCESS 8000

// A network namespace with loopback only, where a closed connection does not keep its port.
static void enter_own_network(void)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd, kept;

	if (unshare(CLONE_NEWNET))
		exit((perror("unshare"), 1));
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	kept = open("/proc/sys/net/ipv4/tcp_max_tw_buckets", O_WRONLY);
	if (ioctl(fd, SIOCSIFFLAGS, &loopback) || write(kept, "0", 1) != 1)
		exit((perror("the network's settings"), 1));
	close(fd);
	close(kept);
}

static struct sockaddr_in at(unsigned int host, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};

	return address;
}

static int listener(int port)
{
	struct sockaddr_in address = at(INADDR_LOOPBACK, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 128))
		exit((perror("listen"), 1));
	return fd;
}

static void pair(int server, int port, long number, int ends[2])
{
	struct sockaddr_in to = at(INADDR_LOOPBACK, port),
			   from = at(INADDR_LOOPBACK + 1 + number / PER_ADDRESS % 60000, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		exit((perror("connect"), 1));
	ends[0] = fd;
	ends[1] = accept(server, NULL, NULL);
	if (ends[1] < 0)
		exit((perror("accept"), 1));
}

static void connects(long count)
{
	int server = listener(PORT), ends[2];
	double since = now_ns();
	char byte = 1;

	for (long i = 0; i < count; i++) {
		pair(server, PORT, i, ends);
		if (write(ends[0], &byte, 1) != 1 || read(ends[1], &byte, 1) != 1)
			exit((perror("byte"), 1));
		close(ends[0]);
		close(ends[1]);
		since = note_round(since, count);
	}
}

static void stream(long count)
{
	static char piece[PIECE];
	int server = listener(PORT), ends[2], size = 4 * PIECE;
	double since;

	setsockopt(server, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	pair(server, PORT, 0, ends);
	since = now_ns();
	for (long i = 0; i < count; i++) {
		for (ssize_t sent = 0, n; sent < PIECE; sent += n)
			if ((n = write(ends[0], piece, PIECE - sent)) <= 0)
				exit((perror("write"), 1));
		for (ssize_t got = 0, n; got < PIECE; got += n)
			if ((n = read(ends[1], piece, PIECE - got)) <= 0)
				exit((perror("read"), 1));
		since = note_round(since, count);
	}
}

static void hold(long count)
{
	int said[2], ends[2], processes = 0;
	char byte;

	if (pipe(said))
		exit((perror("pipe"), 1));
	for (long first = 0; first < count; first += PER_PROCESS, processes++) {
		if (fork())
			continue;
		int server = listener(PORT + 1 + first / PER_PROCESS);

		for (long i = first; i < first + PER_PROCESS && i < count; i++)
			pair(server, PORT + 1 + first / PER_PROCESS, i, ends);
		if (write(said[1], "", 1) != 1)
			exit(1);
		exit(read(0, &byte, 1) != 0);
	}
	for (int i = 0; i < processes; i++)
		if (read(said[0], &byte, 1) != 1)
			exit(1);
	printf("open\n");
	fflush(stdout);
	while (wait(NULL) > 0)
		;
}

int main(int argc, char **argv)
{
	struct timespec begin;
	long count;

	if (argc < 3)
		return fprintf(stderr, "usage: tcp_loop connect|stream|hold N [CPU]\n"), 2;
	count = atol(argv[2]);
	if (argc > 3 && pin(argv[3]))
		return 1;
	if (!strcmp(argv[1], "hold"))
		return hold(count), 0;
	enter_own_network();
	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (!strcmp(argv[1], "connect"))
		connects(count);
	else
		stream(count);
	print_ns_per(count, begin);
	return 0;
}
