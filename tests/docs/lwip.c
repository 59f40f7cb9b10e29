/* A host on lwIP's unix port: has the address it is given, and answers ping. */
#include <unistd.h>

#include <lwip/netif.h>
#include <lwip/tcpip.h>

err_t tapif_init(struct netif *netif); /* in liblwip, but in none of Debian's headers */

static struct netif netif;
static ip4_addr_t address, mask;

static void start(void *unused)
{
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
