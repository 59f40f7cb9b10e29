/* The client for every server under test. It is in C, so that it adds little to the time measured.
 *
 *   client write     FILE SECONDS SIZE          write frames of SIZE bytes, which the host's kernel ignores
 *   client read      FILE SECONDS SIZE IFNAME   fill the queue of tap IFNAME, then read all; only the reads are timed
 *   client roundtrip FILE SECONDS ADDRESS       send an ARP request for ADDRESS and read the answer, one at a time
 *   client write-records FILE SECONDS SIZE          as write, with RECORDS frames a call, each after its length
 *   client read-records  FILE SECONDS SIZE IFNAME   as read, with the largest reads
 *
 * FILE can be fd:N, an open descriptor of a tap. No server works then, so the time measured is the client's CPU time,
 * which other programs disturb less. Prints one line: the number of frames, and the nanoseconds spent on them (CLOCK_MONOTONIC). SIGALRM kills it after
 * STUCK_SECONDS if the server hangs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* BATCH is below virtfs' queue of 256 frames, so that no frame of a batch is dropped and no read of a batch waits. */
enum { BATCH = 200, RECORDS = 4000 /* with a queue of at least as many */ };
enum { LARGEST = 65536, STUCK_SECONDS = 20, LOCAL_EXPERIMENTAL = 0x88b5 /* for experiments (IEEE 802) */ };

static clockid_t clock_used = CLOCK_MONOTONIC;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(clock_used, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_file(const char *path, int flags)
{
	if (!strncmp(path, "fd:", 3)) {
		clock_used = CLOCK_THREAD_CPUTIME_ID;
		return atoi(path + 3);
	}
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		err(1, "open %s", path);
	return fd;
}

/* Write the header of a broadcast whose EtherType no protocol of the kernel handles, so the kernel drops the frame. */
static void ignored_frame(unsigned char *frame)
{
	struct ether_header *h = (void *)frame;
	memset(h->ether_dhost, 0xff, ETH_ALEN);
	memcpy(h->ether_shost, "\x02\0\0\0\0\x02", ETH_ALEN);
	h->ether_type = htons(LOCAL_EXPERIMENTAL);
}

static long write_frames(const char *path, int64_t budget, size_t size, int64_t *spent)
{
	static unsigned char frame[LARGEST];
	int fd = open_file(path, O_WRONLY);
	long count = 0;
	int64_t start = now();

	ignored_frame(frame);
	for (; (*spent = now() - start) < budget; count += BATCH)
		for (int i = 0; i < BATCH; i++)
			if (write(fd, frame, size) != (ssize_t)size)
				err(1, "write %s", path);
	return count;
}

/* Open a packet socket that bypasses the queueing discipline (packet(7)), so that a frame is in the tap's own queue
 * when send(2) returns. */
static int sender(const char *ifname)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(ifname) };
	int yes = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0 || !to.sll_ifindex || bind(fd, (void *)&to, sizeof to) ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes))
		err(1, "packet socket on %s", ifname);
	return fd;
}

/* Wait until the server feeds a FIFO, which may begin only after open(2) has returned: send frames until one arrives,
 * and discard those that arrive. Do nothing for other files. */
static void await_feeder(int fd, int out, const unsigned char *frame, size_t size)
{
	static unsigned char got[LARGEST];
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	struct stat st;

	if (fstat(fd, &st) || !S_ISFIFO(st.st_mode))
		return;
	do
		send(out, frame, size, 0);
	while (poll(&readable, 1, 10) < 1);
	while (poll(&readable, 1, 100) > 0)
		if (read(fd, got, sizeof got) <= 0)
			err(1, "read");
}

static long read_frames(const char *path, int64_t budget, size_t size, const char *ifname, int64_t *spent)
{
	static unsigned char frame[LARGEST], got[LARGEST];
	int fd = open_file(path, O_RDONLY), out = sender(ifname);
	long count = 0;

	ignored_frame(frame);
	await_feeder(fd, out, frame, size);
	for (; *spent < budget; count += BATCH) {
		for (int i = 0; i < BATCH; i++)
			if (send(out, frame, size, 0) < 0)
				err(1, "send on %s", ifname);
		int64_t start = now();
		for (int i = 0; i < BATCH; i++)
			if (read(fd, got, sizeof got) <= 0)
				err(1, "read %s", path);
		*spent += now() - start;
	}
	return count;
}

/* Write a record (virtfs(5), STREAM): a length of 4 bytes, most significant first, and the frame. Return its size. */
static size_t record(unsigned char *to, size_t size)
{
	uint32_t length = htonl((uint32_t)size);
	memcpy(to, &length, sizeof length);
	ignored_frame(to + sizeof length);
	return sizeof length + size;
}

static long write_records(const char *path, int64_t budget, size_t size, int64_t *spent)
{
	size_t whole = (size + 4) * RECORDS;
	unsigned char *records = calloc(1, whole);
	int fd = open_file(path, O_WRONLY);
	long count = 0;

	if (!records)
		err(1, "calloc");
	for (size_t at = 0; at < whole;)
		at += record(records + at, size);
	int64_t start = now();
	for (; (*spent = now() - start) < budget; count += RECORDS)
		for (size_t at = 0; at < whole;) {
			ssize_t n = write(fd, records + at, whole - at);
			if (n <= 0)
				err(1, "write %s", path);
			at += (size_t)n;
		}
	return count;
}

static long read_records(const char *path, int64_t budget, size_t size, const char *ifname, int64_t *spent)
{
	static unsigned char frame[LARGEST], got[1 << 20];
	int fd = open_file(path, O_RDONLY), out = sender(ifname);
	long count = 0;

	ignored_frame(frame);
	for (; *spent < budget; count += RECORDS) {
		for (int i = 0; i < RECORDS; i++)
			if (send(out, frame, size, 0) < 0)
				err(1, "send on %s", ifname);
		int64_t start = now();
		for (size_t at = 0; at < (size + 4) * RECORDS;) {
			ssize_t n = read(fd, got, sizeof got);
			if (n <= 0)
				err(1, "read %s", path);
			at += (size_t)n;
		}
		*spent += now() - start;
	}
	return count;
}

/* Write an ARP request (RFC 826) for `address`; the sender has the address that follows it. */
static void arp_request(unsigned char *frame, const char *address)
{
	static const unsigned char fixed[] = { 0, 1, 8, 0, 6, 4, 0, 1 };
	struct in_addr target;
	if (!inet_aton(address, &target))
		errx(1, "\"%s\" is not an IPv4 address", address);
	struct in_addr source = { htonl(ntohl(target.s_addr) + 1) };

	ignored_frame(frame);
	((struct ether_header *)frame)->ether_type = htons(ETHERTYPE_ARP);
	memcpy(frame + 14, fixed, sizeof fixed);
	memcpy(frame + 22, frame + 6, ETH_ALEN);
	memcpy(frame + 28, &source, 4);
	memcpy(frame + 38, &target, 4);
}

static int is_arp_reply(const unsigned char *frame, ssize_t size)
{
	return size >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 2;
}

static long round_trips(const char *path, int64_t budget, const char *address, int64_t *spent)
{
	static unsigned char request[60], got[LARGEST];
	int fd = open_file(path, O_RDWR);
	long count = 0;
	int64_t start = now();

	arp_request(request, address);
	for (; (*spent = now() - start) < budget; count++) {
		ssize_t n;
		if (write(fd, request, sizeof request) != sizeof request)
			err(1, "write %s", path);
		do
			if ((n = read(fd, got, sizeof got)) <= 0)
				err(1, "read %s", path);
		while (!is_arp_reply(got, n));
	}
	return count;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		errx(2, "usage: client write|read|write-records|read-records|roundtrip FILE SECONDS SIZE|ADDRESS [IFNAME]");
	const char *mode = argv[1], *path = argv[2], *what = argv[4];
	int64_t budget = (int64_t)(atof(argv[3]) * 1e9), spent = 0;
	long count;

	alarm(STUCK_SECONDS);
	if (!strcmp(mode, "write"))
		count = write_frames(path, budget, strtoul(what, NULL, 10), &spent);
	else if (!strcmp(mode, "read") && argc > 5)
		count = read_frames(path, budget, strtoul(what, NULL, 10), argv[5], &spent);
	else if (!strcmp(mode, "write-records"))
		count = write_records(path, budget, strtoul(what, NULL, 10), &spent);
	else if (!strcmp(mode, "read-records") && argc > 5)
		count = read_records(path, budget, strtoul(what, NULL, 10), argv[5], &spent);
	else if (!strcmp(mode, "roundtrip"))
		count = round_trips(path, budget, what, &spent);
	else
		errx(2, "unknown mode \"%s\"", mode);
	printf("%ld %lld\n", count, (long long)spent);
	return 0;
}
