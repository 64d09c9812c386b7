//! Which ports count, and how a config that leads nowhere is found out.
//!
//! ```text
//!                 no address for `test`, or nobody answers for PROOF
//!   the config's ───────────────────────────────────────────────────▶ those that last worked
//!        ▲  ▲                                                              │ no address either
//!        │  └── `again` is over ────────────────────────────────────┐      ▼ (if it is allowed)
//!        └───── nobody answers through others either ───────────────┴─ every Ethernet interface
//! ```
//!
//! Ports have proven themselves when the controller, or whoever stands in for it, answers after they
//! came into use; such ports are kept as those that last worked, and need no proof in later boots.
//! New ones have [`PROOF`] for it. Through which ports ever nobody answers, it is not for these ports:
//! the config's are then taken as they are. A node without an identity expects no answers.
//!
//! Which ports are tried after those of the config: those that last worked; where there are none,
//! or where the settings allow it and those have no address, every Ethernet interface.

use std::collections::BTreeMap;
use std::time::Duration;

use model::UnixMillis;
use model::desired::{Port, PortName};

use super::dhcp::Millis;

/// So long somebody may take to answer through new ports that have an address.
pub const PROOF: Duration = Duration::from_secs(120);

/// Who said which ports there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The controller.
    Desired,
    /// The ports that last worked.
    Saved,
    /// Every Ethernet interface, by DHCP.
    LastResort,
}

/// The settings that count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// So long ports may have no address.
    pub test: Duration,
    /// Ports that were set aside are tried again after so long; zero: not until they change.
    pub again: Duration,
    /// Every Ethernet interface may be tried also where ports are known that once worked.
    pub any_ethernet: bool,
}

/// What is seen now.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// On our clock.
    pub now: Millis,
    /// What the config says. `None`: nothing was published yet.
    pub desired: Option<&'a BTreeMap<PortName, Port>>,
    /// What last worked; empty: nothing ever did.
    pub saved: &'a BTreeMap<PortName, Port>,
    /// A management port in use has a link and an address.
    pub connected: bool,
    /// When somebody last answered: another time is another answer.
    pub answered: Option<UnixMillis>,
    /// Somebody is there who should answer.
    pub expected: bool,
}

/// Why ports are set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No management port got a link and an address.
    NoAddress,
    /// Nobody answered through them.
    NoAnswer,
}

/// Ports that were set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Why.
    pub why: Why,
    /// When they are tried again. `None`: when they change.
    pub again: Option<Millis>,
}

/// What is remembered from one look to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trial {
    /// The config's ports that all this is about.
    of: BTreeMap<PortName, Port>,
    source: Option<Source>,
    /// Since when there is no address.
    cut_off: Option<Millis>,
    /// Since when there is one.
    linked: Option<Millis>,
    /// The answer that was the last one when these ports came into use.
    before: Option<UnixMillis>,
    proven: bool,
    /// No proof is asked for any more.
    accepted: bool,
    aside: Option<Aside>,
}

impl Trial {
    /// The config's ports, if they are set aside.
    pub fn aside(&self) -> Option<Aside> {
        self.aside
    }

    /// The config's ports are in use and somebody answered through them.
    pub fn proven(&self) -> bool {
        self.source == Some(Source::Desired) && self.proven
    }

    /// Something may change only because time goes by.
    pub fn is_open(&self) -> bool {
        let unsettled = self.cut_off.is_some() || !(self.proven || self.accepted);
        self.source.is_some() && (self.aside.is_some() || unsettled)
    }

    fn switch(&mut self, to: Source, seen: &Seen<'_>) {
        self.source = Some(to);
        (self.cut_off, self.linked, self.proven) = (None, None, false);
        self.before = seen.answered;
    }

    fn look(&mut self, seen: &Seen<'_>) {
        if seen.connected {
            self.cut_off = None;
            self.linked.get_or_insert(seen.now);
            self.proven |= seen.answered.is_some() && seen.answered != self.before;
        } else {
            self.linked = None;
            self.cut_off.get_or_insert(seen.now);
        }
    }
}

/// Which source counts now.
pub fn choose(trial: Trial, seen: &Seen<'_>, rules: &Rules) -> (Trial, Source) {
    use Source::{Desired, LastResort, Saved};
    let Some(desired) = seen.desired else {
        return (Trial::default(), if seen.saved.is_empty() { LastResort } else { Saved });
    };
    // A config without ports says nothing about the network.
    if desired.is_empty() {
        return (Trial::default(), LastResort);
    }
    let mut trial = trial;
    if trial.source.is_none() || trial.of != *desired {
        trial = Trial { of: desired.clone(), ..Trial::default() };
        trial.switch(Desired, seen);
        // Whether there is an address is seen when these ports are in use.
        return (trial, Desired);
    }
    trial.look(seen);
    trial.accepted |= seen.saved == desired || !seen.expected;
    let long = |since: Option<Millis>, limit: Duration| {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        since.is_some_and(|since| seen.now.saturating_sub(since) >= limit)
    };
    let cut_off = long(trial.cut_off, rules.test);
    let unheard = !trial.proven && long(trial.linked, PROOF);
    match trial.aside {
        None => {
            let why = match (cut_off, unheard && !trial.accepted) {
                (true, _) => Why::NoAddress,
                (false, true) => Why::NoAnswer,
                (false, false) => return (trial, Desired),
            };
            let next = match seen.saved {
                none if none.is_empty() => LastResort,
                saved if saved != desired => Saved,
                _ if rules.any_ethernet => LastResort,
                _ => return (trial, Desired),
            };
            let again = u64::try_from(rules.again.as_millis()).unwrap_or(u64::MAX);
            let again = (!rules.again.is_zero()).then(|| seen.now.saturating_add(again));
            trial.aside = Some(Aside { why, again });
            trial.switch(next, seen);
            (trial, next)
        }
        Some(aside) => {
            let helpless = aside.why == Why::NoAnswer && (cut_off || unheard);
            // Nothing else is left, and only they may lead anywhere again.
            let last = trial.source != Some(Saved) || !rules.any_ethernet;
            let stuck = aside.again.is_none() && cut_off && last;
            if helpless || stuck || aside.again.is_some_and(|again| seen.now >= again) {
                trial.aside = None;
                trial.accepted |= helpless;
                trial.switch(Desired, seen);
                return (trial, Desired);
            }
            if trial.source == Some(Saved) && cut_off && rules.any_ethernet {
                trial.switch(LastResort, seen);
            }
            let source = trial.source.unwrap_or(LastResort);
            (trial, source)
        }
    }
}

#[cfg(test)]
mod tests {
    use model::desired::Addressing;

    use super::*;

    fn ports(interface: &str) -> BTreeMap<PortName, Port> {
        let name = PortName::new(interface).unwrap();
        let port = Port {
            name: name.clone(),
            interface: interface.to_owned(),
            management: true,
            cost: 0,
            addressing: Addressing::Dhcp,
            mtu: None,
            below: String::new(),
            link: Default::default(),
            options: Default::default(),
        };
        BTreeMap::from([(name, port)])
    }

    /// A node whose sources have an address and lead to an answer, or not.
    struct World {
        rules: Rules,
        saved: BTreeMap<PortName, Port>,
        expected: bool,
        address: fn(Source) -> bool,
        answer: fn(Source) -> bool,
    }

    impl Default for World {
        fn default() -> Self {
            let s = Duration::from_secs;
            World {
                rules: Rules { test: s(30), again: s(600), any_ethernet: false },
                saved: BTreeMap::new(),
                expected: true,
                address: |_| true,
                answer: |_| true,
            }
        }
    }

    impl World {
        /// Looks every ten seconds, and tells when which source was taken; at the end also whether
        /// it has proven itself.
        fn runs(&self, seconds: u64) -> String {
            let desired = ports("eth0");
            let (mut trial, mut told, mut source) = (Trial::default(), Vec::new(), None);
            let mut answered = Some(UnixMillis(1));
            for second in (0..=seconds).step_by(10) {
                if let Some(source) = source.filter(|s| (self.address)(*s) && (self.answer)(*s)) {
                    answered = Some(UnixMillis(1000 * second + source as u64));
                }
                let seen = Seen {
                    now: second * 1000,
                    desired: Some(&desired),
                    saved: &self.saved,
                    connected: source.is_some_and(self.address),
                    answered,
                    expected: self.expected,
                };
                let (next, taken) = choose(trial, &seen, &self.rules);
                trial = next;
                if source != Some(taken) {
                    told.push(format!("{second} {taken:?}"));
                }
                source = Some(taken);
            }
            if trial.proven() {
                told.push("proven".to_owned());
            }
            told.join(", ")
        }
    }

    #[test]
    fn ports_through_which_somebody_answers_are_proven() {
        let world = World { saved: ports("eth1"), ..World::default() };
        assert_eq!(world.runs(900), "0 Desired, proven");
        assert_eq!(World::default().runs(900), "0 Desired, proven");
    }

    #[test]
    fn ports_without_an_address_give_way_to_those_that_last_worked_and_are_tried_again() {
        let address = |source| source != Source::Desired;
        let world = World { saved: ports("eth1"), address, ..World::default() };
        assert_eq!(world.runs(700), "0 Desired, 40 Saved, 640 Desired, 680 Saved");
        let never = Rules { again: Duration::ZERO, ..world.rules };
        assert_eq!(World { rules: never, ..world }.runs(3000), "0 Desired, 40 Saved");
        // Where nothing has an address, they are not forgotten: the cable may come back.
        let nothing =
            World { saved: ports("eth1"), address: |_| false, rules: never, ..World::default() };
        assert_eq!(nothing.runs(130), "0 Desired, 40 Saved, 80 Desired, 120 Saved");
        assert!(!Trial::default().is_open());
    }

    #[test]
    fn ports_that_lead_nowhere_give_way_too() {
        let answer = |source| source != Source::Desired;
        let world = World { saved: ports("eth1"), answer, ..World::default() };
        assert_eq!(world.runs(140), "0 Desired, 130 Saved");
        assert_eq!(world.runs(870), "0 Desired, 130 Saved, 730 Desired, 860 Saved");
        let world = World { answer, ..World::default() };
        assert_eq!(world.runs(140), "0 Desired, 130 LastResort");
    }

    #[test]
    fn where_nobody_answers_at_all_it_is_not_for_the_ports() {
        let world = World { saved: ports("eth1"), answer: |_| false, ..World::default() };
        assert_eq!(world.runs(2000), "0 Desired, 130 Saved, 260 Desired");
        let nobody = World { expected: false, ..world };
        assert_eq!(nobody.runs(2000), "0 Desired");
    }

    #[test]
    fn ports_that_worked_in_an_earlier_boot_need_no_proof_and_a_pulled_cable_is_waited_for() {
        let world = World { saved: ports("eth0"), answer: |_| false, ..World::default() };
        assert_eq!(world.runs(2000), "0 Desired");
        let pulled = World { address: |_| false, ..world };
        assert_eq!(pulled.runs(2000), "0 Desired");
        let rules = Rules { any_ethernet: true, ..pulled.rules };
        let any = World { rules, ..pulled };
        assert_eq!(any.runs(650), "0 Desired, 40 LastResort, 640 Desired");
    }

    #[test]
    fn every_ethernet_interface_is_the_last_resort_where_it_is_allowed() {
        let address = |source| source == Source::LastResort;
        let rules = Rules { any_ethernet: true, ..World::default().rules };
        let world = World { saved: ports("eth1"), address, rules, ..World::default() };
        assert_eq!(world.runs(600), "0 Desired, 40 Saved, 80 LastResort");
        let not_allowed = World { rules: World::default().rules, ..world };
        assert_eq!(not_allowed.runs(600), "0 Desired, 40 Saved");
    }

    #[test]
    fn until_the_config_speaks_the_ports_that_worked_count_and_a_new_one_is_tried_at_once() {
        let (none, saved, rules) = (BTreeMap::new(), ports("eth1"), World::default().rules);
        let seen = Seen {
            now: 0,
            desired: None,
            saved: &saved,
            connected: false,
            answered: None,
            expected: true,
        };
        let first = |seen: &Seen<'_>| choose(Trial::default(), seen, &rules).1;
        assert_eq!(first(&seen), Source::Saved);
        assert_eq!(first(&Seen { saved: &none, ..seen }), Source::LastResort);
        assert_eq!(first(&Seen { desired: Some(&none), ..seen }), Source::LastResort);
        let (bad, good) = (ports("eth0"), ports("eth2"));
        let mut trial = Trial::default();
        for now in [0, 10_000, 50_000] {
            trial = choose(trial, &Seen { now, desired: Some(&bad), ..seen }, &rules).0;
        }
        assert_eq!(trial.aside().map(|a| a.why), Some(Why::NoAddress));
        let (trial, source) = choose(trial, &Seen { desired: Some(&good), ..seen }, &rules);
        assert_eq!((source, trial.aside()), (Source::Desired, None));
    }
}
