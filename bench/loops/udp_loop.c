// SPDX-License-Identifier: Apache-2.0
// udp_loop N [CPU]: sends N datagrams of 1,000 bytes to itself over loopback, pinned to a CPU; prints nanoseconds and
// CPU nanoseconds per datagram.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "pin.h"
#include "report.h"

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	long count = argc > 1 ? atol(argv[1]) : 100000;
	int sock = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t length = sizeof(address);
	static char data[1000];
	struct timespec begin;

	if (argc > 2 && pin(argv[2]))
		return 1;
	if (sock < 0 || bind(sock, (void *)&address, length) || getsockname(sock, (void *)&address, &length) ||
	    connect(sock, (void *)&address, length))
		return perror("socket"), 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < count; i++)
		if (send(sock, data, sizeof(data), 0) < 0 || recv(sock, data, sizeof(data), 0) < 0)
			return perror("send"), 1;
	print_ns_per(count, begin);
	return 0;
}
