//! What rules find wrong.

use std::collections::HashMap;
use std::time::Duration;

use api::Certificate;
use model::UnixMillis;
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use super::own::Own;
use super::{RuleSpec, When};
use crate::db::{DbError, DeviceRow};
use crate::drift::said::{Said, words};
use crate::fleet::Fleet;
use crate::objects::{Kind, Query};
use crate::rollout::calendar::labels;
use crate::rollout::{Rollout, drive};
use crate::words::time;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A rollout that rolled itself back is spoken of for so long.
const OVER: Duration = DAY;
/// A figure that is older says nothing of a disk.
const FIGURE_MAX: Duration = DAY;

/// Something that is wrong, by a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) rule: String,
    pub(super) subject: String,
    pub(super) text: String,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) own: Own,
    /// Ends of devices' certificates, by device and the digest of the certificate.
    ends: HashMap<Uuid, (Vec<u8>, Option<UnixMillis>)>,
}

/// Looks at everything that a rule is about. `listener`: the certificate that this controller shows.
pub(super) async fn look(
    fleet: &Fleet,
    (rule, spec): (&str, &RuleSpec),
    query: &Query,
    listener: Option<&CertificateDer<'_>>,
    memory: &mut Memory,
) -> Result<Vec<Found>, DbError> {
    let found = |subject: String, text: String| Found { rule: rule.to_owned(), subject, text };
    let mut all = Vec::new();
    let now = fleet.now();
    match spec.when {
        When::RolloutStopped => {
            for row in fleet.db.rollouts(false).await? {
                let Ok(record) = drive::record(fleet, &row.name).await else { continue };
                let shown = record.shown(false);
                if let Some(text) = stopped(&shown, now) {
                    all.push(found(format!("Rollout {}", row.name), text));
                }
            }
            return Ok(all);
        }
        When::ControllerTrouble => {
            let troubles = memory.own.troubles(spec.minutes, now);
            all.extend(troubles.into_iter().map(|(subject, text)| found(subject.into(), text)));
            return Ok(all);
        }
        When::CertificateEnds => {
            for (what, end) in own_ends(fleet, listener) {
                all.extend(ending(end, spec.days, now).map(|t| found(what.to_owned(), t)));
            }
        }
        _ => {}
    }
    let long_ago = |at: UnixMillis| now.since(at).as_secs() >= spec.minutes.saturating_mul(60);
    let known = fleet.known();
    for stored in known.of_kind(Kind::Device).filter(|s| query.fits(&labels(&known, s))) {
        let id = stored.object.uid;
        let text = match spec.when {
            When::Silent => {
                let at = fleet.last_seen(id).filter(|at| long_ago(*at));
                at.map(|at| format!("not heard of since {}", time(at)))
            }
            When::Trouble => {
                let said = Said::read(&fleet.db.infos(id).await?);
                let troubles = said.troubles();
                let first = troubles.iter().find(|t| long_ago(t.since));
                first.map(|t| format!("{}: {} since {}", t.subject, t.text, time(t.since)))
            }
            When::UpdateFailed => went_back(&Said::read(&fleet.db.infos(id).await?)),
            When::DiskFull => {
                let since = UnixMillis(now.0.saturating_sub(millis(FIGURE_MAX)));
                let figures = fleet.db.disk(id, since).await?;
                figures.and_then(|figures| full(figures, spec.percent))
            }
            When::AttestationFailed => {
                let bad = fleet.db.verdict(id).await?.filter(|v| !v.good);
                bad.map(|v| format!("its quote of {} was not good", time(v.at)))
            }
            When::CertificateEnds => {
                // So many certificates take their time the first time.
                tokio::task::yield_now().await;
                let end = known.device(id).and_then(|row| memory.end_of(row));
                end.and_then(|end| ending(end, spec.days, now))
            }
            When::RolloutStopped | When::ControllerTrouble => None,
        };
        all.extend(text.map(|text| found(stored.object.key.to_string(), text)));
    }
    Ok(all)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Memory {
    fn end_of(&mut self, row: &DeviceRow) -> Option<UnixMillis> {
        let (pem, hash) = (row.cert_pem.as_deref()?, row.cert_hash.as_deref()?);
        if let Some((had, end)) = self.ends.get(&row.id)
            && had == hash
        {
            return *end;
        }
        let end = Certificate::from_pem(pem).and_then(|c| c.ends()).ok();
        self.ends.insert(row.id, (hash.to_vec(), end));
        end
    }
}

/// Ends of the controller's own certificates.
fn own_ends(
    fleet: &Fleet,
    listener: Option<&CertificateDer<'_>>,
) -> Vec<(&'static str, UnixMillis)> {
    let pki = &fleet.pki;
    let own = [
        ("Controller root certificate", &pki.root.cert_pem),
        ("Controller signing certificate", &pki.signing.cert_pem),
        ("Controller key exchange certificate", &pki.ecdh.cert_pem),
        ("Controller onboarding certificate", &pki.onboard.cert_pem),
    ];
    let between = pki.intermediates.iter().map(|pem| ("Controller intermediate certificate", pem));
    let read = |pem: &String| Certificate::from_pem(pem.as_bytes()).ok();
    let all = own.into_iter().chain(between).filter_map(|(what, pem)| Some((what, read(pem)?)));
    let listener = listener.map(|der| ("Controller TLS certificate", api::end_of(der)));
    all.map(|(what, certificate)| (what, certificate.ends()))
        .chain(listener)
        .filter_map(|(what, end)| Some((what, end.ok()?)))
        .collect()
}

fn ending(end: UnixMillis, days: u32, now: UnixMillis) -> Option<String> {
    if now >= end {
        return Some(format!("its certificate ended at {}", time(end)));
    }
    let left = end.since(now);
    (left <= DAY * days).then(|| {
        let left = left.as_secs() / DAY.as_secs();
        format!("its certificate ends at {}, in {left} days", time(end))
    })
}

fn full((used, total): (u64, u64), percent: u8) -> Option<String> {
    let share = used.saturating_mul(100).checked_div(total)?;
    (share >= percent.into()).then(|| {
        let (used, total) = (model::Bytes(used), model::Bytes(total));
        format!("/persist is full to {share} %: {used} of {total}")
    })
}

/// Whether a node went back to the base system it had: in words.
fn went_back(said: &Said) -> Option<String> {
    let device = &said.device.as_ref()?.what;
    let failed = device.software.iter().find(|s| !s.active && s.stage == "failed")?;
    let why = match (&failed.error, failed.detail.as_str()) {
        (Some(error), _) => words(error),
        (None, "") => "it does not say why".to_owned(),
        (None, detail) => detail.to_owned(),
    };
    let back = if device.version.is_empty() { "the one before" } else { &device.version };
    Some(format!("the update to {} failed, it runs {back}: {why}", failed.version))
}

/// Whether a rollout does not go on and no person decided that: in words.
fn stopped(rollout: &Rollout, now: UnixMillis) -> Option<String> {
    let by_person = rollout.why.starts_with("by ");
    match rollout.phase.as_str() {
        "stopped" if !rollout.why.starts_with("aborted by ") => Some(rollout.why.clone()),
        "paused" if !by_person => Some(format!("paused: {}", rollout.why)),
        "rolled back" if !by_person && now.since(rollout.looked) < OVER => {
            Some(format!("rolled back: {}", rollout.why))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use api::convert::view::{DeviceView, SoftwareView};

    use super::*;
    use crate::drift::said::Heard;

    #[test]
    fn a_certificate_is_spoken_of_before_its_end_and_after() {
        let day = |n: u64| UnixMillis(n * 24 * 3600 * 1000);
        assert_eq!(ending(day(100), 30, day(69)), None);
        let soon = ending(day(100), 30, day(70)).unwrap();
        assert!(soon.ends_with("in 30 days"), "{soon}");
        assert!(ending(day(100), 30, day(100)).unwrap().contains("ended at"));
    }

    #[test]
    fn a_disk_without_a_size_is_not_full() {
        assert_eq!(full((5, 0), 90), None);
        assert_eq!(full((89, 100), 90), None);
        assert!(full((90, 100), 90).unwrap().contains("full to 90 %"));
    }

    #[test]
    fn who_went_back_says_from_what() {
        let slot = |active, stage: &str, version: &str| SoftwareView {
            active,
            stage: stage.into(),
            version: version.into(),
            detail: "no contact with the controller".into(),
            ..SoftwareView::default()
        };
        let said = |software| Said {
            device: Some(Heard {
                at: UnixMillis(1),
                what: Box::new(DeviceView {
                    version: "1.0".into(),
                    software,
                    ..DeviceView::default()
                }),
            }),
            ..Said::default()
        };
        let text =
            went_back(&said(vec![slot(true, "updated", "1.0"), slot(false, "failed", "2.0")]));
        let want = "the update to 2.0 failed, it runs 1.0: no contact with the controller";
        assert_eq!(text.as_deref(), Some(want));
        assert_eq!(went_back(&said(vec![slot(true, "failed", "1.0")])), None);
    }
}
