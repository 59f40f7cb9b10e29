# Three machines and a user's program on one Ethernet; lab.sh runs it.
#
# Each machine is a network namespace, lab-left, lab-middle or lab-right, with the tap of an interface. A cable connects
# the interface to a port of the bridge. The cable of lab-right is long.
create bridge7 up

create 71 up inet 10.0.7.1/24 netns lab-left
create 81 up bridge bridge7
cable 71 81

create 72 up inet 10.0.7.2/24 netns lab-middle
create 82 up bridge bridge7
cable 72 82

create 73 up inet 10.0.7.3/24 netns lab-right
create 83 up bridge bridge7
cable 73 83 delay 5ms

# A port for a program run by a user without root, who cannot send from another address.
create 84 up bridge bridge7 owner nobody antispoof
