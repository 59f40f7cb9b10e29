# cython: language_level=3
"""The compiled loop of the channel, for plain requests on `frame`; see doc/design.md.

A request is plain if it carries one whole frame between a file and its tap, with nothing in between, and succeeds. All
other requests are left to the Python loop in `channel`, which also answers plain requests if there is no compiled loop.
A request that the tap refuses is left to it too: nothing has happened yet, and Python tries again.

Only trio's thread changes the state of a wire, and it stays in `answer` meanwhile. So each open file is asked once per
call how its frames pass, and is told at the end of the call how many have passed.
"""

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport read, write

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<linux/virtio_net.h>":
    cdef struct virtio_net_hdr:  # precedes each frame of a tap with IFF_VNET_HDR
        pass

cdef extern from "<linux/fuse.h>":
    cdef enum:
        FUSE_READ, FUSE_WRITE, FUSE_READ_LOCKOWNER
    cdef struct fuse_in_header:
        uint32_t opcode, uid, pid
        uint64_t unique
    cdef struct fuse_read_in:  # fuse_write_in has the same fields, but write_flags instead of read_flags
        uint64_t fh, offset
        uint32_t size, read_flags, flags
    cdef struct fuse_out_header:
        uint32_t len
        int32_t error
        uint64_t unique
    cdef struct fuse_write_out:
        uint32_t size, padding

cdef struct Request:  # the data of a WRITE follow
    fuse_in_header head
    fuse_read_in body

cdef struct Flow:  # the frames of one open file
    bint known  # whether the other fields are valid
    uint64_t fh
    int source, sink  # descriptors of the tap; source is -1 if frames cannot be read from it
    uint32_t shortest, longest, thread, whole  # thread may write frames of these lengths, if they are below `whole`
    int64_t reads, read_bytes, read_at, writes, write_bytes, write_at  # what has passed in this call of `answer`

cdef enum:
    FLOWS = 8
    VNET = sizeof(virtio_net_hdr)
    FRAME = sizeof(fuse_out_header)  # where the frame begins in an answer


cdef int64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * <int64_t>1000000000 + t.tv_nsec


cdef class PlainLoop:
    """Answers plain requests.

    fuse: the non-blocking descriptor of /dev/fuse. room, reply: the buffers for requests and answers. devices: the open
    device files. fail: answers a request with an errno. large: the length above which a request is not plain, in bytes.
    long, rest: channel.LONG and channel.REST. due: called after `each` requests; if it returns true, `answer` returns with
    a `left` of 0.
    """

    cdef int fuse, each
    cdef ssize_t large
    cdef bytearray room, reply
    cdef Request *request  # in room
    cdef char *packet  # in reply
    cdef dict devices
    cdef object fail, due
    cdef list handles  # the open file of each flow, or None
    cdef Flow[FLOWS] flows
    cdef int64_t clock  # when /dev/fuse was last read
    cdef bint working  # whether the request answered last is not yet in `spent`
    # Until when not to poll: see channel.LONG
    cdef readonly int64_t contended
    cdef int64_t long, rest
    # About the last call of `answer`: the number of requests answered, the time in ns that they took (without the time
    # between an answer and the next request), when the last of them ended, and when /dev/fuse was last empty, or 0.
    cdef readonly int64_t requests, spent, ended, empty

    def __init__(self, int fuse, bytearray room, bytearray reply, dict devices, fail, ssize_t large, int64_t long,
                 int64_t rest, due, int each):
        if len(room) < max(sizeof(Request), large) or len(reply) <= FRAME:
            raise ValueError("a buffer is too small")
        self.fuse, self.room, self.reply, self.devices, self.fail = fuse, room, reply, devices, fail
        self.large, self.long, self.rest, self.handles, self.due, self.each = large, long, rest, [None] * FLOWS, due, each

    def answer(self, int64_t uid, int looks, int again, int left, int64_t turn):
        """Answer plain requests of one user until the time `turn`. Return (length, looks, left).

        looks: how often to poll /dev/fuse while it is empty. again: the same after each answer. left: the number of requests
        before the next call of `due`. length: that of a request in `room`, which the caller must answer, or None.
        OSError: reading /dev/fuse failed.
        """
        cdef ssize_t length
        self.request, self.packet = <Request *><char *>self.room, self.reply
        try:
            length = self.burst(len(self.room), len(self.reply) - FRAME, uid, &looks, again, &left, turn)
        finally:
            if self.working:
                self.ended = now()
                self.spent += self.ended - self.clock
            for index in range(FLOWS):
                self.count(index)
        if length < 0:
            raise OSError(-length, "cannot read /dev/fuse")
        return length or None, looks, left

    cdef ssize_t burst(self, ssize_t room, ssize_t space, int64_t uid, int *looks, int again, int *left,
                       int64_t turn) except? -1:
        cdef ssize_t length
        cdef int64_t before, yielded
        self.requests, self.spent, self.empty, self.working = 0, 0, 0, False
        with nogil:
            while True:
                if not left[0]:
                    with gil:
                        if self.due():
                            return 0
                    left[0] = self.each
                length = read(self.fuse, self.request, room)
                if length < 0 and errno != EAGAIN:
                    return -errno
                before, self.clock = self.clock, now()
                if length < 0:
                    self.empty = self.clock
                if self.working:
                    self.spent, self.ended, self.working = self.spent + self.clock - before, self.clock, False
                if length >= 0:
                    if length < <ssize_t>sizeof(Request) or length > self.large or self.request.head.uid != uid:
                        return length
                    if not self.answered(length - sizeof(Request), space):
                        return length
                    self.working, self.requests = True, self.requests + 1
                    looks[0], left[0] = again, left[0] - 1
                elif looks[0] and self.clock >= self.contended:
                    looks[0] -= 1
                    sched_yield()  # only now: the last answer often makes the client run at once, and send a request
                    before, yielded = self.clock, now()
                    if yielded - before > self.long:
                        self.contended = yielded + self.rest * (yielded - before)
                else:
                    looks[0] = 0
                    return 0
                if self.clock >= turn:
                    return 0

    cdef bint answered(self, ssize_t size, ssize_t space) except -1 nogil:
        """Answer the request if it is plain, and return whether it is. size: the bytes of data that follow it."""
        cdef Request *request = self.request
        cdef Flow *flow = &self.flows[request.body.fh % FLOWS]
        cdef bint writes = request.head.opcode == FUSE_WRITE
        cdef uint32_t flags = request.body.flags
        cdef char *packet
        cdef ssize_t length
        if request.body.offset or not (writes or request.head.opcode == FUSE_READ):
            return False
        if not flow.known or flow.fh != request.body.fh or writes and flow.thread != request.head.pid:
            with gil:
                if not self.learn(request.body.fh, request.head.pid):
                    return False
        if writes:
            if size != request.body.size or size >= flow.whole or not flow.shortest <= size <= flow.longest:
                return False
            # The tap's header replaces the end of the request's head. A write(2) takes 0.2 µs less than a writev(2).
            packet = <char *>(request + 1) - VNET
            memset(packet, 0, VNET)
            if write(flow.sink, packet, VNET + size) < 0:
                request.body.flags = flags
                return False
            flow.writes, flow.write_bytes, flow.write_at = flow.writes + 1, flow.write_bytes + size, self.clock
            (<fuse_write_out *>(self.packet + FRAME))[0] = fuse_write_out(size, 0)
            return self.send(sizeof(fuse_write_out))
        if size or flow.source < 0 or not request.body.read_flags & FUSE_READ_LOCKOWNER:
            return False
        # The tap's header ends where the frame begins. The fuse_out_header replaces it.
        length = read(flow.source, self.packet + FRAME - VNET, space) - VNET
        if length < 0:
            return False
        if length >= request.body.size:  # the frame is truncated, or the next READ may continue a split call
            with gil:
                self.handles[request.body.fh % FLOWS].put_back(self.packet[FRAME : FRAME + length])
            return False
        flow.reads, flow.read_bytes, flow.read_at = flow.reads + 1, flow.read_bytes + length, self.clock
        return self.send(length)

    cdef bint send(self, ssize_t length) except -1 nogil:
        """Send an answer of this many bytes after its head."""
        cdef int error
        (<fuse_out_header *>self.packet)[0] = fuse_out_header(FRAME + length, 0, self.request.head.unique)
        if write(self.fuse, self.packet, FRAME + length) < 0:
            error = errno
            with gil:
                self.fail(self.request.head.unique, error)
        return True

    cdef bint learn(self, uint64_t fh, uint32_t thread) except -1:
        """Ask an open file how its frames pass. Return False if none is plain."""
        cdef int index = fh % FLOWS
        cdef Flow *flow = &self.flows[index]
        self.count(index)
        handle = self.devices.get(fh)
        if handle is None or (plain := handle.plain()) is None:
            return False
        flow.source, flow.sink, flow.shortest, flow.longest = plain
        flow.whole = min(handle.whole.get(thread, 0), self.large)
        flow.known, flow.fh, flow.thread, self.handles[index] = True, fh, thread, handle
        return True

    cdef int count(self, int index) except -1:
        """Tell an open file what has passed, and forget the flow."""
        cdef Flow flow = self.flows[index]
        if flow.known:
            handle, self.handles[index] = self.handles[index], None
            memset(&self.flows[index], 0, sizeof(Flow))
            if flow.reads:
                handle.taken_plainly(flow.reads, flow.read_bytes, now() - flow.read_at)
            if flow.writes:
                handle.put_plainly(flow.writes, flow.write_bytes, now() - flow.write_at)
        return 0
