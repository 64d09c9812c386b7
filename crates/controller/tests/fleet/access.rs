//! Who may do what: users, passwords, tokens, sessions, links, roles, projects, the audit log.

use bytes::Bytes;
use controller::access::password::Cost;
use controller::access::{Limits, Rate};
use controller::{Settings, serve};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Home, Node, back_ms, device, now, wait_ms};
use crate::postgres::Postgres;

/// Guesses that cost nothing: tests make many.
const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

/// A controller and whoever talks to it.
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) node: Node,
    /// The token of the administrator.
    pub(crate) root: String,
}

impl Site {
    pub(crate) async fn start() -> Site {
        Site::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Site {
        let mut home = Home::stopped();
        let mut settings = Settings { password_cost: CHEAP, ..Settings::new(home.data(), now) };
        change(&mut settings);
        home.running = Some(serve(settings).await.unwrap());
        let root = home.running.as_ref().unwrap().first_token.clone().unwrap_or_default();
        let node = home.node("x");
        Site { home, node, root }
    }

    /// A call of the operator API with a token; JSON in and out.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let path = format!("/api/operator/v1{path}");
        let body = match &body {
            Value::Null => Bytes::new(),
            Value::String(text) => Bytes::from(text.clone()),
            body => Bytes::from(body.to_string()),
        };
        let headers = [("authorization", bearer.as_str())];
        let headers = if token.is_empty() { &headers[..0] } else { &headers[..] };
        let (status, _, body) = self.node.http(method, &path, headers, body).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        self.call(token, Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        self.call(token, Method::POST, path, body).await
    }

    /// Makes a user with a password.
    pub(crate) async fn user(&self, name: &str, role: &str, projects: &[&str]) {
        let spec = json!({"role": role, "projects": projects});
        let path = format!("/users/{name}");
        assert_eq!(self.call(&self.root, Method::PUT, &path, spec).await.0, 201);
        let password = json!({"new": password(name)});
        assert_eq!(self.post(&self.root, &format!("{path}/password"), password).await.0, 204);
    }

    /// A token of a user, by a log-in.
    pub(crate) async fn token(&self, name: &str) -> String {
        let (status, made) = self.log_in(name, &password(name)).await;
        assert_eq!(status, 201, "{made}");
        made["secret"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn log_in(&self, name: &str, password: &str) -> (u16, Value) {
        let login = json!({"name": name, "password": password, "token": {"name": "test"}});
        self.post("", "/login", login).await
    }

    /// What a browser does: a cookie, and the site that a form is of.
    pub(crate) async fn browse(
        &self,
        method: Method,
        path: &str,
        cookie: &str,
        form: &str,
    ) -> (StatusCode, hyper::HeaderMap, String) {
        let ours = format!("https://localhost:{}", self.node.port);
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers = [("cookie", cookie), ("origin", ours.as_str()), kind];
        let body = Bytes::from(form.to_owned());
        let (status, headers, body) = self.node.http(method, path, &headers, body).await;
        (status, headers, String::from_utf8(body.to_vec()).unwrap())
    }
}

pub(crate) fn password(name: &str) -> String {
    format!("the horse of {}", name.chars().rev().collect::<String>())
}

pub(crate) fn cookie(headers: &hyper::HeaderMap) -> String {
    let set = headers["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn users_log_in_by_password_and_do_what_their_role_says() {
    let site = Site::start().await;
    site.user("ann", "operator", &[]).await;
    site.user("vic", "viewer", &[]).await;
    let (ann, vic) = (site.token("ann").await, site.token("vic").await);
    assert_eq!(
        site.get(&ann, "/me").await.1,
        json!({"name": "ann", "role": "operator", "projects": [], "token": "test"})
    );
    let objects = json!(device("edge-1", "one"));
    assert_eq!(site.post(&vic, "/objects", objects.clone()).await.0, 403);
    assert_eq!(site.post(&ann, "/objects", objects).await.0, 200);
    assert_eq!(site.get(&vic, "/devices").await.0, 200);
    let (status, why) = site.get(&ann, "/users").await;
    assert_eq!(status, 403);
    assert_eq!(why["error"], "ann has the role operator here; this needs the role admin");

    let (status, why) = site.log_in("ann", "wrong").await;
    assert_eq!((status, &why["error"]), (401, &json!("the name or the password is wrong")));
    assert_eq!(site.log_in("nobody", "wrong").await.1, why, "a name that is none looks the same");
    assert_eq!(site.log_in("admin", "").await.0, 401, "without a password nobody logs in by one");

    let (status, _) = site.post(&ann, "/me/password", json!({"old": "no", "new": "x"})).await;
    assert_eq!(status, 403);
    let change = json!({"old": password("ann"), "new": "another horse of mine"});
    assert_eq!(site.post(&ann, "/me/password", change).await.0, 204);
    assert_eq!(site.log_in("ann", &password("ann")).await.0, 401);
    assert_eq!(site.log_in("ann", "another horse of mine").await.0, 201);

    assert_eq!(site.call(&site.root, Method::DELETE, "/users/ann", Value::Null).await.0, 204);
    assert_eq!(site.get(&ann, "/me").await.0, 401, "tokens go with their user");
    let (status, why) = site.call(&site.root, Method::DELETE, "/users/admin", Value::Null).await;
    assert_eq!(status, 409, "{why}");
    let less = json!({"role": "admin", "projects": ["a"]});
    assert_eq!(site.call(&site.root, Method::PUT, "/users/admin", less).await.0, 409);
}

#[tokio::test]
async fn wrong_documents_are_refused_by_field() {
    let site = Site::start().await;
    let root = &site.root;
    let put = async |path: &str, body: Value| {
        let (status, why) = site.call(root, Method::PUT, path, body).await;
        (status, why["error"].as_str().unwrap_or_default().to_owned())
    };
    let (status, why) = put("/users/ann", json!({"role": "root"})).await;
    assert_eq!(status, 422);
    assert!(why.contains("role: unknown variant `root`"), "{why}");
    assert_eq!(put("/users/a%20b", json!({"role": "viewer"})).await.0, 422);
    assert_eq!(put("/users/ann", json!({"role": "viewer", "projects": ["a\nb"]})).await.0, 422);
    assert_eq!(put("/users/ann", json!({"role": "viewer"})).await.0, 201);
    assert_eq!(put("/users/ann", json!({"role": "operator"})).await.0, 204);
    let (status, why) = site.post(root, "/users/ann/password", json!({"new": "short"})).await;
    assert_eq!(status, 422);
    assert!(why["error"].as_str().unwrap().contains("10 are the least"), "{why}");
    assert_eq!(
        site.post(root, "/users/bob/password", json!({"new": "long enough it is"})).await.0,
        404
    );
    for spec in [json!({"name": ""}), json!({"name": "a b"}), json!({"name": "x", "hours": 0})] {
        assert_eq!(site.post(root, "/me/tokens", spec.clone()).await.0, 422, "{spec}");
    }
}

#[tokio::test]
async fn tokens_do_no_more_than_their_maker_and_end_when_they_say() {
    let site = Site::start().await;
    site.user("ann", "operator", &["a", "b"]).await;
    let ann = site.token("ann").await;
    let make = async |token: &str, spec: Value| site.post(token, "/me/tokens", spec).await;
    assert_eq!(make(&ann, json!({"name": "more", "role": "admin"})).await.0, 403);
    assert_eq!(make(&ann, json!({"name": "more", "projects": ["c"]})).await.0, 403);
    let (status, less) =
        make(&ann, json!({"name": "less", "role": "viewer", "projects": ["b", "c"], "hours": 1}))
            .await;
    assert_eq!(status, 201);
    assert_eq!(less["token"]["projects"], json!(["b"]));
    assert_eq!(make(&ann, json!({"name": "less"})).await.0, 409, "names are taken once");
    let less = less["secret"].as_str().unwrap();
    assert_eq!(make(less, json!({"name": "up", "role": "operator"})).await.0, 403);
    assert_eq!(site.get(less, "/me").await.1["role"], "viewer");
    let file = std::fs::read(site.home.data().join("controller.db")).unwrap();
    assert!(!file.windows(64).any(|w| w == less.as_bytes()), "kept as a hash only");

    // A user who loses a role takes it from all tokens at once.
    let viewer = json!({"role": "viewer", "projects": ["a"]});
    assert_eq!(site.call(&site.root, Method::PUT, "/users/ann", viewer).await.0, 204);
    assert_eq!(site.get(&ann, "/me").await.1["role"], "viewer");
    assert_eq!(site.get(less, "/me").await.0, 401, "none of its projects is left");
    assert_eq!(site.call(&ann, Method::DELETE, "/me/tokens/less", Value::Null).await.0, 204);
    assert_eq!(site.call(&ann, Method::DELETE, "/me/tokens/less", Value::Null).await.0, 404);
    assert_eq!(site.call(&ann, Method::DELETE, "/me", Value::Null).await.0, 204);
    assert_eq!(site.get(&ann, "/me").await.0, 401);
}

#[tokio::test]
async fn who_is_limited_to_projects_sees_and_changes_nothing_else() {
    let site = Site::start().await;
    site.user("ann", "operator", &["a"]).await;
    let ann = site.token("ann").await;
    // Until objects can say their project this is all there is: none of them is hers.
    let objects = device("edge-1", "one") + "kind: Volume\nname: data\nspec: {size: 1GiB}\n";
    assert_eq!(site.post(&site.root, "/objects", json!(objects)).await.0, 200);
    for path in ["/devices", "/apps", "/networks", "/objects"] {
        assert_eq!(site.get(&ann, path).await, (200, json!([])), "{path}");
    }
    for path in ["/devices/edge-1", "/logs?device=edge-1", "/objects/volume/data"] {
        assert_eq!(site.get(&ann, path).await.0, 404, "{path}");
    }
    for path in ["/events", "", "/users", "/audit", "/rollouts", "/drift"] {
        assert_eq!(site.get(&ann, path).await.0, 403, "{path}");
    }
    assert_eq!(site.post(&ann, "/devices/edge-1/restart", Value::Null).await.0, 404);
    let gone = site.call(&ann, Method::DELETE, "/objects/volume/data", Value::Null).await;
    assert_eq!(gone.0, 404);
    let grown = "kind: Volume\nname: data\nspec: {size: 2GiB}\n";
    let (status, why) = site.post(&ann, "/objects", json!(grown)).await;
    assert_eq!(status, 403);
    assert_eq!(why["error"], "Volume data: it belongs to another project, or to none");
    let new = "kind: Volume\nname: new\nspec: {size: 2GiB}\n";
    let (status, why) = site.post(&ann, "/objects", json!(new)).await;
    assert_eq!(status, 403);
    assert_eq!(why["error"], "Volume new: spec.labels.project: it must be one of yours: a");
}

#[tokio::test]
async fn the_first_link_sets_a_password_once() {
    let site = Site::start().await;
    let link = site.home.running.as_ref().unwrap().first_link.clone().unwrap();
    let path = &link[link.find("/first/").unwrap()..];
    let (status, _, page) = site.browse(Method::GET, path, "", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("You are <b>admin</b>"), "{page}");
    let short = site.browse(Method::POST, path, "", "password=short&again=short").await;
    assert_eq!(short.0, StatusCode::UNPROCESSABLE_ENTITY);
    let differ = "password=a+horse+of+course&again=a+cow+of+course";
    assert_eq!(
        site.browse(Method::POST, path, "", differ).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let form = "password=a+horse+of+course%21&again=a+horse+of+course%21";
    let (status, headers, _) = site.browse(Method::POST, path, "", form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(headers["set-cookie"].to_str().unwrap().starts_with("__Host-eve_session="));
    assert_eq!(site.browse(Method::GET, "/", &cookie(&headers), "").await.0, StatusCode::OK);
    assert_eq!(site.browse(Method::GET, path, "", "").await.0, StatusCode::NOT_FOUND, "once");
    assert_eq!(site.browse(Method::POST, path, "", form).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.log_in("admin", "a horse of course!").await.0, 201);
    let mut home = site.home;
    home.again().await;
    assert_eq!(home.running.as_ref().unwrap().first_link, None, "the first start only");
    let next = controller::new_link(&home.data(), None, "admin", now).await.unwrap();
    assert!(next.starts_with("https://localhost:") && next.contains("/first/"), "{next}");
    assert!(controller::new_link(&home.data(), None, "nobody", now).await.is_err());
    let empty = tempfile::tempdir().unwrap();
    let refused = controller::new_token(empty.path(), None, now).await.unwrap_err();
    assert!(matches!(refused, controller::ServeError::NoDatabase(_)), "{refused}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is made");
}

#[tokio::test]
async fn sessions_outlive_the_process_and_end_with_the_password() {
    let mut site = Site::start().await;
    site.user("ann", "viewer", &[]).await;
    let form = format!("name=ann&password={}", password("ann").replace(' ', "+"));
    let log_in = async |site: &Site| {
        let (status, headers, page) = site.browse(Method::POST, "/login", "", &form).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
        for flag in ["Path=/;", "Secure", "HttpOnly", "SameSite=Strict"] {
            assert!(headers["set-cookie"].to_str().unwrap().contains(flag), "{flag}");
        }
        cookie(&headers)
    };
    let ann = log_in(&site).await;
    site.home.again().await;
    site.node = site.home.node("x");
    assert_eq!(site.browse(Method::GET, "/", &ann, "").await.0, StatusCode::OK);
    let restart = site.browse(Method::POST, "/devices/edge-1/restart", &ann, "").await;
    assert_eq!(restart.0, StatusCode::FORBIDDEN, "viewers look");
    let (status, _, page) = site.browse(Method::GET, "/account", &ann, "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("You are ann, with the role viewer"), "{page}");
    let other = log_in(&site).await;
    let form = format!(
        "old={}&password=quite+another+one&again=quite+another+one",
        password("ann").replace(' ', "+")
    );
    let (status, headers, page) = site.browse(Method::POST, "/account/password", &ann, &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    for old in [&ann, &other] {
        assert_eq!(site.browse(Method::GET, "/", old, "").await.0, StatusCode::SEE_OTHER);
    }
    let new = cookie(&headers);
    assert_eq!(site.browse(Method::GET, "/", &new, "").await.0, StatusCode::OK);
    site.browse(Method::POST, "/logout", &new, "").await;
    assert_eq!(site.browse(Method::GET, "/", &new, "").await.0, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn wrong_passwords_make_the_next_wait_and_are_written_down() {
    let site = Site::start().await;
    site.user("ann", "viewer", &[]).await;
    for _ in 0..5 {
        assert_eq!(site.log_in("ann", "wrong").await.0, 401);
    }
    let (status, why) = site.log_in("ann", &password("ann")).await;
    assert_eq!(status, 429, "also the right one: {why}");
    assert_eq!(site.log_in("bob", "wrong").await.0, 401, "others are not kept out");
    let (_, lines) = site.get(&site.root, "/audit?action=login&limit=100").await;
    let outcomes: Vec<_> = lines.as_array().unwrap().iter().map(|l| &l["outcome"]).collect();
    assert_eq!(outcomes.len(), 7, "{lines}");
    assert_eq!(outcomes[0], "refused: the name or the password is wrong");
    assert_eq!(lines[0]["author"], "ann");
    assert_eq!(lines[0]["address"], "127.0.0.1");
    assert_eq!(lines[6]["author"], "(unknown)");
}

#[tokio::test]
async fn what_is_done_is_in_the_audit_log_with_its_author() {
    let site = Site::start().await;
    site.user("ann", "operator", &[]).await;
    let ann = site.token("ann").await;
    site.post(&ann, "/objects", json!(device("edge-1", "one"))).await;
    site.post(&ann, "/devices/edge-1/restart", Value::Null).await;
    site.get(&ann, "/users").await;
    let (_, lines) = site.get(&site.root, "/audit?author=ann&limit=100").await;
    let told: Vec<String> = lines
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            let text = |field: &str| l[field].as_str().unwrap().to_owned();
            format!("{} {}: {}", text("action"), text("object"), text("outcome"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "login : done",
            "created Device edge-1: done",
            "POST /objects: done",
            "reboot asked for Device edge-1: done",
            "POST /devices/edge-1/restart: done",
            "GET /users: refused: 403",
        ]
    );
    let (_, some) = site.get(&site.root, "/audit?object=Device%20edge&limit=1").await;
    assert_eq!(some[0]["action"], "reboot asked for");
    assert_eq!(
        site.get(&site.root, "/audit?object=%25").await.1,
        json!([]),
        "no pattern of its own"
    );
    for method in [Method::DELETE, Method::PUT, Method::POST] {
        let status = site.call(&site.root, method, "/audit", Value::Null).await.0;
        assert_eq!(status, 405);
    }
    let bearer = format!("Bearer {}", site.root);
    let (status, headers, text) = site
        .node
        .http(
            Method::GET,
            "/api/operator/v1/audit/export?author=ann",
            &[("authorization", &bearer)],
            Bytes::new(),
        )
        .await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"application/jsonl".parse().unwrap())
    );
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert_eq!(text.lines().count(), 6);
    for line in text.lines() {
        let line: controller::AuditRow = serde_json::from_str(line).unwrap();
        assert_eq!(line.author, "ann");
    }
}

#[tokio::test]
async fn a_token_that_calls_too_often_waits() {
    let slow = Rate { burst: 3.0, per_second: 0.1 };
    let limits = Limits { calls: slow, ..Limits::default() };
    let site = Site::with(|s| s.limits = limits).await;
    for _ in 0..3 {
        assert_eq!(site.get(&site.root, "/me").await.0, 200);
    }
    let (status, why) = site.get(&site.root, "/me").await;
    assert_eq!(status, 429);
    assert!(why["error"].as_str().unwrap().contains("try again in 10 s"), "{why}");
}

#[tokio::test]
async fn registrations_and_guessed_tokens_are_counted_by_address() {
    let few = Rate { burst: 2.0, per_second: 0.1 };
    let limits =
        Limits { registrations: few, refusals: few, spare_loopback: false, ..Limits::default() };
    let site = Site::with(|s| s.limits = limits).await;
    for _ in 0..2 {
        assert_eq!(site.node.register().await, StatusCode::FORBIDDEN);
        assert_eq!(site.get("guess", "/me").await.0, 401);
    }
    assert_eq!(site.node.register().await, StatusCode::SERVICE_UNAVAILABLE, "nodes know no 429");
    assert_eq!(site.get("guess", "/me").await.0, 429);
    assert_eq!(site.get(&site.root, "/me").await.0, 200, "who has a token is not kept out");
}

const HOUR: u64 = 3_600_000;

#[tokio::test]
async fn a_clock_set_back_brings_nothing_back_and_keeps_nobody_out() {
    let site = Site::start().await;
    site.user("ann", "viewer", &[]).await;
    let form = format!("name=ann&password={}", password("ann").replace(' ', "+"));
    let spec = json!({"name": "short", "hours": 1});
    let (_, made) = site.post(&site.root, "/me/tokens", spec).await;
    let short = made["secret"].as_str().unwrap();
    assert_eq!(site.get(short, "/me").await.0, 200);
    wait_ms(2 * HOUR);
    assert_eq!(site.get(short, "/me").await.0, 401);

    let session = cookie(&site.browse(Method::POST, "/login", "", &form).await.1);
    let (_, link) = site.post(&site.root, "/users/ann/link", Value::Null).await;
    let link = link["path"].as_str().unwrap();
    assert_eq!(site.browse(Method::GET, link, "", "").await.0, StatusCode::OK);
    for _ in 0..6 {
        site.log_in("ann", "wrong").await;
    }
    assert_eq!(site.log_in("ann", &password("ann")).await.0, 429);

    back_ms(30 * HOUR);
    assert_eq!(site.get(short, "/me").await.0, 401, "what has ended stays so");
    assert_eq!(site.get(&site.root, "/me").await.0, 200);
    assert_eq!(site.browse(Method::GET, link, "", "").await.0, StatusCode::NOT_FOUND);
    let (status, ..) = site.browse(Method::GET, "/account", &session, "").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "a session of the future has to log in again");
    assert_eq!(site.log_in("ann", &password("ann")).await.0, 201, "and can, at once");
}

#[tokio::test]
async fn sessions_end_when_idle_and_after_a_week() {
    let site = Site::start().await;
    site.user("ann", "viewer", &[]).await;
    let form = format!("name=ann&password={}", password("ann").replace(' ', "+"));
    let log_in = async || cookie(&site.browse(Method::POST, "/login", "", &form).await.1);
    let holds = async |session: &str| {
        site.browse(Method::GET, "/account", session, "").await.0 == StatusCode::OK
    };
    let idle = log_in().await;
    wait_ms(12 * HOUR);
    assert!(!holds(&idle).await);
    let busy = log_in().await;
    for _ in 0..15 {
        assert!(holds(&busy).await);
        wait_ms(11 * HOUR);
    }
    wait_ms(3 * HOUR);
    assert!(!holds(&busy).await, "a week is the limit");
}

#[tokio::test]
async fn on_postgresql_two_controllers_know_the_same_people() {
    let server = Postgres::start();
    let mut site = Site::with(|s| s.database = Some(server.location())).await;
    site.home.database = Some(server.location());
    let twin = site.home.twin().await;
    let first = twin.running.as_ref().unwrap().first_token.clone();
    assert_eq!(first, None, "the administrator's token was made once");
    // Its guesses cost what they usually do: a password is kept anew.
    let other = Site { node: twin.node("x"), home: twin, root: site.root.clone() };
    site.user("ann", "operator", &["a"]).await;
    let ann = other.token("ann").await;
    assert_eq!(site.get(&ann, "/me").await.1["projects"], json!(["a"]));

    let form = format!("name=ann&password={}", password("ann").replace(' ', "+"));
    let session = cookie(&site.browse(Method::POST, "/login", "", &form).await.1);
    assert_eq!(other.browse(Method::GET, "/account", &session, "").await.0, StatusCode::OK);
    for _ in 0..3 {
        assert_eq!(site.log_in("ann", "wrong").await.0, 401);
        other.log_in("ann", "wrong").await;
    }
    assert_eq!(site.log_in("ann", &password("ann")).await.0, 429, "counted together");
    let (_, lines) = other.get(&site.root, "/audit?author=ann&object=&limit=3").await;
    assert_eq!(lines.as_array().unwrap().len(), 3);
    let less = json!({"role": "viewer"});
    assert_eq!(other.call(&site.root, Method::PUT, "/users/admin", less).await.0, 409);
    other.browse(Method::POST, "/logout", &session, "").await;
    assert_eq!(site.browse(Method::GET, "/account", &session, "").await.0, StatusCode::SEE_OTHER);
    assert_eq!(other.call(&site.root, Method::DELETE, "/users/ann", Value::Null).await.0, 204);
    assert_eq!(site.get(&ann, "/me").await.0, 401);
}
