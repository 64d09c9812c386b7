//! What time it is, by servers that know (NTP, RFC 5905, as a client of several servers).
//!
//! Each server is asked by itself; of its last answers the one that took the shortest way counts.
//! Servers of which most agree are believed ([`judge`]): of those the best one says by how much our
//! clock is off. A clock that is off by more than [`STEP`] is set at once; less is left as it is.
//!
//! A request carries a number drawn by chance in the place of our time, and an answer without it is
//! none: who does not see our requests cannot set our clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use model::desired::{Addressing, PortName};
use model::reported::{PortStatus, TimeSource, TimeSourceState};
use model::{UnixMillis, reported::TimeState};

/// Asked where nobody names a server (EVE's default too).
pub const DEFAULT: &str = "pool.ntp.org";
/// UDP.
pub const PORT: u16 = 123;
/// So long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A clock that is off by more is set.
pub const STEP: Duration = Duration::from_millis(100);
/// More servers than this are not asked.
pub const SERVERS_MAX: usize = 8;
/// Who may be further off than this is not followed (RFC 5905, MAXDIST): its word would agree with any.
const DISTANCE_MAX: Nanos = SECOND * 3 / 2;
/// Seconds from 1900, when NTP begins, to 1970.
const ERA: i64 = 2_208_988_800;
/// Log2 of seconds between questions: the least, and the most.
const POLL: (u8, u8) = (6, 10);
/// Answers of one server that are remembered.
const SAMPLES: usize = 8;
const SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970.
pub type Nanos = i64;

/// The servers to ask, in order: those of management ports, each once. Empty: no port leads anywhere.
pub fn servers(ports: &BTreeMap<PortName, PortStatus>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let ways = || ports.values().filter(|p| p.port.management && !p.addresses.is_empty());
    for port in ways() {
        let options = &port.port.options;
        let given = port.ntp.iter().filter(|_| !options.ignore.ntp).map(ToString::to_string);
        let fixed = match &port.port.addressing {
            Addressing::Static(fixed) => fixed.ntp.as_slice(),
            Addressing::Dhcp | Addressing::None => &[],
        };
        let named = options.ntp.iter().chain(fixed).map(|name| name.trim().to_owned());
        for name in named.chain(given) {
            if !name.is_empty() && !all.contains(&name) {
                all.push(name);
            }
        }
    }
    if all.is_empty() && ways().next().is_some() {
        all.push(DEFAULT.to_owned());
    }
    all.truncate(SERVERS_MAX);
    all
}

/// A request of version 4 from a client.
pub fn request(chance: u64) -> [u8; 48] {
    let mut packet = [0; 48];
    packet[0] = 0x23;
    packet[40..].copy_from_slice(&chance.to_be_bytes());
    packet
}

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reply {
    /// Hops from a reference clock, 1 to 15.
    pub stratum: u8,
    /// The last minute of the day has 61 (1) or 59 (2) seconds.
    pub leap: u8,
    /// What the server follows.
    pub reference: [u8; 4],
    /// When its clock was last set. `None`: not said.
    pub set: Option<UnixMillis>,
    /// Its way to the reference clock and back.
    pub root_delay: Nanos,
    /// How far off it may be.
    pub root_dispersion: Nanos,
    received: Nanos,
    sent: Nanos,
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not 48 bytes of NTP.
    #[error("the answer is no NTP")]
    NoNtp,
    /// It answers another question.
    #[error("the answer is to another question")]
    NotOurs,
    /// It says so itself, or is too far off what it follows.
    #[error("the server does not know the time")]
    NotInStep,
    /// It wants to be asked less, or not at all (a kiss-o'-death: stratum 0).
    #[error("the server does not want to be asked")]
    Unwilling,
}

impl Reply {
    /// Reads the answer to [`request`].
    pub fn read(bytes: &[u8], chance: u64) -> Result<Reply, Unusable> {
        let bytes: &[u8; 48] = bytes.first_chunk().ok_or(Unusable::NoNtp)?;
        let (leap, version, mode) = (bytes[0] >> 6, (bytes[0] >> 3) & 7, bytes[0] & 7);
        if mode != 4 || !(3..=4).contains(&version) {
            return Err(Unusable::NoNtp);
        }
        let word = |at: usize| {
            u64::from_be_bytes(std::array::from_fn(|n| bytes.get(at + n).copied().unwrap_or(0)))
        };
        if word(24) != chance {
            return Err(Unusable::NotOurs);
        }
        let stratum = bytes[1];
        if stratum == 0 {
            return Err(Unusable::Unwilling);
        }
        if leap == 3 || !(1..=15).contains(&stratum) || word(32) == 0 || word(40) == 0 {
            return Err(Unusable::NotInStep);
        }
        // 16 bits of seconds, 16 of parts.
        let short = |at: usize| {
            let n = i64::try_from(word(at) >> 32).unwrap_or_default();
            n * SECOND / 65_536
        };
        let (root_delay, root_dispersion) = (short(4), short(8));
        if root_delay / 2 + root_dispersion > DISTANCE_MAX {
            return Err(Unusable::NotInStep);
        }
        let set = u64::try_from(time(word(16)) / 1_000_000).ok().filter(|_| word(16) != 0);
        Ok(Reply {
            stratum,
            leap,
            reference: [bytes[12], bytes[13], bytes[14], bytes[15]],
            set: set.map(UnixMillis),
            root_delay,
            root_dispersion,
            received: time(word(32)),
            sent: time(word(40)),
        })
    }
}

/// 32 bits of seconds since 1900, or since 2036 if the first bit is not set, and 32 of parts.
fn time(ntp: u64) -> Nanos {
    let seconds = i64::try_from(ntp >> 32).unwrap_or_default();
    let parts = i64::try_from(ntp & 0xffff_ffff).unwrap_or_default();
    let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
    (seconds + era - ERA) * SECOND + ((parts * SECOND) >> 32)
}

/// How far our clock is off, by one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// So much our clock is behind.
    offset: Nanos,
    /// So long the answer was on its way, both ways together.
    delay: Nanos,
}

/// A server that is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// As it was named.
    pub name: String,
    /// Where the last answer came from, and at which address of ours.
    pub address: Option<(IpAddr, IpAddr)>,
    /// The last eight tries: 1 is an answer, the newest is the lowest bit.
    pub reach: u8,
    said: Option<Reply>,
    samples: Vec<Sample>,
    poll: u8,
}

impl Server {
    /// One that was not asked yet.
    pub fn new(name: &str) -> Server {
        Server {
            name: name.to_owned(),
            address: None,
            reach: 0,
            said: None,
            samples: Vec::new(),
            poll: POLL.0,
        }
    }

    /// It answered a request that went out at `asked`; the answer was here at `here`, both by our
    /// clock.
    pub fn answered(&mut self, reply: Reply, asked: Nanos, here: Nanos) {
        // A clock may show any year; the sum of two differences fits into no more than this.
        let [received, sent, asked, here] =
            [reply.received, reply.sent, asked, here].map(i128::from);
        let held =
            |n: i128| Nanos::try_from(n).unwrap_or(if n < 0 { Nanos::MIN } else { Nanos::MAX });
        let offset = held(((received - asked) + (sent - here)) / 2);
        let delay = held((here - asked) - (sent - received)).max(0);
        self.reach = (self.reach << 1) | 1;
        self.said = Some(reply);
        self.samples.insert(0, Sample { offset, delay });
        self.samples.truncate(SAMPLES);
        self.poll = (self.poll + 1).min(POLL.1);
    }

    /// It did not, or not well.
    pub fn silent(&mut self) {
        self.reach <<= 1;
        self.poll = POLL.0;
    }

    /// It does not want to be asked so often.
    pub fn unwilling(&mut self) {
        self.reach <<= 1;
        self.poll = POLL.1;
    }

    /// Our clock was moved forward by so much.
    pub fn moved(&mut self, by: Nanos) {
        self.samples.truncate(1);
        self.samples.iter_mut().for_each(|s| s.offset = s.offset.saturating_sub(by));
        self.poll = POLL.0;
    }

    /// Until it is asked again. One that never answered is asked more often, for a while.
    pub fn pause(&self, tries: u32) -> Duration {
        if self.said.is_none() && tries < 4 && self.poll == POLL.0 {
            return Duration::from_secs(4 << tries);
        }
        Duration::from_secs(1 << self.poll)
    }

    /// The sample that took the shortest way.
    fn best(&self) -> Option<Sample> {
        self.samples.iter().min_by_key(|s| s.delay).copied().filter(|_| self.reach != 0)
    }

    /// How far off what it says may be.
    fn distance(&self) -> Option<Nanos> {
        let (said, sample) = (self.said?, self.best()?);
        Some((said.root_delay / 2 + said.root_dispersion).saturating_add(sample.delay / 2))
    }
}

/// Which servers are believed, and what of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// By server, in their order.
    pub states: Vec<TimeSourceState>,
    /// So much our clock is behind. `None`: nobody knows.
    pub offset: Option<Nanos>,
    /// So far off that may be.
    pub doubt: Nanos,
}

/// Judges all servers: those that most others can agree with, within what each may be off, tell the
/// truth; of those the one with the fewest hops and the least distance is followed.
pub fn judge(servers: &[Server]) -> Verdict {
    // Also a clock nearby may be off by a little.
    let slack = SECOND / 50;
    let range = |s: &Server| {
        let (offset, distance) = (s.best()?.offset, s.distance()?.saturating_add(slack));
        Some((offset.saturating_sub(distance), offset.saturating_add(distance)))
    };
    let ranges: Vec<Option<(Nanos, Nanos)>> = servers.iter().map(range).collect();
    let agree = |a: (Nanos, Nanos), b: (Nanos, Nanos)| a.0 <= b.1 && b.0 <= a.1;
    let known = ranges.iter().flatten().count();
    let truthful = |own: Option<(Nanos, Nanos)>| {
        own.is_some_and(|own| {
            ranges.iter().flatten().filter(|r| agree(own, **r)).count() * 2 > known
        })
    };
    let rank = |s: &Server| (s.said.map_or(16, |r| r.stratum), s.distance().unwrap_or(Nanos::MAX));
    let believed = servers.iter().zip(&ranges).filter(|(_, r)| truthful(**r)).map(|(s, _)| s);
    let best = believed.min_by_key(|s| rank(s));
    let state = |(server, range): (&Server, &Option<(Nanos, Nanos)>)| match range {
        None => TimeSourceState::Unreachable,
        Some(_) if best.is_some_and(|best| best.name == server.name) => TimeSourceState::Followed,
        range if truthful(*range) => TimeSourceState::Candidate,
        Some(_) => TimeSourceState::Wrong,
    };
    Verdict {
        states: servers.iter().zip(&ranges).map(state).collect(),
        offset: best.and_then(|best| best.best()).map(|sample| sample.offset),
        doubt: best.and_then(Server::distance).unwrap_or_default(),
    }
}

/// By how much our clock is to be moved. `None`: it is good enough, or as good as what is known.
pub fn step(verdict: &Verdict) -> Option<Nanos> {
    let limit = i64::try_from(STEP.as_nanos()).unwrap_or(i64::MAX).max(verdict.doubt);
    verdict.offset.filter(|offset| offset.saturating_abs() > limit)
}

/// What is told of all this. `set`: when our clock was last known to be right.
pub fn report(servers: &[Server], verdict: &Verdict, set: Option<UnixMillis>) -> TimeState {
    let source = |(server, state): (&Server, &TimeSourceState)| {
        let sample = server.best();
        let said = server.said;
        let offsets = server.samples.iter().map(|s| s.offset);
        let spread =
            offsets.clone().max().zip(offsets.min()).map_or(0, |(most, least)| most - least);
        TimeSource {
            name: server.name.clone(),
            address: server.address.map(|(there, _)| there),
            own: server.address.map(|(_, here)| here),
            state: *state,
            reach: server.reach,
            stratum: said.map_or(0, |r| r.stratum),
            leap: said.map_or(0, |r| r.leap),
            reference: said.map(|r| reference(&r)).unwrap_or_default(),
            reference_set: said.and_then(|r| r.set),
            poll: server.poll,
            offset_ns: sample.map_or(0, |s| s.offset),
            delay_ns: sample.map_or(0, |s| s.delay),
            jitter_ns: spread,
            root_delay_ns: said.map_or(0, |r| r.root_delay),
            root_dispersion_ns: said.map_or(0, |r| r.root_dispersion),
        }
    };
    TimeState { in_step: set, sources: servers.iter().zip(&verdict.states).map(source).collect() }
}

/// A word of servers with a clock of their own, else the address of what they follow.
fn reference(reply: &Reply) -> String {
    let [a, b, c, d] = reply.reference;
    if reply.stratum == 1 {
        let word: String = reply.reference.iter().map(|b| char::from(*b)).collect();
        return word.chars().filter(char::is_ascii_graphic).collect();
    }
    format!("{a}.{b}.{c}.{d}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01, in NTP's seconds.
    const NOW: u64 = 3_976_214_400;
    const CHANCE: u64 = 0x0123_4567_89ab_cdef;

    fn answer(stratum: u8) -> [u8; 48] {
        let mut packet = [0; 48];
        packet[0] = 0x24;
        packet[1] = stratum;
        packet[4..8].copy_from_slice(&(1u32 << 14).to_be_bytes()); // root delay: a quarter second
        packet[12..16].copy_from_slice(b"GPS\0");
        packet[16..24].copy_from_slice(&((NOW - 10) << 32).to_be_bytes());
        packet[24..32].copy_from_slice(&CHANCE.to_be_bytes());
        packet[32..40].copy_from_slice(&(NOW << 32).to_be_bytes());
        packet[40..48].copy_from_slice(&((NOW << 32) + (1 << 31)).to_be_bytes());
        packet
    }

    #[test]
    fn an_answer_says_by_how_much_our_clock_is_behind() {
        assert_eq!(request(CHANCE)[40..], CHANCE.to_be_bytes());
        let reply = Reply::read(&answer(1), CHANCE).unwrap();
        assert_eq!((reply.stratum, reply.root_delay), (1, SECOND / 4));
        let server_now = 1_767_225_600 * SECOND;
        assert_eq!((reply.received, reply.sent), (server_now, server_now + SECOND / 2));
        assert_eq!(reply.set, Some(UnixMillis(1_767_225_590_000)));
        // Our clock is 100 s behind; each way takes 10 ms.
        let asked = server_now - 100 * SECOND - SECOND / 100;
        let here = server_now + SECOND / 2 - 100 * SECOND + SECOND / 100;
        let mut server = Server::new("a");
        server.answered(reply, asked, here);
        assert_eq!(server.best(), Some(Sample { offset: 100 * SECOND, delay: SECOND / 50 }));
        let verdict = judge(std::slice::from_ref(&server));
        assert_eq!(step(&verdict), Some(100 * SECOND));
        let told = report(&[server.clone()], &verdict, None);
        assert_eq!((told.sources[0].reference.as_str(), told.sources[0].reach), ("GPS", 1));
        server.moved(100 * SECOND);
        assert_eq!(step(&judge(&[server])), None);
    }

    #[test]
    fn what_is_no_answer_to_us_is_none() {
        let with = |at: usize, byte: u8| {
            let mut packet = answer(2);
            packet[at] = byte;
            Reply::read(&packet, CHANCE)
        };
        assert!(with(0, 0x24).is_ok());
        assert_eq!(with(0, 0x23), Err(Unusable::NoNtp), "a request");
        assert_eq!(with(24, 9), Err(Unusable::NotOurs));
        assert_eq!(with(0, 0xe4), Err(Unusable::NotInStep), "its clock is not set");
        assert_eq!(with(1, 0), Err(Unusable::Unwilling), "it wants to be left alone");
        assert_eq!(with(9, 2), Err(Unusable::NotInStep), "two seconds off, it says itself");
        assert_eq!(with(1, 16), Err(Unusable::NotInStep));
        assert_eq!(Reply::read(&answer(2)[..47], CHANCE), Err(Unusable::NoNtp));
    }

    fn server(name: &str, stratum: u8, offset: Nanos) -> Server {
        let reply = Reply::read(&answer(stratum), CHANCE).unwrap();
        let reply = Reply { root_delay: 0, ..reply };
        let mut server = Server::new(name);
        server.answered(reply, reply.received - offset, reply.sent - offset);
        server
    }

    #[test]
    fn most_of_the_servers_are_right_and_the_best_of_them_is_followed() {
        use TimeSourceState::{Candidate, Followed, Unreachable, Wrong};
        let mut gone = server("gone", 1, 0);
        (0..8).for_each(|_| gone.silent());
        let all = [
            server("far", 3, SECOND),
            server("near", 2, SECOND + 1000),
            server("liar", 1, 900 * SECOND),
            gone,
        ];
        let verdict = judge(&all);
        assert_eq!(verdict.states, [Candidate, Followed, Wrong, Unreachable]);
        assert_eq!(step(&verdict), Some(SECOND + 1000));
        // Two that do not agree: nobody knows who is right.
        let verdict = judge(&all[1..3]);
        assert_eq!((verdict.states.as_slice(), verdict.offset), (&[Wrong, Wrong][..], None));
        assert_eq!(judge(&[]).offset, None);
    }

    #[test]
    fn a_clock_is_not_moved_by_less_than_is_known_of_it() {
        let far = |offset: Nanos| {
            let mut server = server("far", 2, 0);
            let reply = server.said.unwrap();
            // Its answer took 600 ms, all of it one way or the other.
            server.samples.clear();
            server.answered(
                reply,
                reply.received - 600 * SECOND / 1000 - offset,
                reply.sent - offset,
            );
            step(&judge(&[server]))
        };
        assert_eq!(far(0), None);
        assert_eq!(far(10 * SECOND), Some(10_300 * SECOND / 1000));
        // Whatever our clock shows.
        let mut lost = server("a", 2, 0);
        let reply = lost.said.unwrap();
        lost.samples.clear();
        lost.answered(reply, Nanos::MIN, Nanos::MIN);
        assert!(step(&judge(&[lost])).is_some());
    }

    #[test]
    fn servers_are_those_that_management_ports_name() {
        use model::desired::{Port, StaticAddress};
        let port = |name: &str, management, addressing, ntp: &[&str]| {
            let name = PortName::new(name).unwrap();
            let mut port = Port {
                name: name.clone(),
                interface: name.to_string(),
                management,
                cost: 0,
                addressing,
                mtu: None,
                below: String::new(),
                link: Default::default(),
                options: Default::default(),
            };
            port.options.ntp = ntp.iter().map(|n| (*n).to_owned()).collect();
            let status = PortStatus {
                port,
                link: true,
                mac: None,
                addresses: vec!["192.0.2.9/24".parse().unwrap()],
                gateway: None,
                dns: Vec::new(),
                ntp: vec!["192.0.2.1".parse().unwrap()],
                domain: None,
                lease: None,
                test: None,
                problem: None,
            };
            (name, status)
        };
        let fixed = Addressing::Static(StaticAddress {
            address: "192.0.2.9/24".parse().unwrap(),
            gateway: None,
            dns: Vec::new(),
            ntp: vec!["time.example".to_owned()],
        });
        let ports = BTreeMap::from([
            port("eth0", true, Addressing::Dhcp, &["own.example", " "]),
            port("eth1", true, fixed, &[]),
            port("eth2", false, Addressing::Dhcp, &["apps.example"]),
        ]);
        assert_eq!(servers(&ports), ["own.example", "192.0.2.1", "time.example"]);
        let (name, mut only) = port("eth0", true, Addressing::Dhcp, &[]);
        only.port.options.ignore.ntp = true;
        assert_eq!(servers(&BTreeMap::from([(name.clone(), only.clone())])), [DEFAULT]);
        only.addresses.clear();
        assert!(servers(&BTreeMap::from([(name, only)])).is_empty());
    }

    #[test]
    fn the_years_after_2036_are_read() {
        assert_eq!(time(0), ((1 << 32) - ERA) * SECOND);
        assert_eq!(time(NOW << 32), 1_767_225_600 * SECOND);
    }

    #[test]
    fn who_answers_well_is_asked_less_often() {
        let mut server = server("a", 2, 0);
        let pauses: Vec<u64> = (0..5)
            .map(|_| {
                let reply = server.said.unwrap();
                server.answered(reply, reply.received, reply.sent);
                server.pause(9).as_secs()
            })
            .collect();
        assert_eq!(pauses, [256, 512, 1024, 1024, 1024]);
        server.silent();
        assert_eq!(server.pause(9).as_secs(), 64);
        server.unwilling();
        assert_eq!(server.pause(9).as_secs(), 1024);
        let mut never = Server::new("c");
        never.unwilling();
        assert_eq!(never.pause(1).as_secs(), 1024);
        let unknown = Server::new("b");
        assert_eq!(
            (0..5).map(|n| unknown.pause(n).as_secs()).collect::<Vec<_>>(),
            [4, 8, 16, 32, 64]
        );
    }
}
