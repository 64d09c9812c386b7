//! The names that a local network's DNS knows itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::access::NameSet;

/// What one network's DNS goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Lower case, without the last dot.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Whom it asks for everything else, in order.
    pub upstream: Vec<IpAddr>,
    /// Names whose addresses the packet filter wants to know.
    pub watched: Vec<NameSet>,
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// These are its addresses; none: it has no address of that kind.
    Known(Vec<IpAddr>),
    /// There is no such name.
    Unknown,
    /// Ask the servers; the packet filter's sets that want the answer too.
    Ask(Vec<String>),
}

/// Kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
    /// Anything else.
    Other,
}

impl Names {
    /// What to answer to a question for `name`, with or without a dot at its end.
    pub fn look_up(&self, name: &str, kind: Kind) -> Reply {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(all) = self.hosts.get(&name) {
            let fits = |ip: &&IpAddr| match kind {
                Kind::A => ip.is_ipv4(),
                Kind::Aaaa => ip.is_ipv6(),
                Kind::Other => false,
            };
            return Reply::Known(all.iter().filter(fits).copied().collect());
        }
        // Names of one word mean something here only: what apps ask each other for stays inside.
        if !name.contains('.') && !name.is_empty() && kind != Kind::Other {
            return Reply::Unknown;
        }
        let under = |suffix: &str| {
            name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        Reply::Ask(
            self.watched.iter().filter(|w| under(&w.suffix)).map(|w| w.set.clone()).collect(),
        )
    }
}
