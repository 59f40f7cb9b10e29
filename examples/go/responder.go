// A host in Go: answers ARP and ping for one address, over a frame file or on the tap itself.
//
//	echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
//	go build -o responder examples/go/responder.go
//	./responder 3 10.0.3.2 &                      # or virt3, or its directory, /mnt/virt/virt3
//	ping -c 3 10.0.3.2
//	virtfs exec 3 -- ./responder fd=3 10.0.3.2    # instead of the third line: on the tap itself
//
// One Read receives one frame, one Write sends one. syscall.Open leaves the descriptor blocking, so a read takes a
// thread while it waits, and Go's poller is not involved.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// Lengths of headers in bytes.
const (
	ether = 14
	arp   = 28
	ip4   = 20
	icmp  = 8
)

// checksum returns the Internet checksum (RFC 1071).
func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i, b := range data {
		if i%2 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// answer turns a frame into the answer of a host with these addresses. It returns nil for no answer.
func answer(frame, mac, ip []byte) []byte {
	if len(frame) < ether+arp {
		return nil
	}
	packet := frame[ether:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0806: // RFC 826: Ethernet, IPv4, 6, 4, request
		if !bytes.Equal(packet[:8], []byte{0, 1, 8, 0, 6, 4, 0, 1}) || !bytes.Equal(packet[24:28], ip) {
			return nil
		}
		packet[7] = 2 // reply: the sender becomes the target
		copy(packet[18:28], packet[8:18])
		copy(packet[8:], mac)
		copy(packet[14:], ip)
		frame = frame[:ether+arp]
	case 0x0800: // RFC 791 and 792
		head, size := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		fragment := binary.BigEndian.Uint16(packet[6:]) & 0x3fff
		if head < ip4 || size < head+icmp || len(packet) < size || packet[9] != 1 || fragment != 0 ||
			packet[head] != 8 || !bytes.Equal(packet[16:20], ip) {
			return nil
		}
		echo := packet[head:size]
		copy(echo, []byte{0, 0, 0, 0}) // echo reply
		binary.BigEndian.PutUint16(echo[2:], checksum(echo))
		copy(packet[16:20], packet[12:16])
		copy(packet[12:], ip)
		copy(packet[10:], []byte{0, 0})
		binary.BigEndian.PutUint16(packet[10:], checksum(packet[:head]))
		frame = frame[:ether+size]
	default:
		return nil
	}
	copy(frame, frame[6:12])
	copy(frame[6:], mac)
	return frame
}

// A name is the number or the name of an interface, fd=N, or else the path of the interface's directory.
var numbered = regexp.MustCompile(`^(fd=|virt)?([0-9]{1,9})$`)

// find returns the directory of an interface, and the descriptor in fd=N or -1.
func find(name string) (string, int, error) {
	found := numbered.FindStringSubmatch(name)
	if found == nil {
		return name, -1, nil
	} else if _, err := os.Stat(name); found[1] == "virt" && err == nil {
		return name, -1, nil
	} else if found[1] != "fd=" {
		mount := os.Getenv("VIRTFS") // set by virtfs shell
		if mount == "" {
			mount = "/mnt/virt"
		}
		return filepath.Join(mount, "virt"+found[2]), -1, nil
	}
	fd, _ := strconv.Atoi(found[2])
	virt := os.Getenv(fmt.Sprintf("VIRTFS_FD%d", fd)) // set by virtfs exec
	if virt == "" {
		return "", -1, errors.New("not a descriptor of virtfs exec")
	}
	return virt, fd, nil
}

// reason returns why the interface cannot be used.
func reason(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR):
		return errors.New("no such interface: give its number, or the path of its directory")
	case errors.Is(err, syscall.EBUSY):
		return errors.New("another program has it (in virtfs exec, give fd=3 instead)")
	case errors.Is(err, syscall.EFAULT) || errors.Is(err, syscall.EBADFD):
		return errors.New("the tap is gone")
	}
	return err
}

// serve answers until the interface is set down or destroyed, which makes Read fail.
func serve(name string, ip []byte) error {
	virt, fd, err := find(name)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(virt, "address"))
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if fd == -1 {
		frames := filepath.Join(virt, "frame")
		if fd, err = syscall.Open(frames, syscall.O_RDWR|syscall.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: frames, Err: err}
		}
	}
	buffer := make([]byte, 65553)
	for {
		n, err := syscall.Read(fd, buffer)
		if err == syscall.EINTR {
			continue // after Ctrl-Z and fg, and because Go's scheduler sends signals to its own threads
		} else if err != nil {
			return err
		}
		if said := answer(buffer[:n], mac, ip); said != nil {
			if _, err := syscall.Write(fd, said); err != nil {
				return err
			}
		}
	}
}

func main() {
	var ip net.IP
	if len(os.Args) == 3 {
		ip = net.ParseIP(os.Args[2]).To4()
	}
	if ip == nil || os.Args[1] == "" || (strings.HasPrefix(os.Args[1], "fd=") && !numbered.MatchString(os.Args[1])) {
		fmt.Fprintln(os.Stderr, "usage: responder NUMBER|DIRECTORY|fd=N ADDRESS")
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "responder: %s: %v\n", os.Args[1], reason(serve(os.Args[1], ip)))
	os.Exit(1)
}
