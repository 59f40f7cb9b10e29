/*
 * A host on the stack lwIP: answers ping, and echoes what it gets on TCP port 7. Needs Debian's liblwip-dev.
 *
 *     make -C examples/c lwip
 *     echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
 *     examples/c/lwip /mnt/virt/virt3 10.0.3.2 &                    # on the frame file
 *     ping -c 3 10.0.3.2; echo hello | socat - TCP:10.0.3.2:7
 *
 *     virtfs exec 3 -- examples/c/lwip fd=3 10.0.3.2                # on the tap itself, at the speed of a bare tap
 *
 * start(), send_frame() and receive() are a driver for lwIP. One read(2) receives one frame, one write(2) sends one. The
 * program ends with Ctrl-C, or when read(2) fails because the interface is set down or destroyed.
 *
 * With the argument `tun`, it uses lwIP's own driver, which opens /dev/net/tun. doc/works-with.md lends that a tap.
 */
#include "virtif.h"

#include <poll.h>

#include <lwip/api.h>
#include <lwip/etharp.h>
#include <lwip/netif.h>
#include <lwip/tcpip.h>
#include <netif/tapif.h>

enum { ECHO_PORT = 7, BACKLOG = 8 };

static const char *wire; /* the first argument */
static unsigned char mac[6];
static int fd;

/* Print what is wrong with the wire, and end the program. */
static void
fail(const char *reason)
{
	fprintf(stderr, "lwip: %s: %s\n", wire, reason);
	exit(1);
}

/* Send a frame. lwIP as Debian builds it passes it in one piece (LWIP_NETIF_TX_SINGLE_PBUF). */
static err_t
send_frame(struct netif *netif, struct pbuf *frame)
{
	(void)netif;
	return write(fd, frame->payload, frame->len) == frame->len ? ERR_OK : ERR_IF;
}

/* Tell lwIP what the interface can do. */
static err_t
start(struct netif *netif)
{
	memcpy(netif->name, "vi", 2);
	netif->output = etharp_output;
	netif->linkoutput = send_frame;
	netif->mtu = 1500;
	netif->hwaddr_len = 6;
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
	memcpy(netif->hwaddr, mac, sizeof(mac));
	return ERR_OK;
}

/* Pass frames to lwIP until read fails. The descriptor of a tap does not block, so poll(2) waits. */
static void
receive(struct netif *netif)
{
	static char bytes[VIRTIF_FRAME_MAX];
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	ssize_t length;

	for (;;) {
		while ((length = read(fd, bytes, sizeof(bytes))) > 0) {
			/* Not PBUF_POOL, whose buffers have 592 bytes in Debian 12; lwIP writes beyond their end. */
			struct pbuf *frame = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);

			if (frame == NULL)
				continue; /* out of memory; TCP sends it again */
			pbuf_take(frame, bytes, (u16_t)length);
			if (netif->input(frame, netif) != ERR_OK)
				pbuf_free(frame);
		}
		if (length == -1 && (errno == EFAULT || errno == EBADFD))
			fail("the tap is gone");
		if (length == 0 || (errno != EAGAIN && errno != EINTR))
			fail(length == 0 ? "end of file" : strerror(errno));
		poll(&ready, 1, -1);
	}
}

/* Send everything back to one client. */
static void
echo(void *argument)
{
	struct netconn *client = argument;
	struct netbuf *data;
	void *part;
	u16_t length;

	while (netconn_recv(client, &data) == ERR_OK) {
		do {
			netbuf_data(data, &part, &length);
			netconn_write(client, part, length, NETCONN_COPY);
		} while (netbuf_next(data) >= 0);
		netbuf_delete(data);
	}
	netconn_close(client);
	netconn_delete(client);
}

/* Accept clients. */
static void
serve(void *unused)
{
	struct netconn *server = netconn_new(NETCONN_TCP), *client;

	(void)unused;
	netconn_bind(server, IP_ADDR_ANY, ECHO_PORT);
	netconn_listen_with_backlog(server, BACKLOG);
	while (netconn_accept(server, &client) == ERR_OK)
		sys_thread_new("echo", echo, client, 0, 0);
}

/* Open the interface that the first argument names. */
static void
open_wire(void)
{
	if ((fd = virtif_open_named(wire, mac)) != -1)
		return;
	if (errno == EBADF || strncmp(wire, "fd=", 3) == 0)
		fail("this is not a descriptor of virtfs exec; try virtfs exec 3 -- ./lwip fd=3 ADDRESS");
	if (errno == EINVAL)
		fail("this is not the number or the directory of an interface of virtfs");
	fail(virtif_error());
}

int
main(int argc, char **argv)
{
	static struct netif netif;
	ip4_addr_t address, mask;
	int tun;

	if (argc != 3 || !ip4addr_aton(argv[2], &address)) {
		fprintf(stderr, "usage: lwip NUMBER|DIRECTORY|fd=N|tun ADDRESS\n");
		return 2;
	}
	wire = argv[1];
	tun = strcmp(wire, "tun") == 0;
	if (tun && getenv("PRECONFIGURED_TAPIF") == NULL)
		fail("PRECONFIGURED_TAPIF must be the name of the tap, such as tap3");
	if (!tun)
		open_wire();

	IP4_ADDR(&mask, 255, 255, 255, 0);
	tcpip_init(NULL, NULL);
	LOCK_TCPIP_CORE();
	netif_add(&netif, &address, &mask, NULL, NULL, tun ? tapif_init : start, tcpip_input);
	netif_set_up(&netif);
	netif_set_link_up(&netif);
	UNLOCK_TCPIP_CORE();
	sys_thread_new("serve", serve, NULL, 0, 0);
	printf("%s answers ping, and echoes on TCP port %d\n", argv[2], ECHO_PORT);
	fflush(stdout);
	if (tun)
		for (;;)
			pause();
	receive(&netif);
	return 0;
}
