//! Load: many devices at once, and how long their requests take.
//!
//! Devices are dealt to workers; a worker sends one request after the other for its devices, over
//! connections of its own. In a closed loop as fast as the answers come; in an open one at given
//! times, and then a request counts as late from the time at which it should have gone out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::UnixMillis;
use serde::{Deserialize, Serialize};

use super::device::{Device, Polled};
use super::line::{Conf, Line, Way, is_good};

/// How often a new device tries to onboard, and how long it waits in between (EVE: from a second on).
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A poll that is answered 304.
    Poll,
    /// Metrics.
    Metrics,
}

/// How requests went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Microseconds of each that was answered as it should be.
    micros: Vec<u32>,
    /// Those that were not.
    pub failed: u64,
    /// What the first of them said.
    pub first_failure: Option<String>,
}

impl Tally {
    /// How many were answered as they should be.
    pub fn good(&self) -> usize {
        self.micros.len()
    }

    /// The time in which this share (0 to 1) of them was answered, in microseconds; 0 for none.
    pub fn quantile(&mut self, share: f64) -> u32 {
        self.micros.sort_unstable();
        let last = self.micros.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the length"
        )]
        let at = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
        self.micros.get(at).copied().unwrap_or_default()
    }

    fn add(&mut self, took: Duration, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)),
            Err(why) => {
                self.failed += 1;
                self.first_failure.get_or_insert(why);
            }
        }
    }

    fn join(&mut self, other: Tally) {
        self.micros.extend(other.micros);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// Devices and where they live.
#[derive(Debug)]
pub struct Fleet {
    confs: Vec<Arc<Conf>>,
    clock: fn() -> UnixMillis,
    devices: Vec<Device>,
}

impl Fleet {
    /// No devices yet. Workers go round the processes of the controller, at least one. `clock` is
    /// asked for the time of each request.
    pub fn new(confs: Vec<Arc<Conf>>, clock: fn() -> UnixMillis) -> Fleet {
        Fleet { confs, clock, devices: Vec::new() }
    }

    /// Each part with the process that its worker talks to.
    fn dealt(&self, devices: Vec<Device>, workers: usize) -> Vec<(Vec<Device>, Arc<Conf>)> {
        deal(devices, workers).into_iter().zip(self.confs.iter().cloned().cycle()).collect()
    }

    /// The devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The devices, to tell them what to do.
    pub fn devices_mut(&mut self) -> &mut [Device] {
        &mut self.devices
    }

    /// Adds devices from a seed and lets each onboard, get its config, and report once; as many at
    /// a time as there are workers. What it counts are whole devices.
    pub async fn enrol(&mut self, seed: u64, count: u32, workers: usize) -> Tally {
        let from = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let new = (from..from.saturating_add(count)).map(|index| Device::new(seed, index));
        self.on_each(new.collect(), workers, Act::Enrol).await
    }

    /// One [`Device::round`] of every device; how many went well.
    pub async fn round(&mut self, workers: usize) -> Tally {
        let devices = std::mem::take(&mut self.devices);
        self.on_each(devices, workers, Act::Round).await
    }

    async fn on_each(&mut self, devices: Vec<Device>, workers: usize, act: Act) -> Tally {
        let mut set = tokio::task::JoinSet::new();
        for (mut part, conf) in self.dealt(devices, workers) {
            let clock = self.clock;
            set.spawn(async move {
                let mut line = Line::new(conf, Way::Kept);
                let mut tally = Tally::default();
                for device in &mut part {
                    let begin = Instant::now();
                    let outcome = act.on(device, &mut line, clock).await;
                    tally.add(begin.elapsed(), outcome);
                }
                (part, tally)
            });
        }
        self.gather(set).await
    }

    async fn gather(&mut self, mut set: tokio::task::JoinSet<(Vec<Device>, Tally)>) -> Tally {
        let mut all = Tally::default();
        while let Some(done) = set.join_next().await {
            match done {
                Ok((part, tally)) => {
                    self.devices.extend(part);
                    all.join(tally);
                }
                Err(e) => all.add(Duration::ZERO, Err(format!("a worker ended: {e}"))),
            }
        }
        all
    }

    /// Requests of one kind as fast as the answers come, for so long.
    pub async fn hammer(&mut self, kind: Kind, way: Way, workers: usize, long: Duration) -> Tally {
        let end = Instant::now() + long;
        let mut set = tokio::task::JoinSet::new();
        let devices = std::mem::take(&mut self.devices);
        for (mut part, conf) in self.dealt(devices, workers) {
            let clock = self.clock;
            set.spawn(async move {
                let mut line = Line::new(conf, way);
                let mut tally = Tally::default();
                'all: while !part.is_empty() {
                    for device in &mut part {
                        let begin = Instant::now();
                        if begin >= end {
                            break 'all;
                        }
                        let outcome = request(device, &mut line, kind, clock()).await;
                        tally.add(begin.elapsed(), outcome);
                    }
                }
                (part, tally)
            });
        }
        self.gather(set).await
    }

    /// The first `count` devices each poll and send metrics once an interval, evenly spread, for so
    /// long. Every other worker keeps its connection.
    pub async fn steady(
        &mut self,
        count: usize,
        interval: Duration,
        workers: usize,
        long: Duration,
    ) -> Tally {
        let mut active = std::mem::take(&mut self.devices);
        self.devices = active.split_off(count.min(active.len()));
        let begin = tokio::time::Instant::now();
        let processes = self.confs.len().max(1);
        let mut set = tokio::task::JoinSet::new();
        for (n, (mut part, conf)) in self.dealt(active, workers).into_iter().enumerate() {
            let clock = self.clock;
            let way = if (n / processes).is_multiple_of(2) { Way::Close } else { Way::Kept };
            set.spawn(async move {
                let mut line = Line::new(conf, way);
                let mut tally = Tally::default();
                let slots = u32::try_from(part.len() * 2).unwrap_or(u32::MAX).max(1);
                let slot = interval / slots;
                // Workers begin one after the other within a slot.
                let phase = slot.mul_f64(share(n, workers));
                for (turn, k) in (0u32..).zip((0..part.len()).cycle()) {
                    for (half, kind) in [(0, Kind::Poll), (1, Kind::Metrics)] {
                        let due =
                            begin + phase + slot * turn.saturating_mul(2).saturating_add(half);
                        if due.duration_since(begin) >= long {
                            return (part, tally);
                        }
                        tokio::time::sleep_until(due).await;
                        let Some(device) = part.get_mut(k) else { continue };
                        let outcome = request(device, &mut line, kind, clock()).await;
                        tally.add(due.elapsed(), outcome);
                    }
                }
                (part, tally)
            });
        }
        self.gather(set).await
    }
}

/// What is done with every device once.
#[derive(Debug, Clone, Copy)]
enum Act {
    Enrol,
    Round,
}

impl Act {
    async fn on(
        self,
        device: &mut Device,
        line: &mut Line,
        clock: fn() -> UnixMillis,
    ) -> Result<(), String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match device.round(line, clock()).await {
                Ok(Polled::Applied | Polled::Unchanged) => break,
                // A process that has not heard of the approval yet: devices try again.
                Ok(Polled::Refused(401)) if device.id().is_none() && tries < TRIES => {
                    tokio::time::sleep(AGAIN).await;
                }
                Ok(other) => return Err(format!("the poll: {other:?}")),
                Err(e) => return Err(format!("{e:#}")),
            }
        }
        match self {
            Act::Round => Ok(()),
            Act::Enrol => request(device, line, Kind::Metrics, clock()).await,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of workers")]
fn share(n: usize, of: usize) -> f64 {
    n as f64 / of.max(1) as f64
}

async fn request(
    device: &mut Device,
    line: &mut Line,
    kind: Kind,
    now: UnixMillis,
) -> Result<(), String> {
    match kind {
        Kind::Poll => match device.poll(line, now).await {
            Ok(Polled::Unchanged | Polled::Applied) => Ok(()),
            Ok(other) => Err(format!("poll: {other:?}")),
            Err(e) => Err(format!("poll: {e:#}")),
        },
        Kind::Metrics => match device.send_metrics(line, now).await {
            Ok(status) if is_good(status) => Ok(()),
            Ok(status) => Err(format!("metrics: {status}")),
            Err(e) => Err(format!("metrics: {e:#}")),
        },
    }
}

/// Deals devices to at most so many workers, in order.
fn deal(mut devices: Vec<Device>, workers: usize) -> Vec<Vec<Device>> {
    let each = devices.len().div_ceil(workers.max(1)).max(1);
    let mut parts = Vec::new();
    while !devices.is_empty() {
        let rest = devices.split_off(each.min(devices.len()));
        parts.push(std::mem::replace(&mut devices, rest));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_dealt_once() {
        for (devices, workers, parts) in [(10, 3, 3), (2, 8, 2), (0, 4, 0)] {
            let dealt = deal((0..devices).map(|n| Device::new(1, n)).collect(), workers);
            assert_eq!(dealt.len(), parts);
            assert_eq!(dealt.concat_len(), devices as usize);
        }
    }

    trait ConcatLen {
        fn concat_len(&self) -> usize;
    }
    impl ConcatLen for Vec<Vec<Device>> {
        fn concat_len(&self) -> usize {
            self.iter().map(Vec::len).sum()
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut tally = Tally::default();
        for micros in (1..=100).rev() {
            tally.add(Duration::from_micros(micros), Ok(()));
        }
        tally.add(Duration::ZERO, Err("no".into()));
        assert_eq!((tally.quantile(0.0), tally.quantile(1.0)), (1, 100));
        assert!((49..=51).contains(&tally.quantile(0.5)));
        assert_eq!((tally.good(), tally.failed), (100, 1));
    }
}
