//! A rule set of the kernel's packet filter as a value, and the batch of nft commands that puts it
//! in force (libnftables-json(5)).
//!
//! Only the words that we use. A batch replaces our tables whole and at once; tables of others are
//! not touched.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use model::desired::Protocol;
use serde_json::{Value, json};

/// The name of our tables.
pub const TABLE: &str = "eve";

/// Our tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// One of each family at most.
    pub tables: Vec<Table>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What it looks at.
    pub family: Family,
    /// Named sets of addresses that are filled while the rules are in force; elements leave by
    /// themselves.
    pub sets: Vec<String>,
    /// Chains; one is named after it is defined.
    pub chains: Vec<Chain>,
}

/// What a table looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IP packets that the node receives, forwards or sends.
    Inet,
    /// Frames that come through a bridge.
    Bridge,
}

/// A list of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets enter it. `None`: by a jump only.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `prerouting`, `input`, `forward` or `postrouting`.
    pub hook: &'static str,
    /// Lower comes first.
    pub priority: i32,
    /// What becomes of packets that no rule decides on.
    pub accept: bool,
}

/// A rule: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Conditions.
    pub when: Vec<When>,
    /// What then.
    pub then: Then,
}

/// Names of interfaces.
pub type Names = BTreeSet<String>;

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Came in by one of these.
    In(Names),
    /// Came in by none of these.
    InNot(Names),
    /// Goes out by one of these.
    Out(Names),
    /// Goes out by none of these.
    OutNot(Names),
    /// Sender.
    From(Ipv4Net),
    /// Receiver.
    To(Ipv4Net),
    /// Sender is in a named set.
    FromSet(String),
    /// Receiver is in a named set.
    ToSet(String),
    /// The pair of interface and sender is none of these.
    SourceNot(BTreeSet<(String, Ipv4Addr)>),
    /// Protocol.
    Is(Protocol),
    /// ICMP of either IP version.
    AnyIcmp,
    /// Source port.
    FromPort(Protocol, u16),
    /// Destination port.
    ToPort(Protocol, u16),
    /// Belongs to a connection that was let in, or to one that such a connection opened.
    Established,
    /// Its connection came through a port map (`true`) or did not.
    Mapped(bool),
    /// The receiver is an address of the node.
    ToNode,
    /// More than so many in so long.
    Over {
        /// Packets …
        rate: u32,
        /// … in a `second`, `minute`, `hour` or `day`.
        per: &'static str,
        /// So many at once are no excess.
        burst: u32,
    },
    /// Names itself by an address that belongs to someone else: one of `known`, by an interface
    /// that does not go with it.
    Claims(Claim),
}

/// Addresses and who may use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which field of a frame.
    pub field: ClaimField,
    /// Addresses that have an owner.
    pub known: BTreeSet<String>,
    /// Interface and address that go together.
    pub owners: BTreeSet<(String, String)>,
}

/// A field in which a sender names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimField {
    /// Source hardware address.
    Ether,
    /// Source address of an IPv4 packet.
    Ip,
    /// Sender's address in an ARP packet.
    Arp,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It passes this hook.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// Go on in another chain.
    Jump(String),
    /// It gets the address of the port it leaves by.
    Masquerade,
    /// It gets another receiver.
    MapTo(SocketAddrV4),
}

impl Ruleset {
    /// The batch, as text. The same rules give the same text.
    pub fn batch(&self) -> String {
        let mut commands = Vec::new();
        for table in &self.tables {
            let family = table.family.name();
            let itself = json!({ "family": family, "name": TABLE });
            // A table is there to be deleted only after it was added.
            commands.push(json!({ "add": { "table": itself } }));
            commands.push(json!({ "delete": { "table": itself } }));
            commands.push(json!({ "add": { "table": itself } }));
            for name in &table.sets {
                commands.push(json!({ "add": { "set": {
                    "family": family, "table": TABLE, "name": name,
                    "type": "ipv4_addr", "flags": ["timeout"],
                }}}));
            }
            // All chains before all rules: rules name chains.
            commands.extend(table.chains.iter().map(|chain| chain.command(family)));
            for chain in &table.chains {
                commands.extend(chain.rules.iter().map(|rule| {
                    json!({ "add": { "rule": {
                        "family": family, "table": TABLE, "chain": chain.name,
                        "expr": rule.expressions(),
                    }}})
                }));
            }
        }
        json!({ "nftables": commands }).to_string()
    }
}

/// The batch that puts addresses into named sets, each for so many seconds from now.
pub fn learn<'a>(elements: impl IntoIterator<Item = (&'a str, Ipv4Addr, u32)>) -> String {
    let mut commands = Vec::new();
    for (set, address, seconds) in elements {
        let with = |elements: Value| {
            json!({ "element": {
                "family": "inet", "table": TABLE, "name": set, "elem": elements,
            }})
        };
        // The time of an element that is there already would stay what it was.
        let bare = with(json!([address.to_string()]));
        commands.push(json!({ "add": bare }));
        commands.push(json!({ "delete": bare }));
        let timed = json!({ "elem": { "val": address.to_string(), "timeout": seconds } });
        commands.push(json!({ "add": with(json!([timed])) }));
    }
    json!({ "nftables": commands }).to_string()
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Bridge => "bridge",
        }
    }
}

impl Chain {
    /// A chain that is entered by jumps.
    pub fn new(name: impl Into<String>, rules: Vec<Rule>) -> Chain {
        Chain { name: name.into(), hook: None, rules }
    }

    fn command(&self, family: &str) -> Value {
        let mut chain = json!({ "family": family, "table": TABLE, "name": self.name });
        if let Some(hook) = self.hook {
            chain["type"] = hook.kind.into();
            chain["hook"] = hook.hook.into();
            chain["prio"] = hook.priority.into();
            chain["policy"] = if hook.accept { "accept" } else { "drop" }.into();
        }
        json!({ "add": { "chain": chain } })
    }
}

impl Rule {
    /// A rule.
    pub fn new(when: impl Into<Vec<When>>, then: Then) -> Rule {
        Rule { when: when.into(), then }
    }

    fn expressions(&self) -> Vec<Value> {
        let mut all: Vec<Value> = self.when.iter().flat_map(When::expressions).collect();
        all.push(match &self.then {
            Then::Accept => json!({ "accept": null }),
            Then::Drop => json!({ "drop": null }),
            Then::Return => json!({ "return": null }),
            Then::Jump(chain) => json!({ "jump": { "target": chain } }),
            Then::Masquerade => json!({ "masquerade": null }),
            Then::MapTo(to) => json!({ "dnat": {
                "family": "ip", "addr": to.ip().to_string(), "port": to.port(),
            }}),
        });
        all
    }
}

impl When {
    fn expressions(&self) -> Vec<Value> {
        let is = |left: Value, right: Value| matches("==", left, right);
        let meta = |key: &str| json!({ "meta": { "key": key } });
        let field = |protocol: &str, field: &str| json!({ "payload": { "protocol": protocol, "field": field } });
        let net = |net: &Ipv4Net| match net.prefix_len() {
            32 => json!(net.addr().to_string()),
            len => json!({ "prefix": { "addr": net.network().to_string(), "len": len } }),
        };
        let one = match self {
            When::In(names) => is(meta("iifname"), one_of(names)),
            When::InNot(names) => matches("!=", meta("iifname"), one_of(names)),
            When::Out(names) => is(meta("oifname"), one_of(names)),
            When::OutNot(names) => matches("!=", meta("oifname"), one_of(names)),
            // Zero bits of a prefix say only that it is IPv4.
            When::From(any) | When::To(any) if any.prefix_len() == 0 => {
                is(meta("nfproto"), json!("ipv4"))
            }
            When::From(from) => is(field("ip", "saddr"), net(from)),
            When::To(to) => is(field("ip", "daddr"), net(to)),
            When::FromSet(set) => is(field("ip", "saddr"), json!(format!("@{set}"))),
            When::ToSet(set) => is(field("ip", "daddr"), json!(format!("@{set}"))),
            When::SourceNot(pairs) if pairs.is_empty() => is(meta("nfproto"), json!("ipv4")),
            When::SourceNot(pairs) => {
                let left = json!({ "concat": [meta("iifname"), field("ip", "saddr")] });
                let pairs = pairs.iter().map(|(name, ip)| json!({ "concat": [name, ip] }));
                matches("!=", left, json!({ "set": pairs.collect::<Vec<_>>() }))
            }
            When::Is(protocol) => is(meta("l4proto"), json!(name_of(*protocol))),
            When::AnyIcmp => is(meta("l4proto"), json!({ "set": ["icmp", "ipv6-icmp"] })),
            When::FromPort(protocol, port) => is(field(name_of(*protocol), "sport"), json!(port)),
            When::ToPort(protocol, port) => is(field(name_of(*protocol), "dport"), json!(port)),
            When::Established => matches(
                "in",
                json!({ "ct": { "key": "state" } }),
                json!(["established", "related"]),
            ),
            When::Mapped(yes) => matches(
                if *yes { "in" } else { "!" },
                json!({ "ct": { "key": "status" } }),
                json!("dnat"),
            ),
            When::ToNode => {
                is(json!({ "fib": { "result": "type", "flags": ["daddr"] } }), json!("local"))
            }
            When::Over { rate, per, burst } => {
                json!({ "limit": { "rate": rate, "per": per, "burst": burst, "inv": true } })
            }
            When::Claims(claim) => return claim.expressions(),
        };
        vec![one]
    }
}

impl Claim {
    fn expressions(&self) -> Vec<Value> {
        let (protocol, name) = match self.field {
            ClaimField::Ether => ("ether", "saddr"),
            ClaimField::Ip => ("ip", "saddr"),
            ClaimField::Arp => ("arp", "saddr ip"),
        };
        let field = json!({ "payload": { "protocol": protocol, "field": name } });
        let pair = json!({ "concat": [{ "meta": { "key": "iifname" } }, field] });
        let owners = self.owners.iter().map(|(port, of)| json!({ "concat": [port, of] }));
        vec![
            matches("==", field, one_of(&self.known)),
            matches("!=", pair, json!({ "set": owners.collect::<Vec<_>>() })),
        ]
    }
}

fn matches(op: &str, left: Value, right: Value) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right } })
}

fn one_of(names: &BTreeSet<String>) -> Value {
    match names.first() {
        Some(only) if names.len() == 1 => json!(only),
        _ => json!({ "set": names }),
    }
}

fn name_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}
