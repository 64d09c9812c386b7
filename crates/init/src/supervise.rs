//! Which service is started, killed, restarted, and when the node is past helping itself. Pure: the
//! loop in [`crate::node`] tells what happened and does what is answered.
//!
//! ```text
//!            after done           READY=1 (daemon), exit 0 (oneshot)
//! Waiting ─────────────▶ Running ─────────────▶ Running, ready / Ended
//!    ▲                      │ ends, or silent for longer than promised
//!    └── pause is over ── Resting      pauses: 1 s, doubling to 30 s
//! ```
//!
//! A lifeline service that dies [`DEATHS`] times within [`DEATHS_WITHIN`] reboots the node.

use std::time::Duration;

use model::reported::BootReason;
use model::services::{Class, Kind, Service, Spec};

/// So many deaths of a lifeline service …
const DEATHS: usize = 5;
/// … in this long are too many.
const DEATHS_WITHIN: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Who ran this long is healthy: the next pause is short again.
const HEALTHY: Duration = Duration::from_secs(60);

/// Milliseconds on a clock that never goes back.
pub(crate) type Millis = u64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Time went by.
    Tick,
    /// A start that was asked for worked.
    Started(Service, i32),
    /// … or did not.
    NotStarted(Service),
    /// A process ended.
    Ended(i32, Death),
    /// A service says that it is ready.
    Ready(i32),
    /// A service says that it is alive.
    Alive(i32),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// By itself, with 0.
    Done,
    /// By itself, with another status, or by a signal.
    Failed,
    /// The kernel took it for its memory.
    OutOfMemory,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start it.
    Start(Service),
    /// Kill a process that was silent for too long.
    Kill(Service, i32),
    /// Reboot the node.
    Reboot(BootReason, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For what it comes after.
    Waiting,
    /// A start was asked for.
    Starting,
    Running {
        pid: i32,
        since: Millis,
        ready: bool,
        heard: Millis,
        killed: bool,
    },
    /// Until its next start.
    Resting(Millis),
    /// A oneshot that did its work.
    Ended,
}

#[derive(Debug)]
struct Row {
    spec: &'static Spec,
    state: State,
    starts: u32,
    pause: Duration,
    deaths: Vec<(Millis, BootReason)>,
}

/// All services that are to run.
#[derive(Debug)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// The services whose condition (`only_if`) holds.
    pub(crate) fn new(
        all: impl Iterator<Item = &'static Spec>,
        exists: impl Fn(&str) -> bool,
    ) -> Table {
        let wanted = all.filter(|spec| spec.only_if.is_none_or(&exists));
        Table(wanted.map(Row::new).collect())
    }

    /// The process of a service.
    pub(crate) fn pid(&self, service: Service) -> Option<i32> {
        self.0.iter().find(|row| row.spec.service == service).and_then(Row::pid)
    }

    /// The service of a process.
    pub(crate) fn service(&self, pid: i32) -> Option<Service> {
        self.0.iter().find(|row| row.pid() == Some(pid)).map(|row| row.spec.service)
    }

    /// How often a service was started.
    pub(crate) fn starts(&self, service: Service) -> u32 {
        self.0.iter().find(|row| row.spec.service == service).map_or(0, |row| row.starts)
    }

    /// Whether a service has done what others wait for.
    pub(crate) fn is_done(&self, service: Service) -> bool {
        // One that is not wanted here is waited for by nobody.
        self.0.iter().find(|row| row.spec.service == service).is_none_or(Row::done)
    }

    /// Whether every daemon has said that it is ready.
    pub(crate) fn all_ready(&self) -> bool {
        self.0.iter().all(Row::done)
    }

    /// Takes in what happened and says what is to be done about it.
    pub(crate) fn step(&mut self, now: Millis, event: &Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Started(service, pid) => self.started(*service, *pid, now),
            Event::NotStarted(service) => {
                if let Some(row) = self.0.iter_mut().find(|row| row.spec.service == *service) {
                    actions.extend(row.died(now, BootReason::Fatal));
                }
            }
            Event::Ended(pid, death) => {
                if let Some(row) = self.0.iter_mut().find(|row| row.pid() == Some(*pid)) {
                    actions.extend(row.ended(now, *death));
                }
            }
            Event::Ready(pid) => self.heard(*pid, now, true),
            Event::Alive(pid) => self.heard(*pid, now, false),
        }
        actions.extend(self.0.iter_mut().filter_map(|row| row.watch(now)));
        let done: Vec<Service> =
            self.0.iter().filter(|row| row.done()).map(|row| row.spec.service).collect();
        let known: Vec<Service> = self.0.iter().map(|row| row.spec.service).collect();
        for row in &mut self.0 {
            let free = row.spec.after.iter().all(|a| done.contains(a) || !known.contains(a));
            let due = match row.state {
                State::Waiting => true,
                State::Resting(until) => now >= until,
                _ => false,
            };
            if free && due {
                row.state = State::Starting;
                actions.push(Action::Start(row.spec.service));
            }
        }
        actions
    }

    fn started(&mut self, service: Service, pid: i32, now: Millis) {
        if let Some(row) = self.0.iter_mut().find(|row| row.spec.service == service) {
            row.starts += 1;
            row.state = State::Running { pid, since: now, ready: false, heard: now, killed: false };
        }
    }

    fn heard(&mut self, from: i32, now: Millis, is_ready: bool) {
        for row in &mut self.0 {
            if let State::Running { pid, ready, heard, .. } = &mut row.state
                && *pid == from
            {
                *heard = now;
                *ready |= is_ready;
            }
        }
    }
}

impl Row {
    fn new(spec: &'static Spec) -> Row {
        let (state, pause) = (State::Waiting, FIRST_PAUSE);
        Row { spec, state, starts: 0, pause, deaths: Vec::new() }
    }

    fn pid(&self) -> Option<i32> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    fn done(&self) -> bool {
        match (self.spec.kind, self.state) {
            (Kind::Oneshot, state) => state == State::Ended,
            (Kind::Daemon, State::Running { ready, .. }) => ready,
            (Kind::Daemon, _) => false,
        }
    }

    fn watch(&mut self, now: Millis) -> Option<Action> {
        let promise = millis(self.spec.watchdog);
        match &mut self.state {
            State::Running { pid, heard, killed, .. }
                if promise > 0 && !*killed && now.saturating_sub(*heard) > promise =>
            {
                *killed = true;
                Some(Action::Kill(self.spec.service, *pid))
            }
            _ => None,
        }
    }

    fn ended(&mut self, now: Millis, death: Death) -> Option<Action> {
        let State::Running { since, killed, .. } = self.state else { return None };
        if death == Death::Done && self.spec.kind == Kind::Oneshot {
            self.state = State::Ended;
            return None;
        }
        if now.saturating_sub(since) >= millis(HEALTHY) {
            self.pause = FIRST_PAUSE;
        }
        let why = match death {
            _ if killed => BootReason::WatchdogHung,
            Death::OutOfMemory => BootReason::OutOfMemory,
            Death::Done | Death::Failed => BootReason::Fatal,
        };
        self.died(now, why)
    }

    fn died(&mut self, now: Millis, why: BootReason) -> Option<Action> {
        self.state = State::Resting(now + millis(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.deaths.retain(|(when, _)| now.saturating_sub(*when) < millis(DEATHS_WITHIN));
        self.deaths.push((now, why));
        let too_often = self.deaths.len() >= DEATHS && self.spec.class == Class::Lifeline;
        too_often.then(|| {
            let minutes = DEATHS_WITHIN.as_secs() / 60;
            let name = self.spec.service.name();
            Action::Reboot(why, format!("service {name} died {DEATHS} times in {minutes} minutes"))
        })
    }
}

/// Who is stopped together, in order: the apps' keeper first, because its apps need the others; the
/// keeper of logs last, because all others have something to say.
pub(crate) fn stop_stages(all: &[Spec]) -> Vec<(Vec<Service>, Duration)> {
    let of = |wanted: &dyn Fn(Service) -> bool| -> Vec<Service> {
        all.iter().rev().map(|spec| spec.service).filter(|s| wanted(*s)).collect()
    };
    vec![
        (of(&|s| s == Service::App), Duration::from_secs(30)),
        (of(&|s| !matches!(s, Service::App | Service::Log)), Duration::from_secs(10)),
        (of(&|s| s == Service::Log), Duration::from_secs(5)),
    ]
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};
    use model::services::{self, ALL, Image};

    use super::*;

    /// Runs a table in a world where every start works, and in which a service of this age (in
    /// milliseconds) ends as `fate` says. Prints what was to be done, until `until` or a reboot.
    #[track_caller]
    fn check(until: Millis, fate: fn(Service, Millis) -> Option<Death>, want: Expect) {
        let mut table = Table::new(services::of(Image::Node), |_| false);
        let mut running: Vec<(Service, i32, Millis)> = Vec::new();
        let mut out = String::new();
        for (round, now) in (0..=until).step_by(500).enumerate() {
            let mut events = vec![Event::Tick];
            running.retain(|(service, pid, since)| {
                let end = fate(*service, now - since);
                events.extend(end.map(|death| Event::Ended(*pid, death)));
                end.is_none()
            });
            for event in events {
                for action in table.step(now, &event) {
                    writeln!(out, "at {now}: {action:?}").unwrap();
                    if let Action::Start(service) = action {
                        let pid = i32::try_from(round * 100 + running.len()).unwrap() + 1;
                        running.push((service, pid, now));
                        table.step(now, &Event::Started(service, pid));
                    }
                    if matches!(action, Action::Reboot(..)) {
                        return want.assert_eq(&out);
                    }
                }
            }
        }
        want.assert_eq(&out);
    }

    #[test]
    fn what_waits_for_storage_starts_when_storage_is_done() {
        check(
            2000,
            |service, age| (service == Service::Storage && age >= 1000).then_some(Death::Done),
            expect![[r#"
                at 0: Start(Storage)
                at 1000: Start(App)
                at 1000: Start(Clock)
                at 1000: Start(Config)
                at 1000: Start(Content)
                at 1000: Start(Health)
                at 1000: Start(Log)
                at 1000: Start(Netinst)
                at 1000: Start(Network)
                at 1000: Start(Onboard)
                at 1000: Start(Volume)
            "#]],
        );
    }

    #[test]
    fn a_lifeline_that_keeps_dying_pauses_ever_longer_and_then_reboots_the_node() {
        check(
            60_000,
            |_, age| (age >= 500).then_some(Death::Failed),
            expect![[r#"
                at 0: Start(Storage)
                at 1500: Start(Storage)
                at 4000: Start(Storage)
                at 8500: Start(Storage)
                at 17000: Start(Storage)
                at 17500: Reboot(Fatal, "service storage died 5 times in 5 minutes")
            "#]],
        );
    }

    #[test]
    fn a_silent_service_is_killed_and_started_again() {
        // health promises a sign of life every 60 s; content every 120 s.
        let mut table = Table::new(services::of(Image::Node), |_| false);
        table.step(0, &Event::Tick);
        table.step(0, &Event::Started(Service::Storage, 1));
        table.step(0, &Event::Ended(1, Death::Done));
        table.step(0, &Event::Started(Service::Health, 2));
        table.step(0, &Event::Started(Service::Content, 3));
        assert_eq!(table.step(60_000, &Event::Tick), []);
        table.step(60_000, &Event::Alive(3));
        assert_eq!(table.step(60_001, &Event::Tick), [Action::Kill(Service::Health, 2)]);
        assert_eq!(table.step(60_500, &Event::Tick), [], "killed once");
        assert_eq!(table.step(61_000, &Event::Ended(2, Death::Failed)), []);
        assert_eq!(table.step(62_000, &Event::Tick), [Action::Start(Service::Health)]);
    }

    #[test]
    fn a_workload_is_restarted_for_ever() {
        let mut table = Table::new(services::of(Image::Node), |_| false);
        let mut now = 0;
        let mut longest = 0;
        for pid in 1..200 {
            table.step(now, &Event::Started(Service::Content, pid));
            table.step(now, &Event::Ended(pid, Death::Failed));
            let died = now;
            while !table.step(now, &Event::Tick).contains(&Action::Start(Service::Content)) {
                now += 500;
                // storage is never done in this world, so the pause is what `Resting` says
                table.0.iter_mut().for_each(|row| {
                    if row.spec.service == Service::Storage {
                        row.state = State::Ended;
                    }
                });
            }
            longest = longest.max(now - died);
        }
        assert_eq!(longest, 30_000);
    }

    #[test]
    fn only_the_debug_profile_starts_the_debug_service() {
        let with = Table::new(services::of(Image::Node), |path| path == "/etc/eve-debug");
        let without = Table::new(services::of(Image::Node), |_| false);
        assert_eq!(with.0.len(), without.0.len() + 1);
    }

    #[test]
    fn an_installer_starts_the_installation_and_nothing_else() {
        let mut table = Table::new(services::of(Image::Installer), |_| false);
        assert_eq!(table.step(0, &Event::Tick), [Action::Start(Service::Install)]);
    }

    #[test]
    fn apps_stop_first_and_the_log_last() {
        let stages = stop_stages(ALL);
        let names: Vec<Vec<&str>> =
            stages.iter().map(|(s, _)| s.iter().map(|s| s.name()).collect()).collect();
        assert_eq!(names[0], ["app"]);
        assert_eq!(names[2], ["log"]);
        assert_eq!(names.concat().len(), ALL.len());
    }
}
