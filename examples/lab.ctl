# Three machines and a user's program on one Ethernet; lab.sh runs it.
#
# A machine is a network namespace: lab-left, lab-middle, lab-right. Its interface's tap lies in it, and a cable
# leads from there to a port of the bridge. The cable to the right one is long.
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

# A port for a program of a user who is not root; he can be nobody else on this Ethernet.
create 84 up bridge bridge7 owner nobody antispoof
