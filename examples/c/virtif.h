/*
 * virtif.h: create, open and destroy the interfaces of a virtfs mount from C or C++. POSIX, no library.
 *
 *     #include "virtif.h"
 *
 *     int fd, error = virtif_create(3);               // "create 3 up" into ctl; 0 or an errno
 *     if (error)
 *         errx(1, "%s", virtif_error());              // the reason: that of virtfs, or strerror(3)
 *     fd = virtif_open(3);                            // read(2) receives one frame, write(2) sends one; -1: an error
 *     error = virtif_address("/mnt/virt/virt3", mac); // the MAC address of virt
 *     fd = virtif_open_named(argv[1], mac);           // for "3", "virt3", "/mnt/virt/virt3" or, in virtfs exec, "fd=3"
 *     if (fd != -1 && read(fd, frame, sizeof(frame)) == -1)
 *         err(1, "read");                             // not virtif_error(), which knows only the calls of this header
 *
 * Include this header first. With -std=c11, other headers would otherwise leave out POSIX; -D_POSIX_C_SOURCE=200809L or
 * -std=gnu11 helps too.
 *
 * The mount is that of `virtfs shell` ($VIRTFS), or /mnt/virt. Creating and destroying need root; the owner of an
 * interface may open it. rump_pub_virtif_create() has the name and the meaning of the function of NetBSD's rump kernels
 * (sys/rump/net/lib/libvirtif/if_virt.c), for programs that were written for it.
 *
 * Threads may call all functions except rump_pub_virtif_create(), virtif_fd() and virtif_destroy() for one number at
 * the same time. virtif_error() has one buffer for each thread.
 */
#ifndef VIRTIF_H
#define VIRTIF_H

#if defined(__STRICT_ANSI__) && !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L /* PATH_MAX and O_CLOEXEC, with -std=c11 */
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if !defined(PATH_MAX) || !defined(O_CLOEXEC)
#error "virtif.h needs POSIX.1-2008: include it before all other headers, or compile with -D_POSIX_C_SOURCE=200809L"
#else

#define VIRTIF_FRAME_MAX 65553 /* bytes; the longest frame: a buffer of this size is enough for every read(2) */
#define VIRTIF_RUMP_MAX 0x100  /* rump kernels have the interfaces virt0 to virt255 */

#ifdef __cplusplus
#define VIRTIF_THREAD_ static thread_local
#else
#define VIRTIF_THREAD_ static _Thread_local
#endif

static int virtif_kept_[VIRTIF_RUMP_MAX]; /* descriptors of rump_pub_virtif_create(), plus 1; 0: none */
VIRTIF_THREAD_ char virtif_path_of_own_[PATH_MAX]; /* the file that the errno in virtif_own_ is about, or "" */
VIRTIF_THREAD_ int virtif_own_;           /* the errno that virtif_error() explains by itself; 0: see last_error */
#define VIRTIF_UNKNOWN_ (-1)              /* in virtif_own_: a text names no interface */

/* Record that the kernel or this file, not virtfs, refuses a call. Return the errno. */
static inline int
virtif_own_error_(int error)
{
	virtif_path_of_own_[0] = '\0';
	return virtif_own_ = error;
}

/* The same for a call on a file. */
static inline int
virtif_file_error_(int error, const char *path)
{
	(void)snprintf(virtif_path_of_own_, PATH_MAX, "%s", path);
	return virtif_own_ = error;
}

/* Store the path of a file of the mount. Return 0, or ENAMETOOLONG. */
static inline int
virtif_path_(char path[PATH_MAX], const char *format, int num)
{
	const char *mount = getenv("VIRTFS");
	int used = snprintf(path, PATH_MAX, "%s/", mount && *mount ? mount : "/mnt/virt");
	int more;

	if (used < 0 || used >= PATH_MAX)
		return ENAMETOOLONG;
	more = snprintf(path + used, PATH_MAX - (size_t)used, format, num);
	return more < 0 || more >= PATH_MAX - used ? ENAMETOOLONG : 0;
}

/* Write a line to ctl in one write(2). Return 0, or the errno of open(2) or write(2). */
static inline int
virtif_ctl_(const char *format, int num)
{
	char path[PATH_MAX], line[64];
	int fd, error = virtif_path_(path, "ctl", 0);

	if (error)
		return virtif_own_error_(error);
	if ((fd = open(path, O_WRONLY | O_CLOEXEC)) == -1) {
		error = virtif_file_error_(errno, path);
		virtif_own_ = error == ENOENT ? 0 : error; /* EACCES: the kernel does not set last_error */
		return error;
	}
	virtif_own_ = 0;
	(void)snprintf(line, sizeof(line), format, num);
	if (write(fd, line, strlen(line)) == -1)
		error = errno;
	(void)close(fd);
	return error;
}

/*
 * Create the interface virt<num>, up. Return 0 or an errno: EEXIST, it exists; EACCES, you are not root; EINVAL, the
 * number is negative; EBUSY, another program holds tap<num>; ENOENT, no virtfs is mounted.
 */
static inline int
virtif_create(int num)
{
	return num < 0 ? virtif_own_error_(EINVAL) : virtif_ctl_("create %d up\n", num);
}

/*
 * Record the errno of open(2) of a file, and return it. EBUSY is a refusal of virtfs, which sets last_error.
 * in_mount: whether the path was that of virtif_path_(). If so, and there is no last_error, no virtfs is mounted.
 */
static inline int
virtif_refused_open_(int error, const char *file, int in_mount)
{
	char path[PATH_MAX];

	virtif_own_ = virtif_file_error_(error, file) == EBUSY ? 0 : error;
	if (in_mount && error == ENOENT && virtif_path_(path, "last_error", 0) == 0 && access(path, F_OK) == -1)
		virtif_own_ = 0;
	return error;
}

/*
 * Open the frames of virt<num>. Return a descriptor, or -1 with errno: EBUSY, another program has it open; ENOENT, there
 * is no such interface; EACCES, it belongs to another user.
 */
static inline int
virtif_open(int num)
{
	char path[PATH_MAX];
	int fd, error = virtif_path_(path, "virt%d/frame", num);

	if (error) {
		errno = virtif_own_error_(error);
		return -1;
	}
	if ((fd = open(path, O_RDWR | O_CLOEXEC)) == -1)
		errno = virtif_refused_open_(errno, path, 1);
	return fd;
}

/* Return the number in a text of 1 to 9 digits, -1 for any other text. */
static inline int
virtif_number_(const char *text)
{
	size_t length = strlen(text);

	return length == 0 || length > 9 || strspn(text, "0123456789") != length ? -1 : atoi(text);
}

/* Return the number in 3 or virt3, -1 for any other text. The path of a directory virt3 that exists is such a text. */
static inline int
virtif_unit_(const char *name)
{
	int is_named = strncmp(name, "virt", 4) == 0;

	return is_named && access(name, F_OK) == 0 ? -1 : virtif_number_(is_named ? name + 4 : name);
}

/* Read the MAC address of the interface in a directory, such as /mnt/virt/virt3. Return 0 or an errno. */
static inline int
virtif_address(const char *directory, unsigned char mac[6])
{
	char path[PATH_MAX];
	FILE *file;
	int count;

	if (snprintf(path, sizeof(path), "%s/address", directory) >= PATH_MAX)
		return virtif_own_error_(ENAMETOOLONG);
	if ((file = fopen(path, "r")) == NULL)
		return virtif_file_error_(errno, path);
	count = fscanf(file, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5);
	(void)fclose(file);
	return count == 6 ? 0 : virtif_own_error_(ENXIO); /* the interface has vanished meanwhile */
}

/*
 * Open a file in the directory of an interface, unless `fd` is NULL, and read the MAC address of the interface. Return 0
 * or an errno. in_mount: as for virtif_refused_open_().
 */
static inline int
virtif_open_in_(const char *directory, const char *file, int *fd, unsigned char mac[6], int in_mount)
{
	char path[PATH_MAX];
	int error = virtif_address(directory, mac);

	if (snprintf(path, sizeof(path), "%s/%s", directory, error ? "address" : file) >= PATH_MAX)
		return virtif_own_error_(ENAMETOOLONG);
	if (error == 0 && fd != NULL && (*fd = open(path, O_RDWR | O_CLOEXEC)) == -1)
		error = errno;
	if (error)
		(void)virtif_refused_open_(error, path, in_mount);
	if (virtif_own_ && (error == ENOENT || error == ENOTDIR))
		virtif_own_ = VIRTIF_UNKNOWN_;
	return error;
}

/*
 * Open an interface as a user names it, and store its MAC address: 3 or virt3; the path of its directory; or fd=3, the
 * descriptor 3 of a program that `virtfs exec` runs. Return a descriptor, or -1 with errno:
 * EINVAL, it is none of these; ENOENT or ENOTDIR, there is no such interface; EBADF, the descriptor is not one of
 * `virtfs exec`; and those of virtif_open().
 */
static inline int
virtif_open_named(const char *name, unsigned char mac[6])
{
	int is_fd = strncmp(name, "fd=", 3) == 0, num = is_fd ? virtif_number_(name + 3) : virtif_unit_(name);
	int fd = num, error = 0;
	char path[PATH_MAX], variable[32];
	const char *directory = name;

	if (num == -1 && (is_fd || *name == '\0')) {
		error = EINVAL;
	} else if (is_fd) {
		(void)snprintf(variable, sizeof(variable), "VIRTFS_FD%d", num); /* virtfs exec sets it */
		directory = getenv(variable);
		if (directory == NULL || fcntl(num, F_GETFD) == -1)
			error = EBADF;
	} else if (num != -1) {
		error = virtif_path_(path, "virt%d", num);
		directory = path;
	}
	if (error)
		(void)virtif_own_error_(error);
	else
		error = virtif_open_in_(directory, "frame", is_fd ? NULL : &fd, mac, directory == path);
	if (error) {
		errno = error;
		return -1;
	}
	return fd;
}

/*
 * Open the file `stream` of an interface, which is named as for virtif_open_named(), and store its MAC address. Return a
 * descriptor, or -1 with errno, as virtif_open_named() does. EINVAL: also for fd=3, because a tap has no stream.
 */
static inline int
virtif_open_stream(const char *name, unsigned char mac[6])
{
	int num = virtif_unit_(name), fd = -1, error = 0;
	char path[PATH_MAX];

	if (*name == '\0' || strncmp(name, "fd=", 3) == 0)
		error = EINVAL;
	else if (num != -1)
		error = virtif_path_(path, "virt%d", num);
	if (error)
		(void)virtif_own_error_(error);
	else
		error = virtif_open_in_(num != -1 ? path : name, "stream", &fd, mac, num != -1);
	if (error) {
		errno = error;
		return -1;
	}
	return fd;
}

/* Return the descriptor that rump_pub_virtif_create(num) has opened, or -1. */
static inline int
virtif_fd(int num)
{
	return num < 0 || num >= VIRTIF_RUMP_MAX ? -1 : virtif_kept_[num] - 1;
}

/* Destroy virt<num>, and close virtif_fd(num). Return 0 or an errno: ENXIO, there is no such interface. */
static inline int
virtif_destroy(int num)
{
	if (virtif_fd(num) != -1) {
		(void)close(virtif_fd(num));
		virtif_kept_[num] = 0;
	}
	return num < 0 ? virtif_own_error_(EINVAL) : virtif_ctl_("destroy %d\n", num);
}

/*
 * Attach to virt<num> as a rump kernel does: create it unless the host has it, and open it. Return 0 or an errno, with
 * the meanings that they have there: E2BIG, the number is 256 or more; EBUSY, it is attached already, by this program
 * or another one; ENOENT or EACCES, it does not exist and you cannot create it. virtif_fd() has the descriptor.
 */
static inline int
rump_pub_virtif_create(int num)
{
	int fd, error, own;

	if (num >= VIRTIF_RUMP_MAX)
		return virtif_own_error_(E2BIG);
	if (num < 0)
		return virtif_own_error_(ENOENT); /* that of open("/dev/tap-1") */
	error = virtif_create(num);
	own = virtif_own_;
	if ((fd = virtif_open(num)) == -1) {
		if (error == 0 || errno != ENOENT || error == EEXIST)
			return errno; /* an owner may open, but not create: the errno of open(2) tells more */
		virtif_own_ = own;
		(void)virtif_path_(virtif_path_of_own_, "ctl", 0);
		return error;
	}
	virtif_kept_[num] = fd + 1;
	return 0;
}

/*
 * Return why the last failed call of a virtif function by this thread has failed: the sentence of last_error if virtfs
 * refused it, a sentence of this header, or the text of strerror(3), after the path of the file if a file could not be
 * opened. The next refused command of the same user replaces the sentence of virtfs.
 * After a read(2) or write(2) that has failed, use strerror(errno): this function does not know about it.
 */
static inline const char *
virtif_error(void)
{
	VIRTIF_THREAD_ char text[PATH_MAX + 128];
	char path[PATH_MAX];
	ssize_t size = -1;
	int fd;

	if (virtif_own_ == VIRTIF_UNKNOWN_)
		return "no such interface: give its number, or the path of its directory";
	if (virtif_own_) {
		const char *between = virtif_path_of_own_[0] ? ": " : "";

		(void)snprintf(text, sizeof(text), "%s%s%s", virtif_path_of_own_, between, strerror(virtif_own_));
		return text;
	}
	if (virtif_path_(path, "last_error", 0) == 0 && (fd = open(path, O_RDONLY | O_CLOEXEC)) != -1) {
		size = read(fd, text, sizeof(text) - 1);
		(void)close(fd);
	}
	if (size < 0)
		return "no virtfs is mounted";
	text[size] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return text;
}

#endif /* PATH_MAX, O_CLOEXEC */
#endif /* VIRTIF_H */
