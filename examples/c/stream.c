/*
 * An echo with many frames in one system call: sends each frame of the EtherType for experiments, 0x88b5, back.
 *
 *     cc -std=c11 -Wall -Wextra -o stream examples/c/stream.c
 *     ./stream 3                                      # or virt3, or its directory, /mnt/virt/virt3
 *
 * In the file `stream`, the length of each frame precedes it: 4 bytes in network byte order. read(2) returns as many
 * whole records as wait and fit. It waits for the first one.
 */
#include "virtif.h"

#include <arpa/inet.h>
#include <err.h>
#include <stdint.h>

enum { LENGTH = 4, ROOM = 1 << 18 }; /* bytes; every record fits into ROOM, so none is cut */

/* Write all records. With a handler for signals, a write may end early. */
static void
write_all(int fd, const unsigned char *data, size_t size)
{
	while (size > 0) {
		ssize_t done = write(fd, data, size);

		if (done == -1 && errno != EINTR)
			err(1, "write");
		if (done > 0) {
			data += done;
			size -= (size_t)done;
		}
	}
}

/* Turn each frame that is to be sent back into its answer, move it to the front, and return the size of all answers. */
static size_t
answer(unsigned char *records, size_t size, const unsigned char mac[6])
{
	size_t answered = 0, next;

	for (size_t at = 0; at < size; at = next) {
		unsigned char *frame = records + at + LENGTH;
		uint32_t length;

		memcpy(&length, records + at, LENGTH);
		next = at + LENGTH + ntohl(length);
		if (frame[12] != 0x88 || frame[13] != 0xb5)
			continue;
		memcpy(frame, frame + 6, 6);
		memcpy(frame + 6, mac, 6);
		memmove(records + answered, records + at, next - at);
		answered += next - at;
	}
	return answered;
}

int
main(int argc, char *argv[])
{
	static unsigned char records[ROOM];
	unsigned char mac[6];
	ssize_t size;
	int fd;

	if (argc != 2)
		errx(2, "usage: stream NUMBER|DIRECTORY");
	if ((fd = virtif_open_stream(argv[1], mac)) == -1) {
		if (errno == EINVAL)
			errx(2, "%s: usage: stream NUMBER|DIRECTORY (the tap itself, fd=N, has no stream)", argv[1]);
		errx(1, "%s: %s", argv[1], virtif_error());
	}
	while ((size = read(fd, records, sizeof(records))) > 0 || (size == -1 && errno == EINTR))
		if (size > 0)
			write_all(fd, records, answer(records, (size_t)size, mac));
	err(1, "%s", argv[1]);
}
