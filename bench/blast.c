/* Send frames through a packet socket on an interface. Every capture on the interface sees them.
 *
 *   blast IFNAME SECONDS SIZE[,SIZE...] [RATE]    as fast as possible, or RATE frames per second, singly and evenly spaced
 *
 * If there are several sizes, the frames have these sizes in turn, again and again.
 *
 * Prints one line: the number of frames sent, and the nanoseconds taken (CLOCK_MONOTONIC). A frame that the interface
 * drops (ENOBUFS) counts as sent. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, LARGEST = 65536, SIZES = 4096, LOCAL_EXPERIMENTAL = 0x88b5 /* for experiments (IEEE 802): the kernel drops it */ };

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int sender(const char *ifname)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(ifname) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0 || !to.sll_ifindex || bind(fd, (void *)&to, sizeof to))
		err(1, "packet socket on %s", ifname);
	return fd;
}

/* Return the number of messages that the kernel has processed. sendmmsg(2) stops at the first frame that was dropped;
 * this function counts that frame too. */
static int send_some(int fd, struct mmsghdr *messages, int count)
{
	int sent = sendmmsg(fd, messages, (unsigned)count, 0);
	if (sent < 0 && errno != ENOBUFS)
		err(1, "send");
	return sent < 0 ? 1 : sent + (sent < count);
}

int main(int argc, char **argv)
{
	static unsigned char frame[LARGEST];
	static size_t sizes[SIZES];
	struct iovec parts[BATCH];
	struct mmsghdr messages[BATCH] = { 0 };
	long count = 0, kinds = 0;
	int64_t spent;

	if (argc < 4)
		errx(2, "usage: blast IFNAME SECONDS SIZE[,SIZE...] [RATE]");
	int64_t budget = (int64_t)(atof(argv[2]) * 1e9);
	double rate = argc > 4 ? atof(argv[4]) : 0;
	for (char *word = strtok(argv[3], ","); word && kinds < SIZES; word = strtok(NULL, ","))
		if ((sizes[kinds++] = strtoul(word, NULL, 10)) > LARGEST)
			errx(2, "a frame has at most %d bytes", LARGEST);
	if (!kinds)
		errx(2, "no size");
	struct ether_header *head = (void *)frame;
	memset(head->ether_dhost, 0xff, ETH_ALEN);
	memcpy(head->ether_shost, "\x02\0\0\0\0\x02", ETH_ALEN);
	head->ether_type = htons(LOCAL_EXPERIMENTAL);
	for (int i = 0; i < BATCH; i++) {
		parts[i].iov_base = frame;
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}

	int fd = sender(argv[1]);
	int64_t start = now();
	while ((spent = now() - start) < budget) {
		for (int i = 0; i < (rate ? 1 : BATCH); i++)
			parts[i].iov_len = sizes[(count + i) % kinds];
		if (!rate)
			count += send_some(fd, messages, BATCH);
		else if ((double)count * 1e9 <= (double)spent * rate)
			count += send_some(fd, messages, 1);
	}
	printf("%ld %lld\n", count, (long long)spent);
	return 0;
}
