//! What nodes call: `/api/v2/edgedevice/…` (EVE API v2).
//!
//! Every message is opened, its sender looked up by certificate and its signature checked before
//! anything is believed of it. Faults of our own are answered with 503, so that the node keeps what
//! it wants to say; a log file that we cannot read is kept and answered with 201, because any other
//! answer would block the node's queue.

use std::sync::Arc;

use api::convert::attest::{
    Admission, Answer as AttestAnswer, Purpose, Refusal as AttestRefusal, Request as AttestRequest,
};
use api::convert::config::Request as ConfigRequest;
use api::convert::view::Report;
use api::limits;
use api::onboarding::{Named, Registration};
use api::pb::proxy::ScepProxyRequest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use model::DeviceId;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::access::guard::address;
use crate::access::limits::seconds;
use crate::access::{NoRandomness, random, random_hex};
use crate::attest::NONCE_BYTES;
use crate::body;
use crate::db::{DbError, DeviceRow, Incoming, Laid, LogFile, Message as Kept, Shown};
use crate::fleet::{ConfigAnswer, Fleet, FleetError, Registered};
use crate::images::ImageError;
use crate::reports;
use crate::scep::{self, ScepError};

/// More bytes of a log file, a flow log or hardware health go to the object store: below this, a file
/// of its own costs more than it saves.
const ROW_MAX: usize = 4 << 10;
/// The same for info that is kept for those who look back; it comes often and is seldom large.
const PAST_MAX: usize = 64 << 10;

const PROTO: HeaderValue = HeaderValue::from_static("application/x-proto-binary");

pub(crate) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/ping", get(|| async { StatusCode::OK }))
        .route("/certs", get(certs).post(certs))
        .route("/register", post(register))
        .route("/uuid", post(uuid))
        .route("/id/{id}/config", post(config))
        .route("/id/{id}/attest", post(attest))
        .route("/id/{id}/info", post(info))
        .route("/id/{id}/metrics", post(metrics))
        .route("/id/{id}/newlogs", post(newlogs))
        .route("/id/{id}/apps/instanceid/{app}/newlogs", post(app_newlogs))
        .route("/id/{id}/flowlog", post(flowlog))
        .route("/id/{id}/hardwarehealth", post(hardware_health))
        .route("/id/{id}/proxy/scep", post(enrol))
}

/// Why a node does not get what it asks for.
#[derive(Debug)]
enum Refusal {
    /// The request is wrong.
    Node(StatusCode, String),
    /// We are.
    Own(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Node(status, why) => {
                tracing::info!(status = status.as_u16(), "refused a node: {why}");
                (status, why).into_response()
            }
            Refusal::Own(why) => {
                tracing::error!("cannot serve a node: {why}");
                (StatusCode::SERVICE_UNAVAILABLE, "try again later").into_response()
            }
        }
    }
}

impl From<DbError> for Refusal {
    fn from(e: DbError) -> Refusal {
        Refusal::Own(model::chain(&e))
    }
}

impl From<ImageError> for Refusal {
    fn from(e: ImageError) -> Refusal {
        Refusal::Own(model::chain(&e))
    }
}

impl From<FleetError> for Refusal {
    fn from(e: FleetError) -> Refusal {
        Refusal::Own(model::chain(&e))
    }
}

impl From<NoRandomness> for Refusal {
    fn from(e: NoRandomness) -> Refusal {
        Refusal::Own(model::chain(&e))
    }
}

impl From<api::KeyError> for Refusal {
    fn from(e: api::KeyError) -> Refusal {
        Refusal::Own(model::chain(&e))
    }
}

impl From<ScepError> for Refusal {
    fn from(e: ScepError) -> Refusal {
        let status = match &e {
            ScepError::Refused(_) => StatusCode::FORBIDDEN,
            ScepError::Unusable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ScepError::Upstream { .. } => StatusCode::BAD_GATEWAY,
        };
        refuse(status, model::chain(&e))
    }
}

fn refuse(status: StatusCode, why: impl ToString) -> Refusal {
    Refusal::Node(status, why.to_string())
}

fn unusable(e: &(dyn std::error::Error + 'static)) -> Refusal {
    refuse(StatusCode::UNPROCESSABLE_ENTITY, model::chain(e))
}

type Answer = Result<Response, Refusal>;

/// A message whose sender is a node of ours.
struct Message {
    id: Uuid,
    payload: Vec<u8>,
}

/// Opens an envelope.
async fn open(
    headers: &HeaderMap,
    body: Body,
    limit: model::Bytes,
) -> Result<api::envelope::Received, Refusal> {
    let bytes = body::read(headers, body, limit)
        .await
        .map_err(|status| refuse(status, "the body is too large or too slow"))?;
    api::envelope::open(&bytes, limit).map_err(|e| unusable(&e))
}

/// Opens an envelope and finds out which node sent it. A node that was deleted is told so.
async fn from_node(
    fleet: &Fleet,
    request: Request,
    limit: model::Bytes,
) -> Result<Message, Refusal> {
    let (head, body) = request.into_parts();
    let received = open(&head.headers, body, limit).await?;
    let unknown = |e: &dyn ToString| refuse(StatusCode::UNAUTHORIZED, e.to_string());
    let hash = received.sender().map_err(|e| unknown(&e))?;
    let sender = fleet.sender(&hash).await?;
    let signed = sender.as_ref().and_then(|s| s.signer.as_ref().map(|signer| (s.row.id, signer)));
    let (id, signer) = signed.ok_or_else(|| unknown(&"no device of ours has this certificate"))?;
    let payload = received.verify(signer).map_err(|e| unknown(&e))?.to_vec();
    if sender.as_ref().is_none_or(|s| s.row.gone.is_some()) {
        return Err(refuse(StatusCode::NOT_FOUND, "this device was deleted"));
    }
    let host = head.headers.get(header::HOST).and_then(|h| h.to_str().ok());
    fleet.seen(id, host);
    Ok(Message { id, payload })
}

/// Like [`from_node`], for a path that names the node.
async fn from_named(
    fleet: &Fleet,
    named: &str,
    request: Request,
    limit: model::Bytes,
) -> Result<Message, Refusal> {
    let message = from_node(fleet, request, limit).await?;
    if Uuid::parse_str(named) == Ok(message.id) {
        Ok(message)
    } else {
        Err(refuse(StatusCode::FORBIDDEN, "the path names another device than the signature"))
    }
}

fn proto(status: StatusCode, body: impl Into<Bytes>) -> Response {
    (status, [(header::CONTENT_TYPE, PROTO)], body.into()).into_response()
}

async fn certs(State(fleet): State<Arc<Fleet>>) -> Response {
    proto(StatusCode::OK, fleet.certs())
}

async fn register(State(fleet): State<Arc<Fleet>>, request: Request) -> Answer {
    if let Err(wait) = fleet.access.may_register(address(&request)) {
        // Not 429: nodes know 503 (EVE API), and come again later.
        let soon = [(header::RETRY_AFTER, seconds(wait).to_string())];
        return Ok(
            (StatusCode::SERVICE_UNAVAILABLE, soon, "too many registrations").into_response()
        );
    }
    let (head, body) = request.into_parts();
    let received = open(&head.headers, body, limits::ONBOARDING).await?;
    let certificate = received.sender_certificate().map_err(|e| unusable(&e))?;
    let onboard = fleet.onboarding(&certificate).ok_or_else(|| {
        refuse(StatusCode::FORBIDDEN, "nobody may register with this onboarding certificate")
    })?;
    let signer = api::Signer::device(&certificate).map_err(|e| unusable(&e))?;
    let payload = received.verify(&signer).map_err(|e| refuse(StatusCode::UNAUTHORIZED, e))?;
    let registration = Registration::from_payload(payload).map_err(|e| unusable(&e))?;
    // What cannot sign could never speak to us again.
    api::Signer::device(&registration.certificate).map_err(|e| unusable(&e))?;
    if fleet.onboarding(&registration.certificate).is_some() {
        return Err(refuse(StatusCode::FORBIDDEN, "the onboarding certificate is no device's"));
    }
    let serials =
        format!("serial {:?}, soft serial {:?}", registration.serial, registration.soft_serial);
    match fleet.register(registration, onboard).await? {
        Registered::New => {
            tracing::info!("registered a device: {serials}");
            Ok(proto(StatusCode::CREATED, Bytes::new()))
        }
        Registered::Already => Ok(proto(StatusCode::OK, Bytes::new())),
        Registered::Conflict => Err(refuse(
            StatusCode::CONFLICT,
            format!("{serials}: a device with another certificate has it"),
        )),
        Registered::Unknown => {
            Err(refuse(StatusCode::FORBIDDEN, format!("{serials}: nobody expects this device")))
        }
    }
}

async fn uuid(State(fleet): State<Arc<Fleet>>, request: Request) -> Answer {
    let message = match from_node(&fleet, request, limits::ONBOARDING).await {
        // It has to register again, and that starts with being unknown.
        Err(Refusal::Node(StatusCode::NOT_FOUND, why)) => {
            return Err(refuse(StatusCode::UNAUTHORIZED, why));
        }
        other => other?,
    };
    let named = Named {
        id: DeviceId::new(message.id),
        manufacturer: String::new(),
        product: String::new(),
    };
    Ok(proto(StatusCode::OK, fleet.sign(&named.to_payload())?))
}

async fn config(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let message = from_named(&fleet, &id, request, limits::ONBOARDING).await?;
    let asked = ConfigRequest::from_payload(&message.payload).map_err(|e| unusable(&e))?;
    match fleet.config(message.id, &asked.hash, &asked.integrity_token).await? {
        ConfigAnswer::Unchanged => Ok(StatusCode::NOT_MODIFIED.into_response()),
        ConfigAnswer::Changed(answer) => Ok(proto(StatusCode::OK, answer)),
        ConfigAnswer::Attest => Err(refuse(StatusCode::FORBIDDEN, "attest first")),
        ConfigAnswer::Quarantined(why) => {
            Err(refuse(StatusCode::FORBIDDEN, format!("this device is in quarantine: {why}")))
        }
    }
}

async fn attest(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let message = from_named(&fleet, &id, request, limits::ATTEST).await?;
    let asked = AttestRequest::from_payload(&message.payload).map_err(|e| unusable(&e))?;
    let id = message.id;
    let answer = match asked {
        AttestRequest::Certificates(certificates) => {
            let mut news = false;
            for c in certificates {
                // Keys of a TPM do not change, and what vouches for one never does: a node that
                // was taken over would say otherwise.
                let vouches =
                    matches!(c.purpose, Purpose::RestrictedSigning | Purpose::EndorsementRsa);
                let (kind, mutable) = (c.purpose.number(), c.mutable && !vouches);
                match fleet.db.keep_device_cert(id, kind, &c.hash, &c.pem, mutable).await? {
                    Shown::Before => {}
                    Shown::New => news = true,
                    Shown::Foreign => tracing::warn!(
                        device = %id,
                        kind,
                        "it shows another key than before; the first stays"
                    ),
                }
            }
            if news {
                // What is sealed to it is sealed again.
                fleet.note_device(&id.to_string(), "certificates shown", "device").await?;
            }
            AttestAnswer::Certificates
        }
        AttestRequest::Nonce => {
            let nonce: [u8; NONCE_BYTES] = random()?;
            fleet.db.put_nonce(id, &nonce, fleet.now()).await?;
            AttestAnswer::Nonce(nonce.to_vec())
        }
        AttestRequest::Quote(quote) => {
            let judged = fleet.judge(id, &quote).await?;
            AttestAnswer::Quote(match judged.refusal {
                None => {
                    let token = random_hex()?.into_bytes();
                    fleet.set_integrity_token(id, Some(&token)).await?;
                    // Keys go back only to a machine that a TPM vouched for and that nobody locked out.
                    let open = |d: &DeviceRow| d.quarantine.is_none();
                    let open = fleet.look(|known| known.device(id).is_some_and(open));
                    let give = judged.proven && open;
                    let keys = if give { fleet.db.escrow(id).await? } else { Vec::new() };
                    Ok(Admission { token, keys })
                }
                Some(refusal) => {
                    tracing::info!(device = %id, "refused a quote: {}", judged.summary);
                    // What it proved before is not what it runs now. A quote that comes twice says
                    // nothing: its nonce is used up.
                    let held = |d: &DeviceRow| d.token.is_some();
                    if refusal != AttestRefusal::NonceMismatch
                        && fleet.look(|known| known.device(id).is_some_and(held))
                    {
                        fleet.attest_again(id, "attestation").await?;
                    }
                    Err(refusal)
                }
            })
        }
        AttestRequest::StoreKeys(stored) => {
            // Only a node that proved a moment ago what it runs may say what it is sealed to.
            if fleet.holds_token(id, &stored.token).await? {
                fleet.db.put_escrow(id, &stored.keys, fleet.now()).await?;
                AttestAnswer::KeysKept
            } else {
                AttestAnswer::KeysRefused
            }
        }
    };
    Ok(proto(StatusCode::CREATED, fleet.sign(&answer.to_payload())?))
}

async fn info(State(fleet): State<Arc<Fleet>>, Path(id): Path<String>, request: Request) -> Answer {
    let message = from_named(&fleet, &id, request, limits::INFO).await?;
    let info = api::convert::view::info(&message.payload).map_err(|e| unusable(&e))?;
    if info.device.raw() != message.id {
        return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, "devId names another device"));
    }
    let received = fleet.now();
    let said = Bytes::from(message.payload);
    let past = match fleet.registry().images().lay(said.clone(), PAST_MAX).await? {
        Laid::Row(_) => None,
        Laid::Store(blob) => Some(blob),
    };
    let (report, payload) = (reports::message(&info, received, said, past), &info.report);
    fleet.ingest.keep(Incoming { device: message.id, received, message: report }).await?;
    if let Report::Device(said) = payload {
        fleet.hear_device(message.id, said).await?;
    }
    fleet.touch();
    Ok(StatusCode::CREATED.into_response())
}

async fn metrics(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let Message { id, payload } = from_named(&fleet, &id, request, limits::METRICS).await?;
    let metrics = api::convert::view::metrics(&payload).map_err(|e| unusable(&e))?;
    if metrics.device.raw() != id {
        return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, "devID names another device"));
    }
    let now = fleet.now();
    fleet.hear_apps(id, &metrics.apps).await?;
    let point = fleet.points.point(id, &metrics, now);
    let message = Kept::Metrics { payload: payload.into(), point };
    fleet.ingest.keep(Incoming { device: id, received: now, message }).await?;
    fleet.touch();
    Ok(StatusCode::CREATED.into_response())
}

async fn newlogs(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    keep_logs(&fleet, &id, Ok(String::new()), request).await
}

async fn app_newlogs(
    State(fleet): State<Arc<Fleet>>,
    Path((id, app)): Path<(String, String)>,
    request: Request,
) -> Answer {
    // A file that is refused comes again and again, and none behind it (EVE API, newlogs).
    let named = Uuid::parse_str(&app).map(|app| app.to_string());
    keep_logs(&fleet, &id, named.map_err(|_| "its path names no app"), request).await
}

/// `app` is empty for the log of the node itself; or why it cannot be said whose the file is.
async fn keep_logs(
    fleet: &Fleet,
    named: &str,
    app: Result<String, &str>,
    request: Request,
) -> Answer {
    let message = from_named(fleet, named, request, limits::NEWLOGS).await?;
    let Message { id, payload } = message;
    let digest = Sha256::digest(&payload).to_vec();
    let (app, refused) = match app {
        Ok(app) => (app, reports::read_logs(&payload).err()),
        Err(why) => (String::new(), Some(why.to_owned())),
    };
    if let Some(why) = &refused {
        tracing::warn!(device = %id, app, "a log file cannot be read: {why}");
    }
    let raw = fleet.registry().images().lay(payload.into(), ROW_MAX).await?;
    let message = Kept::Logs(LogFile { app, digest, refused, raw });
    fleet.ingest.keep(Incoming { device: id, received: fleet.now(), message }).await?;
    fleet.touch();
    Ok(StatusCode::CREATED.into_response())
}

async fn flowlog(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    keep_as_it_is(&fleet, &id, "flowlog", request).await
}

async fn hardware_health(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    keep_as_it_is(&fleet, &id, "hardwarehealth", request).await
}

async fn enrol(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let Message { id, payload } = from_named(&fleet, &id, request, limits::ATTEST).await?;
    let asked: ScepProxyRequest =
        api::wire::decode(&payload, limits::ATTEST).map_err(|e| unusable(&e))?;
    let server = {
        let known = fleet.known();
        if let Some(why) = known.device(id).and_then(|d| d.quarantine.as_deref()) {
            return Err(refuse(StatusCode::FORBIDDEN, format!("in quarantine: {why}")));
        }
        let told = fleet.compiled(&known, id);
        let told = told.ok_or_else(|| refuse(StatusCode::FORBIDDEN, "it has no config"))?;
        scep::enrolment(&told, &asked.scep_profile_name).cloned()?
    };
    let answer = scep::carry(&server, asked).await?;
    Ok(proto(StatusCode::OK, fleet.sign(&api::wire::encode(&answer))?))
}

/// Keeps a message as it came, for whoever asks.
async fn keep_as_it_is(fleet: &Fleet, named: &str, kind: &'static str, request: Request) -> Answer {
    let Message { id, payload } = from_named(fleet, named, request, limits::METRICS).await?;
    let message = Kept::Other(kind, fleet.registry().images().lay(payload.into(), ROW_MAX).await?);
    fleet.ingest.keep(Incoming { device: id, received: fleet.now(), message }).await?;
    Ok(StatusCode::CREATED.into_response())
}
