//! Log-in by an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636).
//!
//! The provider says who somebody is (`iss` and `sub`), and by one claim which role they have here.
//! Its keys come from its discovery document; ID tokens are signed with ES256 or RS256. What goes
//! out is bounded in time, what comes back in size.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header};
use model::UnixMillis;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Role;
use crate::client::escaped;
use crate::outbound::{self, Address};

/// For one question to the provider.
const PATIENCE: Duration = Duration::from_secs(15);
/// Documents of providers are a few KiB.
const DOCUMENT_MAX: usize = 1 << 20;
/// What the provider says of itself is believed for so long.
const FRESH: Duration = Duration::from_secs(3600);
/// A key that is not known is asked for this often at most.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Clocks differ.
const SKEW_SECONDS: u64 = 120;

/// What is known of a provider beforehand.
#[derive(Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// Its issuer URL: https, or http on this machine itself.
    pub issuer: String,
    /// Who we are there.
    pub client_id: String,
    /// And our secret; `None`: a public client.
    pub client_secret: Option<String>,
    /// The claim that says a person's role: a text or a list of texts.
    pub role_claim: String,
    /// The role that each value of it means; values that are a role's own name need no entry.
    pub roles: BTreeMap<String, Role>,
    /// Certificates that vouch for the provider: PEM.
    pub roots_pem: Vec<u8>,
}

/// Without the secret.
impl std::fmt::Debug for OidcSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcSettings").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Why somebody was not logged in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The settings make no sense.
    #[error("{field}: {why}")]
    Settings {
        /// Which option.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The provider does not answer.
    #[error("the provider at {url} cannot be asked: {why}")]
    Ask {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// It answers with an error.
    #[error("the provider refuses: {0}")]
    Refused(String),
    /// Its token cannot be believed.
    #[error("the provider's ID token is not good: {0}")]
    Token(String),
    /// The person has no role here.
    #[error("the claim {claim} of {who} names no role of this controller")]
    NoRole {
        /// Which claim.
        claim: String,
        /// Whose.
        who: String,
    },
}

#[derive(Debug, Clone, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default, rename = "use")]
    purpose: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

#[derive(Debug, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Debug, Clone)]
struct Provider {
    discovery: Discovery,
    keys: Vec<Jwk>,
    asked: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    id_token: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Who a provider says somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// What to call them: `preferred_username`, else `email`, else the subject.
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// The way to one provider.
#[derive(Debug)]
pub(crate) struct Oidc {
    settings: OidcSettings,
    tls: Arc<rustls::ClientConfig>,
    known: Mutex<Option<Provider>>,
}

impl Oidc {
    pub(crate) fn new(settings: OidcSettings) -> Result<Oidc, OidcError> {
        let wrong = |field, why: &dyn ToString| OidcError::Settings { field, why: why.to_string() };
        let _ = address_of(&settings.issuer)
            .ok_or_else(|| wrong("--oidc-issuer", &"this is no https:// URL"))?;
        if settings.client_id.is_empty() || settings.role_claim.is_empty() {
            return Err(wrong("--oidc-client-id, --oidc-role-claim", &"they must not be empty"));
        }
        let own = !settings.roots_pem.is_empty();
        let tls =
            outbound::trusting(&settings.roots_pem, !own).map_err(|e| wrong("--oidc-ca", &e))?;
        Ok(Oidc { settings, tls, known: Mutex::default() })
    }

    /// Where to send a browser to.
    pub(crate) async fn begin(
        &self,
        state: &str,
        nonce: &str,
        verifier: &str,
        redirect: &str,
    ) -> Result<String, OidcError> {
        let endpoint = self.provider(FRESH).await?.discovery.authorization_endpoint;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mark = if endpoint.contains('?') { '&' } else { '?' };
        let fields = [
            ("response_type", "code"),
            ("scope", "openid profile email"),
            ("client_id", &self.settings.client_id),
            ("redirect_uri", redirect),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        Ok(format!("{endpoint}{mark}{}", form(&fields)))
    }

    /// Who it is that came back with this code.
    pub(crate) async fn finish(
        &self,
        code: &str,
        nonce: &str,
        verifier: &str,
        redirect: &str,
        now: UnixMillis,
    ) -> Result<Identity, OidcError> {
        let endpoint = self.provider(FRESH).await?.discovery.token_endpoint;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
            ("client_id", self.settings.client_id.as_str()),
        ];
        // Basic is what every provider must take (OpenID Connect Core, 9).
        let basic = self.settings.client_secret.as_ref().map(|secret| {
            let pair = format!("{}:{}", escaped(&self.settings.client_id), escaped(secret));
            format!("Basic {}", STANDARD.encode(pair))
        });
        if basic.is_some() {
            fields.retain(|(name, _)| *name != "client_id");
        }
        let answer: TokenAnswer = self.ask(&endpoint, Some(form(&fields)), basic).await?;
        if answer.id_token.is_empty() {
            let why = [answer.error, answer.error_description].join(" ");
            let why: String = why.trim().chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(OidcError::Refused(why));
        }
        let claims = self.verified(&answer.id_token).await?;
        self.identity(&claims, nonce, now)
    }

    /// The claims of an ID token whose signature is the provider's.
    async fn verified(&self, token: &str) -> Result<Value, OidcError> {
        let bad = |why: &str| OidcError::Token(why.to_owned());
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| bad("it has no parts"))?;
        let (head, claims) = signed.split_once('.').ok_or_else(|| bad("it has too few parts"))?;
        let bytes =
            |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("it is no base64url"));
        let json = |text: &str| -> Result<Value, OidcError> {
            serde_json::from_slice(&bytes(text)?).map_err(|_| bad("a part of it is no JSON"))
        };
        let (head, signature) = (json(head)?, bytes(signature)?);
        let text = |name: &str| head.get(name).and_then(Value::as_str).unwrap_or_default();
        let (algorithm, kid) = (text("alg"), text("kid"));
        let kty = match algorithm {
            "ES256" => "EC",
            "RS256" => "RSA",
            _ => return Err(bad("it is signed with neither ES256 nor RS256")),
        };
        let fits = |key: &Jwk| {
            key.kty == kty && key.purpose != "enc" && (kid.is_empty() || key.kid == kid)
        };
        let mut keys = self.provider(FRESH).await?.keys;
        if !keys.iter().any(fits) {
            // It may have new keys since.
            keys = self.provider(ASK_AGAIN).await?.keys;
        }
        if keys.iter().filter(|k| fits(k)).any(|k| good(k, signed.as_bytes(), &signature)) {
            json(claims)
        } else {
            Err(bad("no key of the provider has signed it"))
        }
    }

    /// Checks what an ID token must say (OpenID Connect Core, 3.1.3.7).
    fn identity(
        &self,
        claims: &Value,
        nonce: &str,
        now: UnixMillis,
    ) -> Result<Identity, OidcError> {
        let bad = |why: &str| OidcError::Token(why.to_owned());
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| claims.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let settings = &self.settings;
        if text("iss") != settings.issuer {
            return Err(bad("iss: it is of another issuer"));
        }
        let audience = values(claims.get("aud"));
        if !audience.contains(&settings.client_id.as_str()) {
            return Err(bad("aud: it is for somebody else"));
        }
        if (audience.len() > 1 || !text("azp").is_empty()) && text("azp") != settings.client_id {
            return Err(bad("azp: it was given to somebody else"));
        }
        let seconds = Duration::from_millis(now.0).as_secs_f64();
        let skew = Duration::from_secs(SKEW_SECONDS).as_secs_f64();
        if number("exp") + skew <= seconds {
            return Err(bad("exp: it has ended; check the clocks"));
        }
        if number("iat") > seconds + skew {
            return Err(bad("iat: it is from the future; check the clocks"));
        }
        if nonce.is_empty() || text("nonce") != nonce {
            return Err(bad("nonce: it answers another question"));
        }
        let subject = text("sub");
        if subject.is_empty() || subject.len() > 255 {
            return Err(bad("sub: it names nobody"));
        }
        let names = [text("preferred_username"), text("email"), subject];
        let name = names.into_iter().find(|n| super::is_name(n)).unwrap_or("somebody").to_owned();
        let claim = settings.role_claim.split('.').try_fold(claims, |at, part| at.get(part));
        // Claims with dots in their names are found by the whole name.
        let said = values(claims.get(&settings.role_claim).or(claim));
        let roles = said
            .iter()
            .filter_map(|value| settings.roles.get(*value).copied().or_else(|| value.parse().ok()));
        let role = roles.max().ok_or_else(|| OidcError::NoRole {
            claim: settings.role_claim.clone(),
            who: name.clone(),
        })?;
        let (issuer, subject) = (settings.issuer.clone(), subject.to_owned());
        Ok(Identity { issuer, subject, name, role })
    }

    /// What the provider says of itself, at most this old.
    async fn provider(&self, oldest: Duration) -> Result<Provider, OidcError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|k| k.asked.elapsed() < oldest) {
            return Ok(known);
        }
        let base = self.settings.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let discovery: Discovery = self.ask(&url, None, None).await?;
        if discovery.issuer != self.settings.issuer {
            let why = format!("it calls itself {:?}", discovery.issuer);
            return Err(OidcError::Ask { url, why });
        }
        let keys = self.ask::<Jwks>(&discovery.jwks_uri, None, None).await?.keys;
        let provider = Provider { discovery, keys, asked: Instant::now() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider.clone());
        Ok(provider)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        url: &str,
        form: Option<String>,
        authorization: Option<String>,
    ) -> Result<T, OidcError> {
        let failed =
            |why: &dyn ToString| OidcError::Ask { url: url.to_owned(), why: why.to_string() };
        let address = address_of(url).ok_or_else(|| failed(&"this is no https:// URL"))?;
        let method = if form.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(&address.path)
            .header(header::HOST, &address.authority)
            .header(header::ACCEPT, "application/json");
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(form.unwrap_or_default())));
        let request = request.map_err(|e| failed(&e))?;
        let answer = outbound::ask(&address, self.tls.clone(), request, PATIENCE, DOCUMENT_MAX);
        let answer = answer.await.map_err(|e| failed(&model::chain(&e)))?;
        serde_json::from_slice(answer.body()).map_err(|e| failed(&e))
    }
}

/// Where a provider is: https anywhere, http on this machine only.
fn address_of(url: &str) -> Option<Address> {
    Address::parse(url).filter(Address::is_private)
}

/// Whether this key has signed it.
fn good(key: &Jwk, signed: &[u8], signature: &[u8]) -> bool {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    match key.kty.as_str() {
        "EC" if key.crv == "P-256" => {
            let (x, y) = (bytes(&key.x), bytes(&key.y));
            if x.len() != 32 || y.len() != 32 {
                return false;
            }
            let point = [&[4][..], &x, &y].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            key.verify(signed, signature).is_ok()
        }
        "RSA" => {
            let key = PublicKeyComponents { n: bytes(&key.n), e: bytes(&key.e) };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
        }
        _ => false,
    }
}

/// A text or a list of texts.
fn values(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oidc() -> Oidc {
        Oidc::new(OidcSettings {
            issuer: "http://localhost:1".into(),
            client_id: "eve".into(),
            client_secret: None,
            role_claim: "groups".into(),
            roles: BTreeMap::from([("edge-admins".into(), Role::Admin)]),
            roots_pem: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn urls_are_https_or_of_this_machine() {
        assert_eq!(address_of("https://id.example/realms/a").unwrap().path, "/realms/a");
        assert_eq!(address_of("http://localhost:81").unwrap().path, "/");
        for wrong in ["http://id.example", "ftp://x", "https://", "https://a@b/", "id.example"] {
            assert_eq!(address_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn claims_are_checked_one_by_one() {
        let now = UnixMillis(1_770_000_000_000);
        let claims = serde_json::json!({
            "iss": "http://localhost:1", "aud": ["eve"], "exp": 1_770_000_300, "iat": 1_770_000_000,
            "nonce": "n", "sub": "42", "preferred_username": "ann", "groups": ["x", "edge-admins"],
        });
        let read = |claims: &Value| oidc().identity(claims, "n", now);
        let found = read(&claims).unwrap();
        assert_eq!(
            (found.name.as_str(), found.role, found.subject.as_str()),
            ("ann", Role::Admin, "42")
        );
        for (name, value, why) in [
            ("iss", serde_json::json!("http://evil"), "iss:"),
            ("aud", serde_json::json!("other"), "aud:"),
            ("aud", serde_json::json!(["eve", "other"]), "azp:"),
            ("azp", serde_json::json!("other"), "azp:"),
            ("exp", serde_json::json!(1_769_999_000), "exp:"),
            ("exp", Value::Null, "exp:"),
            ("iat", serde_json::json!(1_770_001_000), "iat:"),
            ("nonce", serde_json::json!("m"), "nonce:"),
            ("nonce", Value::Null, "nonce:"),
            ("sub", serde_json::json!(""), "sub:"),
            ("groups", serde_json::json!(["x"]), "names no role"),
            ("groups", Value::Null, "names no role"),
        ] {
            let mut wrong = claims.clone();
            wrong[name] = value;
            let said = read(&wrong).unwrap_err().to_string();
            assert!(said.contains(why), "{name}: {said}");
        }
        assert!(oidc().identity(&claims, "", now).is_err(), "an empty nonce fits nothing");
    }
}
