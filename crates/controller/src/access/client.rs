//! The operator API's calls about users and tokens, from the other end; and a first look at a
//! controller whose certificate is not known yet.

use bytes::Bytes;
use hyper::Method;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::shown::{Link, Login, MadeToken, Me, NewPassword, Token, TokenSpec, User, UserSpec};
use crate::client::{Client, ClientError, escaped, split};
use crate::db::{AuditFilter, AuditRow};
use crate::trust;

impl Client {
    /// Who the token is of.
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.get("/me").await
    }

    /// Ends the token that asks.
    pub async fn log_out(&self) -> Result<(), ClientError> {
        self.call(Method::DELETE, "/me", Bytes::new()).await.map(drop)
    }

    /// A token for a name and a password; this client's own token is not needed.
    pub async fn log_in(&self, login: &Login) -> Result<MadeToken, ClientError> {
        self.exchange(Method::POST, "/login", login).await
    }

    /// Changes one's own password; all sessions end.
    pub async fn change_password(&self, new: &NewPassword) -> Result<(), ClientError> {
        self.tell(Method::POST, "/me/password", new).await
    }

    /// All users.
    pub async fn users(&self) -> Result<Vec<User>, ClientError> {
        self.get("/users").await
    }

    /// Makes a user, or gives one another role and other projects.
    pub async fn put_user(&self, name: &str, spec: &UserSpec) -> Result<(), ClientError> {
        self.tell(Method::PUT, &format!("/users/{}", escaped(name)), spec).await
    }

    /// Forgets a user.
    pub async fn delete_user(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("/users/{}", escaped(name));
        self.call(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// Gives a user a new password.
    pub async fn set_password(&self, name: &str, new: &NewPassword) -> Result<(), ClientError> {
        self.tell(Method::POST, &format!("/users/{}/password", escaped(name)), new).await
    }

    /// The SHA-256 fingerprint of the certificate that the controller shows to this client, which
    /// trusts it.
    pub async fn fingerprint(&self) -> Result<String, ClientError> {
        let connection = self.connected().await?;
        let shown = connection.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let none = || ClientError::Root("the controller shows no certificate".to_owned());
        shown.map(|der| fingerprint(der)).ok_or_else(none)
    }

    /// A link by which a user chooses a password, once.
    pub async fn link(&self, name: &str) -> Result<Link, ClientError> {
        let path = format!("/users/{}/link", escaped(name));
        let answer = self.call(Method::POST, &path, Bytes::new()).await?;
        self.read(&answer)
    }

    /// The tokens of a user; `None`: one's own.
    pub async fn tokens(&self, user: Option<&str>) -> Result<Vec<Token>, ClientError> {
        self.get(&of(user, "/tokens")).await
    }

    /// Makes a token for a user; `None`: for oneself.
    pub async fn make_token(
        &self,
        user: Option<&str>,
        spec: &TokenSpec,
    ) -> Result<MadeToken, ClientError> {
        self.exchange(Method::POST, &of(user, "/tokens"), spec).await
    }

    /// Ends a token of a user; `None`: of oneself.
    pub async fn end_token(&self, user: Option<&str>, name: &str) -> Result<(), ClientError> {
        let path = of(user, &format!("/tokens/{}", escaped(name)));
        self.call(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// Lines of the audit log.
    pub async fn audit(&self, which: &AuditFilter) -> Result<Vec<AuditRow>, ClientError> {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let fields = [
            ("author", which.author.clone()),
            ("action", which.action.clone()),
            ("object", which.object.clone()),
            ("address", which.address.clone()),
            ("after", which.after.to_string()),
            ("since", number(which.since)),
            ("until", number(which.until)),
            ("limit", number(which.limit.map(u64::from))),
        ];
        let said = fields.iter().filter(|(_, value)| !value.is_empty());
        let query: Vec<String> =
            said.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        self.get(&format!("/audit?{}", query.join("&"))).await
    }

    async fn exchange<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let answer = self.call(method, path, self.written(body)?).await?;
        self.read(&answer)
    }

    async fn tell(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.call(method, path, self.written(body)?).await.map(drop)
    }

    fn written(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let written = serde_json::to_vec(body);
        let url = self.url().to_owned();
        Ok(written.map_err(|source| ClientError::Answer { url, source })?.into())
    }
}

fn of(user: Option<&str>, rest: &str) -> String {
    match user {
        Some(user) => format!("/users/{}{rest}", escaped(user)),
        None => format!("/me{rest}"),
    }
}

/// What a controller shows of itself before anybody trusts it. Fingerprints are SHA-256, as
/// `openssl x509 -fingerprint -sha256` and browsers print them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The last certificate of its chain: what vouches for its own.
    pub root_pem: String,
    /// The fingerprint of that.
    pub root: String,
    /// The fingerprint of its own certificate, the first of the chain. Who has that one's key chose
    /// what else is in the chain: it may stand for the whole.
    pub own: String,
}

impl Shown {
    /// Whether a fingerprint that a person has is one of these, with colons, spaces or neither.
    pub fn is(&self, fingerprint: &str) -> bool {
        let bare = |text: &str| text.replace([':', ' '], "").to_ascii_uppercase();
        let said = bare(fingerprint);
        said == bare(&self.root) || said == bare(&self.own)
    }
}

/// The SHA-256 fingerprint of a certificate: pairs of upper-case digits with colons between.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|b| format!("{b:02X}")).collect();
    pairs.join(":")
}

/// Asks a controller for its certificates and believes nothing. For a person to compare and pin.
pub async fn look(url: &str) -> Result<Shown, ClientError> {
    let (host, port) = split(url).ok_or_else(|| ClientError::Url(url.to_owned()))?;
    let unusable = |e: rustls::Error| ClientError::Root(e.to_string());
    let (tls, seen) = trust::anybody().map_err(unusable)?;
    let connect = |source| ClientError::Connect { url: url.to_owned(), source };
    let name = ServerName::try_from(host.clone()).map_err(|_| ClientError::Url(url.to_owned()))?;
    let shake = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        TlsConnector::from(tls).connect(name, stream).await
    };
    let shaken = tokio::time::timeout(std::time::Duration::from_secs(10), shake).await;
    shaken.map_err(|_| ClientError::Slow { url: url.to_owned() })?.map_err(connect)?;
    let chain = seen.shown();
    let der = |certificate: Option<&CertificateDer<'_>>| {
        certificate.map(|c| c.to_vec()).unwrap_or_default()
    };
    let (own, root) = (der(chain.first()), der(chain.last()));
    Ok(Shown { root_pem: trust::pem(&root), root: fingerprint(&root), own: fingerprint(&own) })
}
