//! Devices that come later: the kernel's uevents, of which only the wish for a driver counts here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

/// A socket that hears the kernel's uevents.
#[derive(Debug)]
pub(crate) struct Uevents(OwnedFd);

impl Uevents {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Uevents> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )?;
        // Group 1 is the kernel's own; who else sends there is not heard.
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
        Ok(Uevents(socket))
    }

    /// The aliases of devices that came since the last call. `None`: the kernel told nothing.
    pub(crate) fn aliases(&self) -> Option<Vec<String>> {
        let mut found = None;
        let mut buffer = [0_u8; 8192];
        while let Ok((length, _)) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())
        {
            let found = found.get_or_insert_with(Vec::new);
            found.extend(alias(&buffer[..length.min(8192)]));
        }
        found
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `add@/devices/…` NUL `KEY=value` NUL …
fn alias(message: &[u8]) -> Option<String> {
    let mut parts = message.split(|b| *b == 0).filter_map(|part| std::str::from_utf8(part).ok());
    if !parts.next()?.starts_with("add@") {
        return None;
    }
    parts.find_map(|part| part.strip_prefix("MODALIAS=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_device_asks_for_a_driver() {
        let add = b"add@/devices/x\0ACTION=add\0MODALIAS=usb:v1\0";
        assert_eq!(alias(add).as_deref(), Some("usb:v1"));
        assert_eq!(alias(b"remove@/devices/x\0MODALIAS=usb:v1\0"), None);
        assert_eq!(alias(b"add@/devices/x\0ACTION=add\0"), None);
        assert_eq!(alias(b"\xff\0"), None);
    }
}
