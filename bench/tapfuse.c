/* The rival in C: one file "frame" for one tap, with libfuse's low-level interface, written with care.
 *
 *   tapfuse [-s] IFNAME DIR     -s: one thread for all requests; without it, libfuse's thread pool with its defaults
 *
 * IFNAME is an existing persistent tap. A read that finds no frame is parked, so that it does not occupy a worker. A
 * separate thread waits for the tap and answers parked reads. FUSE_INTERRUPT ends a parked read with EINTR. */
#define FUSE_USE_VERSION 35
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FRAME_INODE = 2, LARGEST = 65550 };

static int tap;

struct parked {
	fuse_req_t request;
	size_t size;
	struct parked *next;
};
static struct parked *parked;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some_parked = PTHREAD_COND_INITIALIZER;

static struct stat attributes(fuse_ino_t inode)
{
	return (struct stat){ .st_ino = inode, .st_nlink = 1,
			      .st_mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0600 };
}

static void on_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info)
{
	struct stat st = attributes(inode);
	(void)info;
	fuse_reply_attr(request, &st, 1.0);
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .ino = FRAME_INODE, .attr = attributes(FRAME_INODE),
					  .attr_timeout = 1.0, .entry_timeout = 1.0 };
	if (parent != FUSE_ROOT_ID || strcmp(name, "frame"))
		fuse_reply_err(request, ENOENT);
	else
		fuse_reply_entry(request, &entry);
}

static void on_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info)
{
	(void)inode;
	info->direct_io = info->nonseekable = 1;
	fuse_reply_open(request, info);
}

/* Answer the request with the tap's next frame. Return 0, without answering, if there is none yet. */
static int answer(fuse_req_t request, size_t size)
{
	char frame[LARGEST];
	ssize_t n = read(tap, frame, size < sizeof frame ? size : sizeof frame);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 0)
		fuse_reply_err(request, errno);
	else
		fuse_reply_buf(request, frame, (size_t)n);
	return 1;
}

static void on_interrupt(fuse_req_t request, void *unused)
{
	struct parked *found = NULL;
	(void)unused;
	pthread_mutex_lock(&lock);
	for (struct parked **p = &parked; *p; p = &(*p)->next)
		if ((*p)->request == request) {
			found = *p;
			*p = found->next;
			break;
		}
	pthread_mutex_unlock(&lock);
	if (found)
		fuse_reply_err(request, EINTR);
	free(found);
}

static void park(fuse_req_t request, size_t size)
{
	struct parked *new = malloc(sizeof *new), **last = &parked;
	if (!new) {
		fuse_reply_err(request, ENOMEM);
		return;
	}
	*new = (struct parked){ request, size, NULL };
	fuse_req_interrupt_func(request, on_interrupt, NULL);
	pthread_mutex_lock(&lock);
	int too_late = fuse_req_interrupted(request);
	if (!too_late) {
		while (*last)
			last = &(*last)->next;
		*last = new;
		pthread_cond_signal(&some_parked);
	}
	pthread_mutex_unlock(&lock);
	if (too_late) {
		fuse_reply_err(request, EINTR);
		free(new);
	}
}

static void on_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info)
{
	(void)inode, (void)offset;
	if (answer(request, size))
		return;
	if (info->flags & O_NONBLOCK)
		fuse_reply_err(request, EAGAIN);
	else
		park(request, size);
}

static void on_write(fuse_req_t request, fuse_ino_t inode, const char *frame, size_t size, off_t offset,
		     struct fuse_file_info *info)
{
	(void)inode, (void)offset, (void)info;
	if (write(tap, frame, size) < 0)
		fuse_reply_err(request, errno);
	else
		fuse_reply_write(request, size);
}

static void *answer_parked(void *unused)
{
	struct pollfd readable = { .fd = tap, .events = POLLIN };
	for (;;) {
		pthread_mutex_lock(&lock);
		while (!parked)
			pthread_cond_wait(&some_parked, &lock);
		pthread_mutex_unlock(&lock);
		poll(&readable, 1, -1);
		pthread_mutex_lock(&lock);
		struct parked *first = parked;
		if (first && answer(first->request, first->size)) {
			parked = first->next;
			free(first);
		}
		pthread_mutex_unlock(&lock);
	}
	return unused;
}

static int attach(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		err(1, "%s", name);
	return fd;
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = on_lookup, .getattr = on_getattr, .open = on_open, .read = on_read, .write = on_write,
};

int main(int argc, char **argv)
{
	int one_thread = argc > 1 && !strcmp(argv[1], "-s");
	if (argc != 3 + one_thread)
		errx(2, "usage: tapfuse [-s] IFNAME DIR");
	tap = attach(argv[argc - 2]);

	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_loop_config pool = { .clone_fd = 0, .max_idle_threads = 10 };
	struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
	pthread_t thread;
	if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[argc - 1]))
		return 1;
	if (pthread_create(&thread, NULL, answer_parked, NULL))
		errx(1, "cannot create the thread that answers parked reads");
	int status = one_thread ? fuse_session_loop(session) : fuse_session_loop_mt(session, &pool);
	fuse_session_unmount(session);
	return status != 0;
}
