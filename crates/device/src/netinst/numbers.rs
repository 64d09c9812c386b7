//! Numbers and addresses that stay the same from boot to boot: who has one keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use model::desired::{App, AppInterface, LocalNetwork, NetworkInstance, NetworkKind};
use model::{AppId, NetworkInstanceId};
use serde::{Deserialize, Serialize};

/// What was given out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The number of each network: `bn<N>`.
    pub networks: BTreeMap<NetworkInstanceId, u8>,
    /// The number of each app: the first of `nbu<N>x<M>`.
    pub apps: BTreeMap<AppId, u8>,
    /// The addresses of apps.
    pub addresses: Vec<Given>,
}

/// An address that an app has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Given {
    /// Where.
    pub network: NetworkInstanceId,
    /// Whose.
    pub app: AppId,
    /// Which of its interfaces, from 0.
    pub place: usize,
    /// The address.
    pub address: Ipv4Addr,
}

/// The file. Every version that was ever written loads.
#[derive(Deserialize, Serialize)]
#[serde(tag = "version")]
enum Saved {
    #[serde(rename = "1")]
    V1(Numbers),
}

impl Numbers {
    /// Reads what [`Numbers::to_bytes`] wrote, of this version or an earlier one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Numbers, serde_json::Error> {
        serde_json::from_slice(bytes).map(|Saved::V1(numbers)| numbers)
    }

    /// The text of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&Saved::V1(self.clone())).unwrap_or_default()
    }

    /// The address of an interface.
    pub fn address(
        &self,
        network: NetworkInstanceId,
        app: AppId,
        place: usize,
    ) -> Option<Ipv4Addr> {
        let of = |g: &&Given| g.network == network && g.app == app && g.place == place;
        self.addresses.iter().find(of).map(|g| g.address)
    }

    /// These numbers, without those of what is gone and with those of what came. What the config
    /// does not hold any more loses its number at once; nothing else does.
    #[must_use]
    pub fn renewed(
        &self,
        networks: &BTreeMap<NetworkInstanceId, NetworkInstance>,
        apps: &BTreeMap<AppId, App>,
    ) -> Numbers {
        let mut addresses = Vec::new();
        for (id, network) in networks {
            if let NetworkKind::Local(local) = &network.kind {
                addresses.extend(self.addresses_in(*id, local, apps));
            }
        }
        addresses.sort();
        Numbers {
            networks: number(&self.networks, networks.keys()),
            apps: number(&self.apps, apps.keys()),
            addresses,
        }
    }

    fn addresses_in(
        &self,
        id: NetworkInstanceId,
        local: &LocalNetwork,
        apps: &BTreeMap<AppId, App>,
    ) -> Vec<Given> {
        let mut taken = BTreeSet::from([local.gateway]);
        let mut given = Vec::new();
        let mut give = |taken: &mut BTreeSet<Ipv4Addr>, app, place, address| {
            let free = taken.insert(address);
            if free {
                given.push(Given { network: id, app, place, address });
            }
            free
        };
        // First what the operator chose, then what was given before: only the rest can move.
        let mut open = Vec::new();
        for (app, place, interface) in interfaces_in(id, apps) {
            match interface.address {
                Some(fixed) if usable(local, fixed) => drop(give(&mut taken, app, place, fixed)),
                Some(_) => {}
                None => open.push((app, place)),
            }
        }
        open.retain(|(app, place)| {
            let before = self.address(id, *app, *place);
            let before = before.filter(|ip| (local.range.start..=local.range.end).contains(ip));
            !before.is_some_and(|ip| give(&mut taken, *app, *place, ip))
        });
        for (app, place) in open {
            if let Some(free) = free_address(local, |ip| taken.contains(&ip)) {
                give(&mut taken, app, place, free);
            }
        }
        given
    }
}

/// Whether an operator may give this address to an app.
pub fn usable(local: &LocalNetwork, address: Ipv4Addr) -> bool {
    local.subnet.contains(&address)
        && ![local.gateway, local.subnet.network(), local.subnet.broadcast()].contains(&address)
}

/// The first address of the range that is not taken.
pub fn free_address(local: &LocalNetwork, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let (start, end) = (u32::from(local.range.start), u32::from(local.range.end));
    (start..=end).map(Ipv4Addr::from).find(|ip| usable(local, *ip) && !taken(*ip))
}

fn interfaces_in(
    id: NetworkInstanceId,
    apps: &BTreeMap<AppId, App>,
) -> impl Iterator<Item = (AppId, usize, &AppInterface)> {
    apps.iter().flat_map(move |(app, desired)| {
        let all = desired.interfaces.iter().enumerate();
        all.filter(move |(_, i)| i.network == id).map(|(place, i)| (*app, place, i))
    })
}

/// Keeps the numbers of those who stay; newcomers get the lowest free from 1. When all 255 are
/// given, a newcomer has none.
fn number<'a, K: Ord + Copy + 'a>(
    before: &BTreeMap<K, u8>,
    wanted: impl Iterator<Item = &'a K> + Clone,
) -> BTreeMap<K, u8> {
    let mut numbers: BTreeMap<K, u8> =
        wanted.clone().filter_map(|key| Some((*key, *before.get(key)?))).collect();
    let mut taken: BTreeSet<u8> = numbers.values().copied().collect();
    for key in wanted {
        if !numbers.contains_key(key)
            && let Some(free) = (1..=u8::MAX).find(|n| !taken.contains(n))
        {
            taken.insert(free);
            numbers.insert(*key, free);
        }
    }
    numbers
}
