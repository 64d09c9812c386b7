//! The life of one DHCP lease, seen from the client (RFC 2131, section 4.4).
//!
//! ```text
//! Selecting ──offer──▶ Requesting ──ack──▶ Bound ──T1──▶ Renewing ──T2──▶ Rebinding
//!     ▲  ▲                 │ nak, no answer   ▲              │ ack           │ ack
//!     │  └─────────────────┘                  └──────────────┴───────────────┘
//!     └──────────────────────── nak, or the lease ends ───────────────────────
//! ```
//!
//! Not done: DECLINE and RELEASE, and asking for an earlier address after a boot (INIT-REBOOT).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// Milliseconds on a clock that never goes back.
pub type Millis = u64;

/// A client, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Where it is in its life.
    pub state: State,
    /// The transaction it speaks of.
    pub xid: u32,
    /// When it acts by itself next.
    pub wake: Millis,
    /// Messages sent in this state without an answer.
    pub tries: u32,
}

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Looking for servers.
    Selecting,
    /// Asking for what one of them offered.
    Requesting {
        /// The address on offer.
        address: Ipv4Addr,
        /// Who offers it.
        server: Ipv4Addr,
    },
    /// Has a lease.
    Bound(Lease),
    /// Asks its server for more time.
    Renewing(Lease),
    /// Asks any server for more time.
    Rebinding(Lease),
}

/// A lease, with times on our clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Own address and prefix length.
    pub address: Ipv4Net,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Routes beside it: destination and gateway (option 121). If there are any, they come instead
    /// of the gateway (RFC 3442).
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// NTP servers.
    pub ntp: Vec<IpAddr>,
    /// DNS domain.
    pub domain: Option<String>,
    /// What the link carries at once.
    pub mtu: Option<u16>,
    /// When to ask for more time.
    pub renew: Millis,
    /// When to ask everybody.
    pub rebind: Millis,
    /// When it ends.
    pub expires: Millis,
}

/// What a server said, without times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The transaction it answers.
    pub xid: u32,
    /// Which message.
    pub kind: ReplyKind,
    /// `yiaddr`.
    pub address: Ipv4Addr,
    /// Subnet mask as a prefix length; `None` if it was not said.
    pub prefix: Option<u8>,
    /// Who says it.
    pub server: Option<Ipv4Addr>,
    /// First router.
    pub gateway: Option<Ipv4Addr>,
    /// Classless routes.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// NTP servers.
    pub ntp: Vec<IpAddr>,
    /// DNS domain.
    pub domain: Option<String>,
    /// Interface MTU.
    pub mtu: Option<u16>,
    /// Lease time in seconds; `u32::MAX` is for ever.
    pub lease_s: Option<u32>,
    /// Renewal time in seconds.
    pub renew_s: Option<u32>,
    /// Rebinding time in seconds.
    pub rebind_s: Option<u32>,
}

/// Which message a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// DHCPOFFER
    Offer,
    /// DHCPACK
    Ack,
    /// DHCPNAK
    Nak,
}

/// What to send. All of it carries the client's `xid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// DHCPDISCOVER to everybody.
    Discover,
    /// DHCPREQUEST for an offer, to everybody.
    Request {
        /// The address on offer.
        address: Ipv4Addr,
        /// Who offers it.
        server: Ipv4Addr,
    },
    /// DHCPREQUEST for more time: to `server`, or to everybody if it is `None`.
    Extend {
        /// The address in use.
        address: Ipv4Addr,
        /// Who gave it.
        server: Option<Ipv4Addr>,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`Client::wake`] came.
    Woken,
    /// A message came.
    Reply(Reply),
}

/// Mixed in by the caller, so that this stays a function of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance(pub u32);

const FIRST_WAIT: Millis = 2_000;
const LONGEST_WAIT: Millis = 64_000;
/// A lease is renewed no faster than this, whatever the server says.
const SHORTEST_LEASE: Millis = 30_000;
/// Requests to one server before looking for another.
const REQUESTS: u32 = 4;

impl Client {
    /// A client that will look for a server at once.
    pub fn new(now: Millis, chance: Chance) -> Client {
        Client { state: State::Selecting, xid: chance.0, wake: now, tries: 0 }
    }

    /// The lease in force.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => Some(lease),
            State::Selecting | State::Requesting { .. } => None,
        }
    }

    /// Whether it waits for an answer, so that somebody has to listen.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Bound(_))
    }

    /// The next state, and what to send.
    pub fn step(self, now: Millis, event: &Event, chance: Chance) -> (Client, Option<Message>) {
        match event {
            Event::Woken if now < self.wake => (self, None),
            Event::Woken => self.woken(now, chance),
            Event::Reply(reply) if reply.xid != self.xid => (self, None),
            Event::Reply(reply) => self.answered(now, reply, chance),
        }
    }

    fn woken(self, now: Millis, chance: Chance) -> (Client, Option<Message>) {
        match self.state.clone() {
            State::Selecting => {
                let wake = now + patience(self.tries, chance);
                (Client { wake, tries: self.tries + 1, ..self }, Some(Message::Discover))
            }
            State::Requesting { .. } if self.tries >= REQUESTS => {
                Client::new(now, chance).woken(now, chance)
            }
            State::Requesting { address, server } => {
                let wake = now + patience(self.tries, chance);
                let message = Message::Request { address, server };
                (Client { wake, tries: self.tries + 1, ..self }, Some(message))
            }
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease)
                if now >= lease.expires =>
            {
                Client::new(now, chance).woken(now, chance)
            }
            State::Bound(lease) => {
                let state = State::Renewing(lease);
                Client { state, xid: chance.0, wake: now, tries: 0 }.woken(now, chance)
            }
            State::Renewing(lease) if now >= lease.rebind => {
                let state = State::Rebinding(lease);
                Client { state, xid: chance.0, wake: now, tries: 0 }.woken(now, chance)
            }
            State::Renewing(lease) => {
                let message =
                    Message::Extend { address: lease.address.addr(), server: Some(lease.server) };
                (self.asked_for_more(now, lease.rebind), Some(message))
            }
            State::Rebinding(lease) => {
                let message = Message::Extend { address: lease.address.addr(), server: None };
                (self.asked_for_more(now, lease.expires), Some(message))
            }
        }
    }

    /// Half of what is left until `end`, but at least a minute (RFC 2131, section 4.4.5), and never
    /// past the end.
    fn asked_for_more(self, now: Millis, end: Millis) -> Client {
        let pause = (end.saturating_sub(now) / 2).max(60_000);
        Client { wake: (now + pause).min(end.max(now + 1)), tries: self.tries + 1, ..self }
    }

    fn answered(self, now: Millis, reply: &Reply, chance: Chance) -> (Client, Option<Message>) {
        match (&self.state, reply.kind, reply.server) {
            (State::Selecting, ReplyKind::Offer, Some(server)) if usable(reply.address) => {
                let state = State::Requesting { address: reply.address, server };
                Client { state, wake: now, tries: 0, ..self }.woken(now, chance)
            }
            // Others may answer a broadcast request too; only who was asked counts.
            (State::Requesting { server, .. }, _, Some(from)) if *server != from => (self, None),
            (
                State::Requesting { .. } | State::Renewing(_) | State::Rebinding(_),
                ReplyKind::Ack,
                _,
            ) if usable(reply.address) => {
                let lease = self.lease_of(now, reply);
                let wake = lease.renew;
                (Client { state: State::Bound(lease), wake, tries: 0, ..self }, None)
            }
            (
                State::Requesting { .. } | State::Renewing(_) | State::Rebinding(_),
                ReplyKind::Nak,
                _,
            ) => {
                // A server that says no at once is asked again only after a while.
                let client = Client::new(now + FIRST_WAIT, chance);
                (client, None)
            }
            _ => (self, None),
        }
    }

    fn lease_of(&self, now: Millis, reply: &Reply) -> Lease {
        let seconds = |s: u32| Millis::from(s).saturating_mul(1000);
        let length = seconds(reply.lease_s.unwrap_or(3600)).max(SHORTEST_LEASE);
        let rebind = reply.rebind_s.map(seconds).filter(|t| *t < length);
        let rebind = rebind.unwrap_or(length / 8 * 7);
        let renew = reply.renew_s.map(seconds).filter(|t| *t < rebind).unwrap_or(length / 2);
        let server = match &self.state {
            State::Requesting { server, .. } => *server,
            State::Renewing(old) | State::Rebinding(old) => reply.server.unwrap_or(old.server),
            State::Selecting | State::Bound(_) => reply.server.unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        let prefix = reply.prefix.unwrap_or_else(|| classful(reply.address));
        Lease {
            address: Ipv4Net::new(reply.address, prefix).unwrap_or_else(|_| reply.address.into()),
            server,
            gateway: reply.gateway,
            routes: reply.routes.clone(),
            dns: reply.dns.clone(),
            ntp: reply.ntp.clone(),
            domain: reply.domain.clone(),
            // Less than IPv6 and everybody else can live with is a mistake or an attack.
            mtu: reply.mtu.filter(|mtu| *mtu >= 1280),
            renew: now.saturating_add(renew),
            rebind: now.saturating_add(rebind),
            expires: now.saturating_add(length),
        }
    }
}

/// 2, 4, 8 … 64 s, a second more or less so that a fleet that boots together spreads out.
fn patience(tries: u32, chance: Chance) -> Millis {
    let base = (FIRST_WAIT << tries.min(5)).min(LONGEST_WAIT);
    base - 1000 + Millis::from(chance.0 % 2000)
}

fn usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_loopback())
}

/// What a mask was before masks were sent.
fn classful(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    fn reply(kind: ReplyKind) -> Reply {
        Reply {
            xid: 0,
            kind,
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: Some(24),
            server: Some(Ipv4Addr::new(10, 0, 2, 2)),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            routes: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            mtu: None,
            lease_s: Some(1000),
            renew_s: None,
            rebind_s: None,
        }
    }

    /// Lets a client live until `until`. At each time of the script the answer to the last thing
    /// it sent arrives. Prints what it sends and where it gets.
    #[track_caller]
    fn check(until: Millis, script: &[(Millis, ReplyKind)], want: Expect) {
        let mut client = Client::new(0, Chance(1000));
        let (mut out, mut script) = (String::new(), script.iter().peekable());
        let mut now = 0;
        while now <= until {
            let event = match script.peek() {
                Some((at, kind)) if *at <= client.wake => {
                    now = *at;
                    script.next();
                    Event::Reply(Reply { xid: client.xid, ..reply(*kind) })
                }
                _ => {
                    now = client.wake;
                    Event::Woken
                }
            };
            if now > until {
                break;
            }
            let before = std::mem::discriminant(&client.state);
            let (next, sent) = client.step(now, &event, Chance(1000));
            client = next;
            if let Some(message) = sent {
                writeln!(out, "{now}: {message:?}").unwrap();
            }
            if std::mem::discriminant(&client.state) != before {
                let text = format!("{:?}", client.state);
                let name = text.split([' ', '(']).next().unwrap();
                writeln!(out, "{now}: now {name}").unwrap();
            }
        }
        want.assert_eq(&out);
    }

    #[test]
    fn a_server_that_answers_gives_a_lease_and_more_time() {
        check(
            600_000,
            &[(10, ReplyKind::Offer), (20, ReplyKind::Ack), (500_030, ReplyKind::Ack)],
            expect![[r#"
                0: Discover
                10: Request { address: 10.0.2.15, server: 10.0.2.2 }
                10: now Requesting
                20: now Bound
                500020: Extend { address: 10.0.2.15, server: Some(10.0.2.2) }
                500020: now Renewing
                500030: now Bound
            "#]],
        );
    }

    #[test]
    fn a_server_that_is_gone_is_replaced_and_then_the_lease_ends() {
        check(
            1_001_000,
            &[(10, ReplyKind::Offer), (20, ReplyKind::Ack)],
            expect![[r#"
                0: Discover
                10: Request { address: 10.0.2.15, server: 10.0.2.2 }
                10: now Requesting
                20: now Bound
                500020: Extend { address: 10.0.2.15, server: Some(10.0.2.2) }
                500020: now Renewing
                687520: Extend { address: 10.0.2.15, server: Some(10.0.2.2) }
                781270: Extend { address: 10.0.2.15, server: Some(10.0.2.2) }
                841270: Extend { address: 10.0.2.15, server: Some(10.0.2.2) }
                875020: Extend { address: 10.0.2.15, server: None }
                875020: now Rebinding
                937520: Extend { address: 10.0.2.15, server: None }
                997520: Extend { address: 10.0.2.15, server: None }
                1000020: Discover
                1000020: now Selecting
            "#]],
        );
    }

    #[test]
    fn nobody_answers_and_the_pauses_grow() {
        check(
            200_000,
            &[],
            expect![[r#"
                0: Discover
                2000: Discover
                6000: Discover
                14000: Discover
                30000: Discover
                62000: Discover
                126000: Discover
                190000: Discover
            "#]],
        );
    }

    #[test]
    fn a_no_starts_over() {
        check(
            2_100,
            &[(10, ReplyKind::Offer), (20, ReplyKind::Nak)],
            expect![[r#"
                0: Discover
                10: Request { address: 10.0.2.15, server: 10.0.2.2 }
                10: now Requesting
                20: now Selecting
                2020: Discover
            "#]],
        );
    }

    #[test]
    fn what_others_asked_for_is_not_ours() {
        let client = Client::new(0, Chance(7));
        let other = Event::Reply(Reply { xid: 8, ..reply(ReplyKind::Offer) });
        assert_eq!(client.clone().step(1, &other, Chance(0)), (client.clone(), None));
        let nowhere = Reply { xid: 7, address: Ipv4Addr::UNSPECIFIED, ..reply(ReplyKind::Offer) };
        assert_eq!(client.clone().step(1, &Event::Reply(nowhere), Chance(0)), (client, None));
    }

    #[test]
    fn a_lease_for_ever_and_a_lease_of_nothing_are_both_bounded() {
        for lease_s in [0, u32::MAX] {
            let client = Client {
                state: State::Requesting {
                    address: Ipv4Addr::new(10, 0, 2, 15),
                    server: Ipv4Addr::new(10, 0, 2, 2),
                },
                ..Client::new(0, Chance(7))
            };
            let ack = Reply { xid: 7, lease_s: Some(lease_s), ..reply(ReplyKind::Ack) };
            let (client, _) = client.step(0, &Event::Reply(ack), Chance(0));
            assert!(client.wake >= SHORTEST_LEASE / 2, "{lease_s}");
        }
    }
}
