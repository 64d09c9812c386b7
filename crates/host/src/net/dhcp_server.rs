//! The socket of a DHCP server.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::net::sockopt::{set_socket_broadcast, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UdpSocket;

use super::NetError;

/// A UDP socket on `port` of one interface alone, that may speak to everybody there. Several
/// interfaces may have one each. Needs a tokio runtime and the right to bind low ports.
pub fn udp_on(interface: &str, port: u16) -> Result<UdpSocket, NetError> {
    let open = || -> io::Result<UdpSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_broadcast(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.bind_device(Some(interface.as_bytes()))?;
        Ok(socket)
    };
    open().map_err(|e| NetError::new(format!("open UDP port {port} on {interface}"), e))
}
