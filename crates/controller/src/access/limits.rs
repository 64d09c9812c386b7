//! How much anybody may ask for. Counted in this process, on a clock that cannot be set back.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many at once, and so many each second after that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// Per second.
    pub per_second: f64,
}

/// Bounds of what one controller process does for others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Calls of the operator API by one token.
    pub calls: Rate,
    /// Requests with credentials that nobody has, by one address; more are refused unread.
    pub refusals: Rate,
    /// Registrations of nodes from one address.
    pub registrations: Rate,
    /// Connections at once, if the process may have so many files; more wait in the kernel's queue.
    /// From half of it on, connections end after their answer.
    pub connections: usize,
    /// Connections at once of one address; from half of it on, they end after their answer.
    pub connections_of_one: usize,
    /// Requests being answered at once; more are told to come again.
    pub requests: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the headers of a request; a kept connection may be silent for so long.
    pub headers: Duration,
    /// Whether addresses of this machine itself are free of what is counted by address: a fleet of
    /// simulated nodes, or a proxy that everybody comes through.
    pub spare_loopback: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            calls: Rate { burst: 400.0, per_second: 100.0 },
            refusals: Rate { burst: 30.0, per_second: 1.0 },
            registrations: Rate { burst: 500.0, per_second: 50.0 },
            connections: 16_384,
            connections_of_one: 2048,
            requests: 2048,
            handshake: Duration::from_secs(10),
            // Longer than the usual minute between two polls of a node that keeps its connection.
            headers: Duration::from_secs(75),
            spare_loopback: true,
        }
    }
}

/// Addresses that are one for counting: whoever has one of IPv6 has its whole /64.
pub(crate) fn one(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Who has asked how often: for each a bucket that fills with time.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    filled: Mutex<HashMap<K, (f64, Instant)>>,
}

/// More are not remembered at once; the fullest buckets, which say nothing, are forgotten first.
const BUCKETS_MAX: usize = 65_536;

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(rate: Rate) -> Buckets<K> {
        Buckets { rate, filled: Mutex::default() }
    }

    /// Takes one out of the bucket. An empty one says how long to wait.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut all = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let Rate { burst, per_second } = self.rate;
        let level = |(left, at): &(f64, Instant)| {
            (left + now.saturating_duration_since(*at).as_secs_f64() * per_second).min(burst)
        };
        if all.len() >= BUCKETS_MAX && !all.contains_key(&key) {
            all.retain(|_, bucket| level(bucket) < burst);
            if all.len() >= BUCKETS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let left = all.get(&key).map_or(burst, level);
        if left < 1.0 {
            let wait = if per_second > 0.0 { (1.0 - left) / per_second } else { 3600.0 };
            return Err(Duration::from_secs_f64(wait.min(3600.0)));
        }
        all.insert(key, (left - 1.0, now));
        Ok(())
    }
}

/// How many of something each has at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold(Held, IpAddr);

impl Held {
    /// One more for `who`, unless it has `most`.
    pub(crate) fn take(&self, who: IpAddr, most: usize) -> Option<Hold> {
        let who = one(who);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all.entry(who).or_default();
        if *held >= most {
            return None;
        }
        *held += 1;
        Some(Hold(self.clone(), who))
    }
}

impl Hold {
    /// How many its holder has, this one included.
    pub(crate) fn of_holder(&self) -> usize {
        let all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&self.1).copied().unwrap_or_default()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get_mut(&self.1) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// Seconds for `Retry-After`: whole ones, at least one.
pub(crate) fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// What wrong log-ins cost: so many are free, then each further one doubles the wait, up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackOff {
    pub(crate) free: u32,
    pub(crate) most: Duration,
}

/// For one name from one address.
pub(crate) const OF_PAIR: BackOff = BackOff { free: 5, most: Duration::from_secs(900) };
/// For one address, whatever the names.
pub(crate) const OF_ADDRESS: BackOff = BackOff { free: 20, most: Duration::from_secs(900) };
/// For one name, wherever from: short, so that nobody is kept out by strangers.
pub(crate) const OF_NAME: BackOff = BackOff { free: 50, most: Duration::from_secs(30) };

impl BackOff {
    /// How long to wait after so many failures in a row.
    pub(crate) fn wait(self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs(1 << over.min(20)).min(self.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_only_its_own() {
        let buckets = Buckets::new(Rate { burst: 2.0, per_second: 0.5 });
        let start = Instant::now();
        assert_eq!(buckets.take("a", start), Ok(()));
        assert_eq!(buckets.take("a", start), Ok(()));
        assert_eq!(buckets.take("a", start), Err(Duration::from_secs(2)));
        assert_eq!(buckets.take("b", start), Ok(()));
        assert_eq!(buckets.take("a", start + Duration::from_secs(2)), Ok(()));
        assert!(buckets.take("a", start + Duration::from_secs(2)).is_err());
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let held = Held::default();
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let first = held.take(a, 2).unwrap();
        let _second = held.take(neighbour, 2).unwrap();
        assert!(held.take(a, 2).is_none(), "one /64 is one");
        assert!(held.take("2001:db8:0:1::1".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(held.take(a, 2).is_some());
        assert_eq!(
            one("::ffff:192.0.2.1".parse().unwrap()),
            "192.0.2.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn waits_double_and_end() {
        assert_eq!(OF_PAIR.wait(4), Duration::ZERO);
        assert_eq!(OF_PAIR.wait(5), Duration::from_secs(1));
        assert_eq!(OF_PAIR.wait(8), Duration::from_secs(8));
        assert_eq!(OF_PAIR.wait(u32::MAX), OF_PAIR.most);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
    }
}
