//! Log-in by an OpenID provider: a small one, with real connections and real signatures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use controller::access::Role;
use controller::access::oidc::OidcSettings;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::access::{Site, cookie};
use crate::common::now;

const SECRET: &str = "a secret/with signs";

enum Key {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// What the provider will answer.
struct Said {
    issuer: String,
    key: Key,
    kid: String,
    /// By code: the challenge and the nonce.
    codes: BTreeMap<String, (String, String)>,
    groups: Value,
    subject: String,
    /// Claims that are said instead.
    instead: Value,
    spoil: bool,
}

#[derive(Clone)]
struct Provider(Arc<Mutex<Said>>);

impl Provider {
    async fn start() -> (Provider, OidcSettings) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let provider = Provider(Arc::new(Mutex::new(Said {
            issuer: issuer.clone(),
            key: Key::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            kid: "one".into(),
            codes: BTreeMap::new(),
            groups: json!(["edge-ops"]),
            subject: "42".into(),
            instead: json!({}),
            spoil: false,
        })));
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let settings = OidcSettings {
            issuer,
            client_id: "eve".into(),
            client_secret: Some(SECRET.into()),
            role_claim: "groups".into(),
            roles: BTreeMap::from([("edge-ops".into(), Role::Operator)]),
            roots_pem: Vec::new(),
        };
        (provider, settings)
    }

    fn with<T>(&self, at: impl FnOnce(&mut Said) -> T) -> T {
        at(&mut self.0.lock().unwrap())
    }
}

async fn discovery(State(provider): State<Provider>) -> Json<Value> {
    let issuer = provider.with(|said| said.issuer.clone());
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
    }))
}

async fn keys(State(provider): State<Provider>) -> Json<Value> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    provider.with(|said| {
        let mut key = match &said.key {
            Key::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Key::Rsa(pair) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero().to_vec();
                let e = public.exponent().big_endian_without_leading_zero().to_vec();
                json!({"kty": "RSA", "n": text(&n), "e": text(&e)})
            }
        };
        key["kid"] = json!(said.kid);
        Json(json!({ "keys": [key] }))
    })
}

async fn token(State(provider): State<Provider>, headers: HeaderMap, body: String) -> Json<Value> {
    let refused = || Json(json!({"error": "invalid_grant"}));
    let basic = format!("Basic {}", STANDARD.encode("eve:a%20secret%2Fwith%20signs"));
    if headers["authorization"] != basic.as_str() {
        return Json(json!({"error": "invalid_client"}));
    }
    let fields = fields(&body);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&fields["code_verifier"]));
    provider.with(|said| {
        let Some((expected, nonce)) = said.codes.remove(&fields["code"]) else { return refused() };
        if expected != challenge || !fields["redirect_uri"].ends_with("/oidc/callback") {
            return refused();
        }
        let seconds = now().0 / 1000;
        let mut claims = json!({
            "iss": said.issuer, "aud": "eve", "sub": said.subject, "nonce": nonce,
            "iat": seconds, "exp": seconds + 300, "preferred_username": "ann",
            "groups": said.groups,
        });
        for (name, value) in said.instead.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let algorithm = match said.key {
            Key::Ec(_) => "ES256",
            Key::Rsa(_) => "RS256",
        };
        let head = json!({"alg": algorithm, "kid": said.kid});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let mut signature = match &said.key {
            Key::Ec(pair) => {
                pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        if said.spoil {
            signature[10] ^= 1;
        }
        Json(json!({"id_token": format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))}))
    })
}

/// The fields of a form or a query. Ours need no more than a few escapes undone.
fn fields(text: &str) -> BTreeMap<String, String> {
    let plain = |t: &str| t.replace("%3A", ":").replace("%2F", "/").replace("%20", " ");
    text.split('&').filter_map(|f| f.split_once('=')).map(|(n, v)| (n.into(), plain(v))).collect()
}

/// Goes to the provider and comes back: the answer of the callback.
async fn come_back(site: &Site, provider: &Provider) -> (StatusCode, hyper::HeaderMap, String) {
    let (status, headers, page) = site.browse(Method::GET, "/oidc/login", "", "").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let url = headers["location"].to_str().unwrap().to_owned();
    let asked = fields(url.split_once('?').unwrap().1);
    assert_eq!(asked["code_challenge_method"], "S256");
    provider.with(|said| {
        let what = (asked["code_challenge"].clone(), asked["nonce"].clone());
        said.codes.insert("a-code".into(), what);
    });
    let path = format!("/oidc/callback?code=a-code&state={}", asked["state"]);
    site.browse(Method::GET, &path, &cookie(&headers), "").await
}

#[tokio::test]
async fn a_provider_logs_people_in_with_the_role_it_says() {
    let (provider, settings) = Provider::start().await;
    let site = Site::with(|s| s.oidc = Some(settings.clone())).await;
    let (_, _, page) = site.browse(Method::GET, "/login", "", "").await;
    assert!(page.contains("href=\"/oidc/login\""), "{page}");

    let (status, headers, page) = come_back(&site, &provider).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let session = cookie(&headers);
    let account = site.browse(Method::GET, "/account", &session, "").await.2;
    assert!(account.contains("You are ann, with the role operator"), "{account}");
    let (_, users) = site.get(&site.root, "/users").await;
    assert_eq!(users[1]["provider"], json!(settings.issuer));

    // A key of the other kind.
    provider.with(|said| {
        said.key = Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        said.kid = "one".into();
        said.groups = json!("viewer");
    });
    let site = Site::with(|s| s.oidc = Some(settings.clone())).await;
    let (status, headers, page) = come_back(&site, &provider).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let account = site.browse(Method::GET, "/account", &cookie(&headers), "").await.2;
    assert!(account.contains("with the role viewer"), "{account}");

    // What the provider says at each log-in holds at once, in older sessions, too.
    let older = cookie(&headers);
    provider.with(|said| said.groups = json!(["strangers", "edge-ops"]));
    assert_eq!(come_back(&site, &provider).await.0, StatusCode::OK);
    provider.with(|said| said.groups = json!("viewer"));
    let (_, headers, _) = come_back(&site, &provider).await;
    let newer = cookie(&headers);
    for session in [&older, &newer] {
        let account = site.browse(Method::GET, "/account", session, "").await.2;
        assert!(account.contains("You are ann, with the role viewer"), "{account}");
    }

    // Somebody else of the same name is somebody else.
    provider.with(|said| said.subject = "43".into());
    let (_, headers, _) = come_back(&site, &provider).await;
    let account = site.browse(Method::GET, "/account", &cookie(&headers), "").await.2;
    assert!(account.contains("You are somebody-"), "{account}");
}

#[tokio::test]
async fn what_a_provider_says_is_not_believed_unseen() {
    let (provider, settings) = Provider::start().await;
    let site = Site::with(|s| s.oidc = Some(settings.clone())).await;
    let refused = async |change: &dyn Fn(&mut Said), why: &str| {
        provider.with(|said| {
            (said.instead, said.spoil, said.groups) = (json!({}), false, json!(["edge-ops"]));
            change(said);
        });
        let (status, headers, page) = come_back(&site, &provider).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{why}: {page}");
        assert!(page.contains(why), "{why}: {page}");
        assert!(!headers.contains_key("set-cookie"), "{why}");
    };
    refused(&|said| said.spoil = true, "no key of the provider has signed it").await;
    refused(&|said| said.instead = json!({"aud": "other"}), "aud: ").await;
    refused(&|said| said.instead = json!({"nonce": "other"}), "nonce: ").await;
    refused(&|said| said.instead = json!({"iss": "http://evil"}), "iss: ").await;
    refused(&|said| said.instead = json!({"exp": now().0 / 1000 - 600}), "exp: ").await;
    refused(&|said| said.groups = json!(["strangers"]), "names no role").await;
}

#[tokio::test]
async fn a_log_in_is_good_for_the_browser_that_began_it_once_and_not_for_long() {
    let (provider, settings) = Provider::start().await;
    let site = Site::with(|s| s.oidc = Some(settings)).await;
    let begin = async || {
        let (_, headers, _) = site.browse(Method::GET, "/oidc/login", "", "").await;
        let url = headers["location"].to_str().unwrap().to_owned();
        let asked = fields(url.split_once('?').unwrap().1);
        let what = (asked["code_challenge"].clone(), asked["nonce"].clone());
        provider.with(|said| said.codes.insert("a-code".into(), what));
        (format!("/oidc/callback?code=a-code&state={}", asked["state"]), cookie(&headers))
    };
    let (path, ours) = begin().await;
    assert_eq!(site.browse(Method::GET, &path, "", "").await.0, StatusCode::BAD_REQUEST);
    let (_, other) = begin().await;
    assert_eq!(site.browse(Method::GET, &path, &other, "").await.0, StatusCode::BAD_REQUEST);
    let (path2, ours2) = begin().await;
    assert_eq!(site.browse(Method::GET, &path2, &ours2, "").await.0, StatusCode::OK);
    assert_eq!(site.browse(Method::GET, &path2, &ours2, "").await.0, StatusCode::BAD_REQUEST);
    let denied = format!("{}&error=access_denied", path.replace("code=a-code&", ""));
    let (status, _, page) = site.browse(Method::GET, &denied, &ours, "").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(page.contains("access_denied"), "{page}");
}
