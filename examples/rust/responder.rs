//! A host in Rust: answers ARP and ping for one address, over a frame file or on the tap itself. Standard library only.
//!
//!     echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
//!     rustc -o responder examples/rust/responder.rs
//!     ./responder 3 10.0.3.2 &                      # or virt3, or its directory, /mnt/virt/virt3
//!     ping -c 3 10.0.3.2
//!     virtfs exec 3 -- ./responder fd=3 10.0.3.2    # instead of the third line: on the tap itself
//!
//! One read receives one frame, one write sends one. File is unbuffered, as this needs.

use std::env::{args, var};
use std::fs::{read_to_string, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::io::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::exit;

// Lengths of headers in bytes.
const ETHER: usize = 14;
const ARP: usize = 28;
const IP: usize = 20;
const ICMP: usize = 8;

/// Return the Internet checksum (RFC 1071).
fn checksum(data: &[u8]) -> [u8; 2] {
    let mut sum: u32 = data.iter().enumerate().map(|(i, b)| u32::from(*b) << (8 * (1 - i % 2))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Turn a frame into the answer of a host with these addresses. Return its length, or None for no answer.
fn answer(frame: &mut [u8], mac: &[u8; 6], ip: &[u8; 4]) -> Option<usize> {
    if frame.len() < ETHER + ARP {
        return None;
    }
    let (head, packet) = frame.split_at_mut(ETHER);
    let length = match head[12..14] {
        // RFC 826: Ethernet, IPv4, 6, 4, request
        [8, 6] if packet[..8] == [0, 1, 8, 0, 6, 4, 0, 1] && packet[24..28] == ip[..] => {
            packet[7] = 2; // reply: the sender becomes the target
            packet.copy_within(8..18, 18);
            packet[8..14].copy_from_slice(mac);
            packet[14..18].copy_from_slice(ip);
            ARP
        }
        // RFC 791 and 792
        [8, 0] => {
            let start = usize::from(packet[0] & 15) * 4;
            let size = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
            if start < IP || size < start + ICMP || packet.len() < size || packet[9] != 1 || fragment {
                return None;
            }
            if packet[start] != 8 || packet[16..20] != ip[..] {
                return None;
            }
            packet[start..start + 4].fill(0); // echo reply
            let sum = checksum(&packet[start..size]);
            packet[start + 2..start + 4].copy_from_slice(&sum);
            packet.copy_within(12..16, 16);
            packet[12..16].copy_from_slice(ip);
            packet[10..12].fill(0);
            let sum = checksum(&packet[..start]);
            packet[10..12].copy_from_slice(&sum);
            size
        }
        _ => return None,
    };
    head.copy_within(6..12, 0);
    head[6..12].copy_from_slice(mac);
    Some(ETHER + length)
}

/// The ways to name an interface.
enum Name {
    Directory(PathBuf),
    Descriptor(i32),
}

/// Understand the number or the name of an interface, such as 3 or virt3, fd=3, or the path of its directory.
fn parse(name: &str) -> Option<Name> {
    if name.starts_with("virt") && Path::new(name).exists() {
        return Some(Name::Directory(name.into()));
    }
    let digits = name.strip_prefix("fd=").or(name.strip_prefix("virt")).unwrap_or(name);
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<i32>().ok() } else { None };
    match number {
        Some(fd) if name.starts_with("fd=") => Some(Name::Descriptor(fd)),
        Some(number) => {
            let mount = var("VIRTFS").unwrap_or_else(|_| "/mnt/virt".into()); // virtfs shell sets VIRTFS
            Some(Name::Directory(PathBuf::from(mount).join(format!("virt{number}"))))
        }
        None if name.is_empty() || name.starts_with("fd=") => None,
        None => Some(Name::Directory(name.into())),
    }
}

/// Name the file in an error for which reason() has no sentence.
fn at(path: &Path, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(2 | 20 | 16) => error,
        _ => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
}

/// Return the directory of an interface, and its frames.
fn open(name: &Name) -> io::Result<(PathBuf, File)> {
    match name {
        Name::Directory(virt) => {
            let file = virt.join("frame");
            let frames = OpenOptions::new().read(true).write(true).open(&file).map_err(|error| at(&file, error))?;
            Ok((virt.clone(), frames))
        }
        Name::Descriptor(fd) => {
            let virt = var(format!("VIRTFS_FD{fd}"))
                .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "not a descriptor of virtfs exec"))?;
            // SAFETY: virtfs exec has opened this descriptor for us, and nothing else in this program uses it.
            Ok((virt.into(), unsafe { File::from_raw_fd(*fd) }))
        }
    }
}

/// Answer until the interface is set down or destroyed, which makes read fail.
fn serve(name: &Name, ip: &[u8; 4]) -> io::Result<()> {
    let (virt, mut frames) = open(name)?;
    let file = virt.join("address");
    let text = read_to_string(&file).map_err(|error| at(&file, error))?;
    let mut mac = [0u8; 6];
    for (byte, digits) in mac.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(digits, 16).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    }
    let mut buffer = [0u8; 65553];
    loop {
        let length = match frames.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue, // after Ctrl-Z and fg
            result => result?,
        };
        if let Some(length) = answer(&mut buffer[..length], &mac, ip) {
            let _ = frames.write(&buffer[..length])?;
        }
    }
}

/// Return why the interface cannot be used. The numbers are those of asm-generic/errno.h.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(2 | 20) => "no such interface: give its number, or the path of its directory".into(), // ENOENT, ENOTDIR
        Some(16) => "another program has it (in virtfs exec, give fd=3 instead)".into(), // EBUSY
        Some(14 | 77) => "the tap is gone".into(), // EFAULT, EBADFD
        _ => error.to_string(),
    }
}

fn main() {
    let arguments: Vec<String> = args().collect();
    let name = arguments.get(1).and_then(|text| parse(text));
    let address = arguments.get(2).and_then(|text| text.parse::<Ipv4Addr>().ok());
    match (arguments.len(), name, address) {
        (3, Some(name), Some(ip)) => {
            if let Err(error) = serve(&name, &ip.octets()) {
                eprintln!("responder: {}: {}", arguments[1], reason(&error));
            }
            exit(1);
        }
        _ => {
            eprintln!("usage: responder NUMBER|DIRECTORY|fd=N ADDRESS");
            exit(2);
        }
    }
}
