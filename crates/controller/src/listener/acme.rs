//! Certificates of an ACME server (RFC 8555), for public names: asked for when there is none, and
//! again after two thirds of its life. The server checks by TLS-ALPN (RFC 8737): it calls the name
//! at port 443, so that must lead here.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::HeaderValue;
use hyper::{Request, header};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    HttpClient, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use model::UnixMillis;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::{Given, Shown, Source, note_shown};
use crate::outbound::{self, Address, OutboundError};
use crate::pki::{PkiError, make_private, save_secret};
use crate::start::Clock;
use crate::words::time;

/// The server that most people mean.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

const FOLDER: &str = "tls";
const ACCOUNT_FILE: &str = "acme-account.json";
const CERTIFICATE_FILE: &str = "acme.json";
/// For one question to the server.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_MAX: usize = 1 << 20;
/// For its checks of a name, and for the certificate.
const CHECKS: Duration = Duration::from_secs(120);
/// How often dates are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// After a failure it is asked again after so long, twice as long each time …
const AGAIN_MIN: Duration = Duration::from_secs(120);
/// … up to this: servers count failures.
const AGAIN_MAX: Duration = Duration::from_secs(12 * 3600);

/// Whom to ask for certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// Its directory: an https URL.
    pub directory: String,
    /// Where it may write to when something is wrong: a mail address.
    pub contact: Option<String>,
    /// Certificates that vouch for it beside the system's, PEM.
    pub roots_pem: Vec<u8>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// None of the controller's names is known outside.
    #[error("no --name is a public host name, and an ACME server knows no others")]
    Names,
    /// The directory is no address.
    #[error("{0:?} is no ACME directory; write https://HOST/PATH")]
    Directory(String),
    /// The certificates to trust are of no use.
    #[error("--acme-ca: {0}")]
    Trust(String),
    /// What was said cannot be used.
    #[error("the ACME server gives none: {0}")]
    Server(String),
    /// A name is not ours, as the server sees it.
    #[error("the ACME server does not believe that we are {0}: does port 443 of it lead here?")]
    Refused(String),
    /// No way to prove a name that we know.
    #[error("the ACME server does not check {0} by TLS-ALPN")]
    Challenge(String),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// A certificate cannot be used.
    #[error("cannot use the certificate of the ACME server: {0}")]
    Certificate(String),
    /// A file could not be kept.
    #[error(transparent)]
    Keep(#[from] PkiError),
}

impl From<instant_acme::Error> for AcmeError {
    fn from(e: instant_acme::Error) -> AcmeError {
        AcmeError::Server(once(&e))
    }
}

/// What an error and its causes say: some say what their cause says, too.
fn once(e: &(dyn std::error::Error + 'static)) -> String {
    let mut said = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let text = e.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = e.source();
    }
    said
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Acme {
    settings: AcmeSettings,
    names: Vec<String>,
    dir: PathBuf,
    tls: Arc<rustls::ClientConfig>,
}

/// An account, and where it is one.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

/// A certificate with all that belongs to it, in one file: it is there whole or not at all.
#[derive(Serialize, Deserialize)]
struct Certificate {
    directory: String,
    names: Vec<String>,
    /// As the certificate says, not our clock: one that ran ahead would put its renewal off.
    from: UnixMillis,
    until: UnixMillis,
    chain_pem: String,
    key_pem: String,
}

impl Certificate {
    /// When a new one is to be asked for.
    fn renewal(&self) -> UnixMillis {
        self.from.after(self.until.since(self.from) / 3 * 2)
    }

    fn given(&self) -> Result<Given, AcmeError> {
        let wrong = |e: rustls_pki_types::pem::Error| AcmeError::Certificate(e.to_string());
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(wrong)?))
    }
}

/// Names that are known outside of a network: no addresses, and more than one label.
fn public(names: &[String]) -> Vec<String> {
    let public = |name: &&String| name.parse::<IpAddr>().is_err() && name.contains('.');
    names.iter().filter(public).cloned().collect()
}

impl Acme {
    /// For those of `names` that are public; keeps what it gets under `data`.
    pub(crate) fn new(
        settings: AcmeSettings,
        names: &[String],
        data: &std::path::Path,
    ) -> Result<Acme, AcmeError> {
        let names = public(names);
        if names.is_empty() {
            return Err(AcmeError::Names);
        }
        if !Address::parse(&settings.directory).is_some_and(|a| a.tls) {
            return Err(AcmeError::Directory(settings.directory));
        }
        let tls = outbound::trusting(&settings.roots_pem, true)
            .map_err(|e| AcmeError::Trust(e.to_string()))?;
        Ok(Acme { settings, names, dir: data.join(FOLDER), tls })
    }

    /// Shows the certificate that there is, and asks for one in time; ends never.
    pub(super) async fn keep(&self, shown: &Shown, source: &Source, clock: Clock) {
        let mut have = self.kept(clock());
        if let Some(kept) = &have {
            self.show(shown, source, kept);
        }
        let mut again = AGAIN_MIN;
        loop {
            if have.as_ref().is_none_or(|kept| kept.renewal() <= clock()) {
                let got = self.order(shown).await;
                shown.prove_no_more();
                match got {
                    Ok(new) => {
                        let until = time(new.until);
                        tracing::info!(
                            "the ACME server gave a certificate for {}, until {until}",
                            self.names.join(", ")
                        );
                        self.show(shown, source, &new);
                        have = Some(new);
                        again = AGAIN_MIN;
                    }
                    Err(e) => {
                        let minutes = again.as_secs() / 60;
                        tracing::warn!(
                            "there is no new certificate: {}; next try in {minutes} minutes",
                            model::chain(&e)
                        );
                        tokio::time::sleep(again).await;
                        again = again.saturating_mul(2).min(AGAIN_MAX);
                        continue;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn show(&self, shown: &Shown, source: &Source, new: &Certificate) {
        let given = new.given();
        let done = given.and_then(|given| {
            let shown = shown.show_to(&self.names, given);
            shown.map_err(|e| AcmeError::Certificate(e.to_string()))
        });
        let done = done.and_then(|()| Ok(note_shown(shown, source)?));
        if let Err(e) = done {
            tracing::error!("{}", model::chain(&e));
        }
    }

    /// The certificate of the last run, if it is for what we want today.
    fn kept(&self, now: UnixMillis) -> Option<Certificate> {
        let bytes = std::fs::read(self.dir.join(CERTIFICATE_FILE)).ok()?;
        let kept: Certificate = serde_json::from_slice(&bytes).ok()?;
        let fits = kept.directory == self.settings.directory && kept.names == self.names;
        (fits && kept.until > now && kept.given().is_ok()).then_some(kept)
    }

    async fn account(&self) -> Result<Account, AcmeError> {
        let directory = &self.settings.directory;
        let builder = || Account::builder_with_http(Box::new(Way { tls: self.tls.clone() }));
        let bytes = std::fs::read(self.dir.join(ACCOUNT_FILE)).unwrap_or_default();
        let kept = serde_json::from_slice::<Kept>(&bytes).ok();
        if let Some(kept) = kept.filter(|k| k.directory == *directory) {
            return Ok(builder().from_credentials(kept.credentials).await?);
        }
        let contact = self.settings.contact.as_ref().map(|mail| format!("mailto:{mail}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let new = NewAccount {
            contact: &contact,
            // Whoever asks for certificates by `--acme` was told so.
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = builder().create(&new, directory.clone(), None).await?;
        let kept = Kept { directory: directory.clone(), credentials };
        self.save(ACCOUNT_FILE, &kept)?;
        Ok(account)
    }

    fn save(&self, name: &str, value: &impl Serialize) -> Result<(), AcmeError> {
        make_private(&self.dir)?;
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        Ok(save_secret(&self.dir, name, &bytes)?)
    }

    async fn order(&self, shown: &Shown) -> Result<Certificate, AcmeError> {
        let account = self.account().await?;
        let names: Vec<_> = self.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut next = next?;
            let name = next.identifier().to_string();
            match next.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(AcmeError::Refused(name)),
            }
            let challenge = next.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or_else(|| AcmeError::Challenge(name.clone()))?;
            let digest = challenge.key_authorization().digest();
            let proof = proof(&name, digest.as_ref())?;
            shown.prove(&name, proof).map_err(|e| AcmeError::Certificate(e.to_string()))?;
            challenge.set_ready().await?;
        }
        let patience = RetryPolicy::default().timeout(CHECKS);
        if order.poll_ready(&patience).await? != OrderStatus::Ready {
            return Err(AcmeError::Refused(self.names.join(", ")));
        }
        let key_pem = order.finalize().await?;
        let chain_pem = order.poll_certificate(&patience).await?;
        let wrong = |e: &dyn ToString| AcmeError::Certificate(e.to_string());
        let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|e| wrong(&e))?;
        let from = api::begin_of(&leaf).map_err(|e| wrong(&e))?;
        let until = api::end_of(&leaf).map_err(|e| wrong(&e))?;
        let new = Certificate {
            directory: self.settings.directory.clone(),
            names: self.names.clone(),
            from,
            until,
            chain_pem,
            key_pem,
        };
        self.save(CERTIFICATE_FILE, &new)?;
        Ok(new)
    }
}

/// What is shown to a server that checks a name (RFC 8737, section 3).
fn proof(name: &str, digest: &[u8]) -> Result<Given, AcmeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    Ok((vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

/// How the ACME client asks.
struct Way {
    tls: Arc<rustls::ClientConfig>,
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>>;

impl HttpClient for Way {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let tls = self.tls.clone();
        Box::pin(async move {
            let other = |e: OutboundError| {
                let mut text = once(&e);
                if e.distrusts() {
                    text +=
                        " (if its certificate is one of its own, name that with --acme-ca FILE)";
                }
                instant_acme::Error::Other(Box::new(io::Error::other(text)))
            };
            let (mut head, body) = request.into_parts();
            let address = Address::parse(&head.uri.to_string()).filter(|a| a.tls);
            let address = address
                .ok_or(instant_acme::Error::Str("the server names an address without TLS"))?;
            let body = body.collect().await.map_err(|e| instant_acme::Error::Other(e.into()))?;
            let host = HeaderValue::from_str(&address.authority);
            let path = address.path.parse();
            let (Ok(host), Ok(path)) = (host, path) else {
                return Err(instant_acme::Error::Str("the server names an address that is none"));
            };
            head.uri = path;
            head.headers.insert(header::HOST, host);
            let request = Request::from_parts(head, Full::new(body.to_bytes()));
            let answer = outbound::ask(&address, tls, request, PATIENCE, ANSWER_MAX).await;
            let answer = answer.map_err(other)?;
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_others_know_are_asked_for() {
        let names = ["localhost", "10.0.2.2", "::1", "eve.example.org", "box"].map(str::to_owned);
        assert_eq!(public(&names), ["eve.example.org"]);
    }

    #[test]
    fn what_a_cause_says_as_well_is_said_once() {
        let refused = || io::Error::other("it cannot be reached: no route");
        let e = AcmeError::from(instant_acme::Error::Other(Box::new(refused())));
        let said = model::chain(&e);
        assert_eq!(said.matches("no route").count(), 1, "{said}");
        let e = OutboundError::Reach(Box::new(refused()));
        assert_eq!(once(&e), "it cannot be reached: it cannot be reached: no route");
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let certificate = |from, until| Certificate {
            directory: String::new(),
            names: Vec::new(),
            from: UnixMillis(from),
            until: UnixMillis(until),
            chain_pem: String::new(),
            key_pem: String::new(),
        };
        assert_eq!(certificate(1000, 91_000).renewal(), UnixMillis(61_000));
        assert_eq!(certificate(1000, 0).renewal(), UnixMillis(1000), "it never held");
    }
}
