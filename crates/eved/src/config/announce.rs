//! Hands our certificate for key exchange to the controller, so that it can seal secrets to us.
//!
//! Outside the conversation about the config: a controller that does not take it may still have
//! configs without secrets for us. Once a session, since the controller keeps it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::convert::attest::Request;
use device::config::CERTS_UPLOAD;
use model::{DeviceId, Diagnose, Diagnosis, Problem, Who, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::InForce;
use crate::chance::jitter;
use crate::exchange::Exchange;
use crate::link::{Link, well};

/// Tells until the controller took it; then waits to be aborted. What stands in the way is in
/// `trouble`.
pub(super) async fn tell(
    certs: PathBuf,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
    trouble: watch::Sender<Option<Problem>>,
) {
    let mut failures = 0;
    let mut reached = false;
    loop {
        match once(&certs, own, &link).await {
            Ok(()) => {
                tracing::info!("the controller has our certificate for secrets");
                trouble.send_replace(None);
                return std::future::pending().await;
            }
            Err(why) => {
                failures += 1;
                let wait = CERTS_UPLOAD.after(failures, jitter());
                tracing::warn!(
                    "the controller has no certificate to seal secrets to: {}",
                    why.text
                );
                let diagnosis = why.diagnosis.clone().retry_in(wait);
                trouble.send_replace(Some(Problem { diagnosis, ..why }));
                let again = Instant::now() + wait;
                loop {
                    tokio::select! {
                        () = sleep_until(again) => break,
                        changed = in_force.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            let now = in_force.borrow_and_update().reached;
                            // Who came to be reached just now may have been why.
                            if now && !std::mem::replace(&mut reached, now) {
                                break;
                            }
                            reached = now;
                        }
                    }
                }
            }
        }
    }
}

async fn once(certs: &Path, own: DeviceId, link: &Link) -> Result<(), Problem> {
    let now = host::clock::now();
    let ours = Exchange::read(certs, &link.certificate).map_err(|e| {
        let advice = "it is made anew when the service that onboards starts again";
        Problem::new(chain(&e), Diagnosis::of(Who::Nobody, advice), now)
    })?;
    let payload = Request::Certificates(vec![ours.to_tell()]).to_payload();
    let answer = link.post(own, "attest", &payload, api::limits::ATTEST).await;
    answer.and_then(|a| well("attest", a)).map(drop).map_err(|e| e.problem(now))
}
