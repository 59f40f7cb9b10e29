/* A host on lwIP's unix port: has the address it is given, answers ping, and echoes what it gets on TCP port 7. */
#include <unistd.h>

#include <lwip/netif.h>
#include <lwip/tcp.h>
#include <lwip/tcpip.h>

err_t tapif_init(struct netif *netif); /* in liblwip, but in none of Debian's headers */

static struct netif netif;
static ip4_addr_t address, mask;

static err_t echo(void *unused, struct tcp_pcb *connection, struct pbuf *data, err_t error)
{
    if (data == NULL)
        return tcp_close(connection);
    for (struct pbuf *part = data; part != NULL; part = part->next)
        tcp_write(connection, part->payload, part->len, TCP_WRITE_FLAG_COPY);
    tcp_recved(connection, data->tot_len);
    pbuf_free(data);
    return tcp_output(connection);
}

static err_t accepted(void *unused, struct tcp_pcb *connection, err_t error)
{
    tcp_recv(connection, echo);
    return ERR_OK;
}

static void start(void *unused)
{
    struct tcp_pcb *server = tcp_new();

    tcp_bind(server, IP_ADDR_ANY, 7);
    tcp_accept(tcp_listen(server), accepted);
    netif_add(&netif, &address, &mask, NULL, NULL, tapif_init, tcpip_input);
    netif_set_up(&netif);
    netif_set_link_up(&netif);
}

int main(int argc, char **argv)
{
    if (argc != 2 || !ip4addr_aton(argv[1], &address))
        return 2;
    IP4_ADDR(&mask, 255, 255, 255, 0);
    tcpip_init(start, NULL);
    for (;;)
        pause();
}
