/*
 * A host in C: answers ARP and ping for one address, over a frame file or on the tap itself.
 *
 *     cc -std=c11 -Wall -Wextra -o responder examples/c/responder.c
 *     echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
 *     ./responder 3 10.0.3.2 &                        # or virt3, or its directory, /mnt/virt/virt3
 *     ping -c 3 10.0.3.2
 *     virtfs exec 3 -- ./responder fd=3 10.0.3.2      # instead of the third line: on the tap itself
 *
 * One read(2) receives one frame, one write(2) sends one; the rest is RFC 826 (ARP), 791 (IP) and 792 (ICMP).
 */
#include "virtif.h"

#include <arpa/inet.h>

enum { ETHER = 14, ARP = 28, IP = 20, ICMP = 8 }; /* lengths of headers in bytes */

static const unsigned char arp_request[] = {0, 1, 8, 0, 6, 4, 0, 1}; /* Ethernet, IPv4, 6, 4, request */

/* Return the Internet checksum (RFC 1071). */
static unsigned
checksum(const unsigned char *data, size_t length)
{
	unsigned long sum = 0;

	for (size_t i = 0; i < length; i++)
		sum += i % 2 ? data[i] : (unsigned long)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

static void
put16(unsigned char *at, unsigned value)
{
	at[0] = value >> 8 & 0xff;
	at[1] = value & 0xff;
}

/* Turn a frame into the answer of a host with these addresses, in place. Return its length, 0 for no answer. */
static size_t
answer(unsigned char *frame, size_t length, const unsigned char mac[6], const unsigned char ip[4])
{
	unsigned char *packet = frame + ETHER;

	if (length >= ETHER + ARP && frame[12] == 8 && frame[13] == 6) {
		if (memcmp(packet, arp_request, sizeof(arp_request)) != 0 || memcmp(packet + 24, ip, 4) != 0)
			return 0;
		packet[7] = 2; /* reply: the sender becomes the target */
		memcpy(packet + 18, packet + 8, 10);
		memcpy(packet + 8, mac, 6);
		memcpy(packet + 14, ip, 4);
		length = ETHER + ARP;
	} else if (length >= ETHER + IP + ICMP && frame[12] == 8 && frame[13] == 0) {
		size_t head = (packet[0] & 15u) * 4, size = (size_t)packet[2] << 8 | packet[3];
		unsigned char *echo = packet + head;

		if (head < IP || size < head + ICMP || length < ETHER + size || packet[9] != 1 || echo[0] != 8 ||
		    memcmp(packet + 16, ip, 4) != 0 || (packet[6] & 0x3f) || packet[7])
			return 0;
		echo[0] = 0; /* echo reply */
		put16(echo + 2, 0);
		put16(echo + 2, checksum(echo, size - head));
		memcpy(packet + 16, packet + 12, 4);
		memcpy(packet + 12, ip, 4);
		put16(packet + 10, 0);
		put16(packet + 10, checksum(packet, head));
		length = ETHER + size;
	} else {
		return 0;
	}
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, mac, 6);
	return length;
}

/* Return why the interface cannot be used. other: the text for an errno that has no sentence here. */
static const char *
reason(int error, const char *other)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		return virtif_error();
	case EBADF:
		return "not a descriptor of virtfs exec";
	case EBUSY:
		return "another program has it (in virtfs exec, give fd=3 instead)";
	case EFAULT: /* of a read(2) that waits */
	case EBADFD:
		return "the tap is gone";
	default:
		return other;
	}
}

static int
usage(void)
{
	fprintf(stderr, "usage: responder NUMBER|DIRECTORY|fd=N ADDRESS\n");
	return 2;
}

int
main(int argc, char *argv[])
{
	static unsigned char frame[VIRTIF_FRAME_MAX];
	unsigned char mac[6], ip[4];
	ssize_t length;
	int fd;

	if (argc != 3 || inet_pton(AF_INET, argv[2], ip) != 1)
		return usage();
	if ((fd = virtif_open_named(argv[1], mac)) == -1) {
		if (errno == EINVAL)
			return usage();
		fprintf(stderr, "responder: %s: %s\n", argv[1], reason(errno, virtif_error()));
		return 1;
	}
	while ((length = read(fd, frame, sizeof(frame))) > 0 || (length == -1 && errno == EINTR)) {
		size_t size = length > 0 ? answer(frame, (size_t)length, mac, ip) : 0;

		if (size && write(fd, frame, size) == -1)
			break;
	}
	fprintf(stderr, "responder: %s: %s\n", argv[1], reason(errno, strerror(errno)));
	return 1;
}
