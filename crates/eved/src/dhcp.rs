//! DHCP as bytes: the one file that knows both dhcproto's messages and ours (RFC 2131, RFC 2132).

use std::net::{IpAddr, Ipv4Addr};

use device::network::dhcp::{Message, Reply, ReplyKind};
use dhcproto::v4::{self, DhcpOption, DhcpOptions, Flags, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use ipnet::Ipv4Net;

/// The port of clients.
pub(crate) const CLIENT_PORT: u16 = 68;
/// The port of servers.
pub(crate) const SERVER_PORT: u16 = 67;

/// What a client asks a server for.
const WANTED: &[OptionCode] = &[
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::ClasslessStaticRoute,
    OptionCode::DomainNameServer,
    OptionCode::DomainName,
    OptionCode::NtpServers,
    OptionCode::InterfaceMtu,
    OptionCode::AddressLeaseTime,
    OptionCode::Renewal,
    OptionCode::Rebinding,
];

/// A client's message as bytes.
pub(crate) fn write_request(message: &Message, xid: u32, mac: [u8; 6]) -> Vec<u8> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let own = match message {
        Message::Extend { address, .. } => *address,
        Message::Discover | Message::Request { .. } => zero,
    };
    let mut out = v4::Message::new_with_id(xid, own, zero, zero, zero, &mac);
    if own.is_unspecified() {
        // The answer could not be delivered to an address that is not ours yet.
        out.set_flags(Flags::default().set_broadcast());
    }
    let options = out.opts_mut();
    options.insert(DhcpOption::MessageType(match message {
        Message::Discover => MessageType::Discover,
        Message::Request { .. } | Message::Extend { .. } => MessageType::Request,
    }));
    if let Message::Request { address, server } = message {
        options.insert(DhcpOption::RequestedIpAddress(*address));
        options.insert(DhcpOption::ServerIdentifier(*server));
    }
    let mut id = vec![1]; // Ethernet
    id.extend(mac);
    options.insert(DhcpOption::ClientIdentifier(id));
    options.insert(DhcpOption::ParameterRequestList(WANTED.to_vec()));
    options.insert(DhcpOption::MaxMessageSize(1472));
    out.to_vec().unwrap_or_default()
}

/// A server's message. `None` if it is none, or not for this client.
pub(crate) fn read_reply(bytes: &[u8], mac: [u8; 6]) -> Option<Reply> {
    let message = v4::Message::from_bytes(bytes).ok()?;
    if message.opcode() != Opcode::BootReply || message.chaddr() != mac {
        return None;
    }
    let options = message.opts();
    let kind = match options.msg_type()? {
        MessageType::Offer => ReplyKind::Offer,
        MessageType::Ack => ReplyKind::Ack,
        MessageType::Nak => ReplyKind::Nak,
        _ => return None,
    };
    let mut reply = Reply {
        xid: message.xid(),
        kind,
        address: message.yiaddr(),
        prefix: None,
        server: None,
        gateway: None,
        routes: Vec::new(),
        dns: Vec::new(),
        ntp: Vec::new(),
        domain: None,
        mtu: None,
        lease_s: None,
        renew_s: None,
        rebind_s: None,
    };
    let addresses = |all: &[Ipv4Addr]| all.iter().copied().map(IpAddr::V4).collect();
    for (_, option) in options.iter() {
        match option {
            DhcpOption::SubnetMask(mask) => {
                reply.prefix = ipnet::ip_mask_to_prefix((*mask).into()).ok()
            }
            DhcpOption::ServerIdentifier(server) => reply.server = Some(*server),
            DhcpOption::Router(all) => reply.gateway = all.first().copied(),
            DhcpOption::ClasslessStaticRoute(all) => reply.routes.clone_from(all),
            DhcpOption::DomainNameServer(all) => reply.dns = addresses(all),
            DhcpOption::NtpServers(all) => reply.ntp = addresses(all),
            DhcpOption::DomainName(name) => {
                reply.domain = Some(name.trim_end_matches('\0').to_owned());
            }
            DhcpOption::InterfaceMtu(mtu) => reply.mtu = Some(*mtu),
            DhcpOption::AddressLeaseTime(s) => reply.lease_s = Some(*s),
            DhcpOption::Renewal(s) => reply.renew_s = Some(*s),
            DhcpOption::Rebinding(s) => reply.rebind_s = Some(*s),
            _ => {}
        }
    }
    Some(reply)
}

/// What a client asks of us as a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) xid: u32,
    pub(crate) mac: [u8; 6],
    /// DISCOVER, else REQUEST.
    pub(crate) discover: bool,
    /// The address it wants or has.
    pub(crate) address: Option<Ipv4Addr>,
    /// The server it means, if it names one.
    pub(crate) server: Option<Ipv4Addr>,
}

/// A client's message. `None` if it is none that a server answers.
pub(crate) fn read_request(bytes: &[u8]) -> Option<Asked> {
    let message = v4::Message::from_bytes(bytes).ok()?;
    let mac = message.chaddr().try_into().ok()?;
    let options = message.opts();
    let discover = match options.msg_type()? {
        MessageType::Discover => true,
        MessageType::Request => false,
        _ => return None,
    };
    if message.opcode() != Opcode::BootRequest {
        return None;
    }
    let wanted = match options.get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => Some(message.ciaddr()).filter(|a| !a.is_unspecified()),
    };
    let server = match options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    };
    Some(Asked { xid: message.xid(), mac, discover, address: wanted, server })
}

/// What a server gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) address: Ipv4Net,
    pub(crate) server: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) dns: Vec<Ipv4Addr>,
    pub(crate) mtu: u16,
    pub(crate) lease_s: u32,
}

/// A server's answer as bytes. `None` as what is given means "no" (NAK).
pub(crate) fn write_reply(asked: &Asked, server: Ipv4Addr, given: Option<&Given>) -> Vec<u8> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let address = given.map_or(zero, |given| given.address.addr());
    let mut out = v4::Message::new_with_id(asked.xid, zero, address, zero, zero, &asked.mac);
    out.set_opcode(Opcode::BootReply);
    out.set_flags(Flags::default().set_broadcast());
    let mut options = DhcpOptions::new();
    options.insert(DhcpOption::MessageType(match given {
        None => MessageType::Nak,
        Some(_) if asked.discover => MessageType::Offer,
        Some(_) => MessageType::Ack,
    }));
    options.insert(DhcpOption::ServerIdentifier(server));
    if let Some(given) = given {
        options.insert(DhcpOption::SubnetMask(given.address.netmask()));
        options.insert(DhcpOption::Router(given.gateway.into_iter().collect()));
        options.insert(DhcpOption::DomainNameServer(given.dns.clone()));
        options.insert(DhcpOption::InterfaceMtu(given.mtu));
        options.insert(DhcpOption::AddressLeaseTime(given.lease_s));
        options.insert(DhcpOption::Renewal(given.lease_s / 2));
        options.insert(DhcpOption::Rebinding(given.lease_s / 8 * 7));
    }
    out.set_opts(options);
    out.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn client_and_server_read_what_the_other_wrote() {
        let server = Ipv4Addr::new(10, 1, 0, 1);
        let address = Ipv4Addr::new(10, 1, 0, 9);
        let bytes = write_request(&Message::Request { address, server }, 77, MAC);
        let asked = read_request(&bytes).unwrap();
        let want = Asked {
            xid: 77,
            mac: MAC,
            discover: false,
            address: Some(address),
            server: Some(server),
        };
        assert_eq!(asked, want);

        let given = Given {
            address: "10.1.0.9/24".parse().unwrap(),
            server,
            gateway: Some(server),
            dns: vec![server],
            mtu: 1400,
            lease_s: 3600,
        };
        let reply = read_reply(&write_reply(&asked, server, Some(&given)), MAC).unwrap();
        assert_eq!((reply.xid, reply.kind), (77, ReplyKind::Ack));
        assert_eq!((reply.address, reply.prefix), (address, Some(24)));
        assert_eq!((reply.gateway, reply.mtu), (Some(server), Some(1400)));
        let no = read_reply(&write_reply(&asked, server, None), MAC).unwrap();
        assert_eq!(no.kind, ReplyKind::Nak);
    }

    #[test]
    fn bytes_for_others_or_of_nobody_are_nothing() {
        let discover = write_request(&Message::Discover, 1, MAC);
        assert_eq!(read_reply(&discover, MAC), None, "a request is no reply");
        for length in 0..discover.len().min(240) {
            assert_eq!(read_request(&discover[..length]), None, "{length}");
        }
        let asked = read_request(&discover).unwrap();
        let reply = write_reply(&asked, Ipv4Addr::new(10, 1, 0, 1), None);
        assert_eq!(read_reply(&reply, [2, 0, 0, 0, 0, 8]), None);
    }
}
