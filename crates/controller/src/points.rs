//! When it is time for another point of a node's charts: metrics come more often than charts need.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::convert::view::Metrics;
use model::UnixMillis;
use uuid::Uuid;

use crate::db::Point;

const EVERY: Duration = Duration::from_secs(300);
/// Of a node that somebody looks at.
const EVERY_WATCHED: Duration = Duration::from_secs(60);
/// So long after the last look.
const WATCHED: Duration = Duration::from_secs(900);

/// When each node got its last point, and when somebody last looked at it. Two processes that do not
/// know of each other keep some points more, nothing worse.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<HashMap<Uuid, Marks>>);

#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    point: Option<UnixMillis>,
    look: Option<UnixMillis>,
}

impl Pace {
    /// Notes that somebody looks at a node's charts.
    pub(crate) fn look(&self, id: Uuid, now: UnixMillis) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().look =
            Some(now);
    }

    /// The point to keep of these metrics, if it is time for one.
    pub(crate) fn point(&self, id: Uuid, said: &Metrics, now: UnixMillis) -> Option<Point> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = all.entry(id).or_default();
        let watched = marks.look.is_some_and(|at| now.since(at) < WATCHED);
        let every = if watched { EVERY_WATCHED } else { EVERY };
        // A last one in the future is of a clock that was set back since.
        if marks.point.is_some_and(|at| at <= now && now.since(at) < every) {
            return None;
        }
        marks.point = Some(now);
        let total = said.memory_used.0.saturating_add(said.memory_available.0);
        Some(Point {
            at: now,
            cpu_ns: said.cpu_ns,
            cpus: 0,
            memory_used: said.memory_used.0,
            memory_total: total,
            disk_used: said.disk_used.0,
            disk_total: said.disk_total.0,
            received: said.received.0,
            sent: said.sent.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Metrics {
        Metrics {
            device: model::DeviceId::new(Uuid::nil()),
            at: None,
            memory_used: model::Bytes(1),
            memory_available: model::Bytes(2),
            cpu_ns: 3,
            disk_used: model::Bytes(4),
            disk_total: model::Bytes(5),
            received: model::Bytes(6),
            sent: model::Bytes(7),
            services: Vec::new(),
            apps: Vec::new(),
            disks: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            instances: Vec::new(),
            config_received: None,
            config_processed: None,
            cipher_failures: 0,
            timeline: Vec::new(),
            dropped_lines: 0,
        }
    }

    #[test]
    fn points_come_closer_while_somebody_looks_and_go_on_after_a_clock_was_set_back() {
        let pace = Pace::default();
        let id = Uuid::nil();
        let at = |s: u64| UnixMillis(1_000_000_000 + s * 1000);
        let first = pace.point(id, &said(), at(0)).unwrap();
        assert_eq!((first.memory_used, first.memory_total, first.disk_total), (1, 3, 5));
        assert_eq!(pace.point(id, &said(), at(61)), None);
        pace.look(id, at(62));
        assert!(pace.point(id, &said(), at(63)).is_some());
        assert_eq!(pace.point(id, &said(), at(100)), None);
        assert!(pace.point(id, &said(), at(123)).is_some());
        assert!(pace.point(id, &said(), at(50)).is_some());
        assert_eq!(pace.point(id, &said(), at(100)), None);
    }
}
