//! Networks of this machine: interfaces, addresses and routes, namespaces, raw packets. The packet
//! filter is `nft`, called through [`apply_filter`].

mod ask;
mod bridge;
mod dhcp_server;
pub mod dns;
mod namespace;
mod netlink;
mod packet;

use std::io;

pub use ask::{Answered, ask};
pub use dhcp_server::udp_on;
pub use namespace::Namespace;
pub use netlink::{Changes, Link, Netlink, Route};
pub use packet::DatagramSocket;

use crate::process::{self, Tool, ToolError};

/// Why the network could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct NetError {
    doing: String,
    source: io::Error,
}

impl NetError {
    fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> NetError {
        NetError { doing: doing.into(), source: source.into() }
    }

    /// The operating system's reason.
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

/// Gives the packet filter a batch (libnftables-json(5)). All of it takes effect, or none.
pub fn apply_filter(batch: &[u8]) -> Result<(), ToolError> {
    process::run_with_input(Tool::Nft, &["-j", "-f", "-"], batch).map(|_| ())
}

/// Sets a knob of the network, `net/ipv4/ip_forward` for one.
pub fn set_knob(name: &str, value: &str) -> Result<(), NetError> {
    use std::io::Write;
    let path = format!("/proc/sys/{name}");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| NetError::new(format!("set {name} to {value}"), source))
}
