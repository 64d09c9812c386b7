//! UDP datagrams below the IP layer: for DHCP, which speaks before there is an address. The packets
//! are those of RFC 768 and RFC 791 without options.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with,
};
use tokio::io::unix::AsyncFd;

use super::NetError;

/// Sends and receives UDP datagrams of one interface, whatever its addresses.
#[derive(Debug)]
pub struct DatagramSocket {
    packets: AsyncFd<OwnedFd>,
    index: u32,
    local_port: u16,
}

/// Protocol number of IPv4 in Ethernet.
const ETH_P_IP: u16 = 0x0800;
const UDP: u8 = 17;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

impl DatagramSocket {
    /// Hears datagrams to `local_port` that come in by interface `index`. Needs a tokio runtime.
    pub fn open(index: u32, local_port: u16) -> Result<DatagramSocket, NetError> {
        let open = || -> io::Result<AsyncFd<OwnedFd>> {
            let protocol = NonZeroU32::new(u32::from(ETH_P_IP.to_be())).map(Protocol::from_raw);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol)?;
            bind(&socket, &LinkAddress::broadcast(index))?;
            // SAFETY: the AsyncFd owns the descriptor, which stays open as long as it lives.
            #[expect(unsafe_code, reason = "tokio's registration asks for it")]
            Ok(unsafe { AsyncFd::register(socket) }?)
        };
        let packets = open()
            .map_err(|e| NetError::new(format!("open a packet socket on interface {index}"), e))?;
        Ok(DatagramSocket { packets, index, local_port })
    }

    /// Sends from nowhere (0.0.0.0) to everybody on the link.
    pub fn broadcast(&self, remote_port: u16, payload: &[u8]) -> Result<(), NetError> {
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.local_port);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, remote_port);
        let packet = datagram(from, to, payload);
        let address = LinkAddress::broadcast(self.index);
        sendto(self.packets.get_ref(), &packet, SendFlags::empty(), &address)
            .map(|_| ())
            .map_err(|e| NetError::new(format!("send a datagram by interface {}", self.index), e))
    }

    /// Sends from an address of ours to one other, by route and neighbour as usual; but from a port
    /// that needs no right to be bound.
    pub fn send(&self, from: Ipv4Addr, to: SocketAddrV4, payload: &[u8]) -> Result<(), NetError> {
        let send = || -> io::Result<()> {
            let protocol = NonZeroU32::new(u32::from(UDP)).map(Protocol::from_raw);
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol)?;
            bind(&socket, &SocketAddrV4::new(from, 0))?;
            // The kernel puts its IP header in front.
            let packet = datagram(SocketAddrV4::new(from, self.local_port), to, payload);
            sendto(&socket, &packet[IP_HEADER..], SendFlags::empty(), &to)?;
            Ok(())
        };
        send().map_err(|e| NetError::new(format!("send a datagram to {to}"), e))
    }

    /// The payload of the next datagram to our port.
    pub async fn receive(&self) -> Result<Vec<u8>, NetError> {
        let fail =
            |e: io::Error| NetError::new(format!("hear datagrams of interface {}", self.index), e);
        loop {
            let mut ready = self.packets.readable().await.map_err(fail)?;
            let mut buffer = [0_u8; 2048];
            match recv(self.packets.get_ref(), &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    let packet = &buffer[..length.min(buffer.len())];
                    if let Some((port, payload)) = parse(packet)
                        && port == self.local_port
                    {
                        return Ok(payload.to_vec());
                    }
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(fail(errno.into())),
            }
        }
    }
}

/// `struct sockaddr_ll` (packet(7)).
struct LinkAddress([u8; 20]);

impl LinkAddress {
    /// Everybody on the link of interface `index`.
    fn broadcast(index: u32) -> LinkAddress {
        let mut raw = [0_u8; 20];
        raw[0..2].copy_from_slice(&AddressFamily::PACKET.as_raw().to_ne_bytes());
        raw[2..4].copy_from_slice(&ETH_P_IP.to_be_bytes());
        raw[4..8].copy_from_slice(&index.to_ne_bytes());
        raw[11] = 6; // length of the hardware address
        raw[12..18].fill(0xff);
        LinkAddress(raw)
    }
}

// SAFETY: the pointer is that of 20 initialized bytes which outlive the call.
#[expect(unsafe_code, reason = "rustix knows no packet addresses")]
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(self.0.as_ptr().cast(), 20)
    }
}

/// An IPv4 packet with a UDP datagram in it.
fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
    let total = IP_HEADER + UDP_HEADER + payload.len();
    let mut packet = Vec::with_capacity(total);
    packet.extend([0x45, 0]);
    packet.extend(length(total));
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let sum = checksum(0, &packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(length(UDP_HEADER + payload.len()));
    packet.extend([0, 0]);
    packet.extend(payload);
    // Over the pseudo header (addresses, protocol, length) and the datagram; zero means "none".
    let pseudo = u32::from(UDP) + u32::try_from(UDP_HEADER + payload.len()).unwrap_or_default();
    let start = sum_of(pseudo, &packet[12..20]);
    let sum = match checksum(start, &packet[IP_HEADER..]) {
        0 => 0xffff,
        sum => sum,
    };
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The destination port and payload of a UDP datagram in an IPv4 packet. `None` if it is none, or a
/// fragment, or cut short. The checksum is left to who reads the payload: cards that check it
/// themselves hand up local packets without one.
fn parse(packet: &[u8]) -> Option<(u16, &[u8])> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = word(6)? & 0x3fff;
    if packet[0] >> 4 != 4 || header < IP_HEADER || *packet.get(9)? != UDP || fragment != 0 {
        return None;
    }
    let port = word(header + 2)?;
    let length = usize::from(word(header + 4)?);
    let payload = packet.get(header + UDP_HEADER..header + length)?;
    Some((port, payload))
}

/// RFC 1071.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum_of(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn sum_of(start: u32, bytes: &[u8]) -> u32 {
    let word =
        |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    start + bytes.chunks(2).map(word).sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_reads_as_it_was_written_and_sums_to_zero() {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 68);
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 67);
        let packet = datagram(from, to, b"hello");
        assert_eq!(parse(&packet), Some((67, &b"hello"[..])));
        assert_eq!(checksum(0, &packet[..IP_HEADER]), 0);
        let pseudo = u32::from(UDP) + 13;
        let start = sum_of(pseudo, &packet[12..20]);
        assert_eq!(checksum(start, &packet[IP_HEADER..]), 0);
    }

    #[test]
    fn what_is_cut_short_or_of_another_kind_is_nothing() {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67);
        let good = datagram(any, any, b"x");
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "{length}");
        }
        for (at, value) in [(0, 0x65), (0, 0x44), (6, 0x20), (9, 6), (25, 3)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad), None, "{at}");
        }
    }
}
