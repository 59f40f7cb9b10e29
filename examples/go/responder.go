// A host in Go: answers ARP and ping for one address, over a frame file.
//
//	echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
//	go run examples/go/responder.go /mnt/virt/virt3 10.0.3.2 &
//	ping -c 3 10.0.3.2
//
// One Read receives one frame, one Write sends one. syscall.Open leaves the descriptor blocking, so a read takes a
// thread while it waits, and Go's poller is not involved.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
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

// serve answers until the interface is set down or destroyed, which makes Read fail.
func serve(virt string, ip []byte) error {
	text, err := os.ReadFile(filepath.Join(virt, "address"))
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	fd, err := syscall.Open(filepath.Join(virt, "frame"), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	buffer := make([]byte, 65536)
	for {
		n, err := syscall.Read(fd, buffer)
		if err == syscall.EINTR {
			continue // Go's scheduler sends signals to its own threads
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
	if ip == nil {
		fmt.Fprintln(os.Stderr, "usage: responder .../virtN ADDRESS")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "responder:", serve(os.Args[1], ip))
	os.Exit(1)
}
