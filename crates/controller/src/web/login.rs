//! Logging in and out, the first password; and what every other page passes
//! before: a session, a role, a form of our own.
//!
//! A session is in a cookie that scripts cannot read, other sites cannot use and other hosts cannot
//! set (`__Host-`). Forms carry no token against forgery: browsers say of which site a form is, and
//! the cookie is sent by our own pages only (`SameSite=Strict`).

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::{Trouble, html, of_ours};
use crate::access::guard::{DryRun, address, audit, outcome, route};
use crate::access::oidc::OidcError;
use crate::access::permit::need_of_page;
use crate::access::{
    AccessError, Caller, LINK_LIFE, Refused, hash, limits, link_holds, password, random_hex,
};
use crate::body;
use crate::db::OidcStateRow;
use crate::fleet::Fleet;

/// Browsers take it with `Secure`, for this host and the whole of it only.
const COOKIE: &str = "__Host-eve_session";
/// For a log-in by a provider, while it is under way.
const TRY: &str = "__Host-eve_try";
const FLAGS: &str = "Path=/; HttpOnly; Secure; SameSite=Strict";
/// These forms hold a name and a password.
const FORM_MAX: model::Bytes = model::Bytes::kib(8);

/// Pages for who is not logged in yet, or wants to be no longer.
pub(super) fn open_routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .route("/first/{secret}", get(first_page).post(first))
        .route("/oidc/login", get(oidc_login))
        .route("/oidc/callback", get(oidc_callback))
}

/// The secret of the session that a browser shows.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

fn cookie<'a>(headers: &'a HeaderMap, which: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';'))
        .filter_map(|c| c.trim().split_once('='))
        .find_map(|(name, value)| (name == which).then_some(value))
}

/// Logs a browser in, and sends it to the pages.
pub(super) async fn enter(
    fleet: &Fleet,
    owner: &str,
    most: (crate::access::Role, crate::access::Projects),
) -> Result<Response, Trouble> {
    let session = fleet.access.begin_session(owner, most, fleet.now()).await?;
    let cookie = format!("{COOKIE}={session}; {FLAGS}");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

impl From<AccessError> for Trouble {
    fn from(e: AccessError) -> Trouble {
        match e {
            AccessError::NoUser(_) => Trouble::Missing,
            e => Trouble::Own(model::chain(&e)),
        }
    }
}

/// Lets through whose session is good for what is asked.
pub(super) async fn with_session(
    State(fleet): State<Arc<Fleet>>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = address(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let look = [Method::GET, Method::HEAD].contains(&method);
    if !look && let Err(trouble) = of_ours(request.headers()) {
        return trouble.into_response();
    }
    let found = match session(request.headers()) {
        Some(session) => fleet.access.by_session(session, fleet.now()).await,
        None => Ok(None),
    };
    let caller = match found {
        Ok(Some(caller)) => Caller { address, ..caller },
        Ok(None) => return Trouble::Login.into_response(),
        Err(e) => return Trouble::from(e).into_response(),
    };
    if let Err(time) = fleet.access.may_call(&caller) {
        return come_again(time, "Too many requests");
    }
    let Some(asked) = route(&request, "").map(|route| need_of_page(&method, &route)) else {
        return Trouble::Missing.into_response();
    };
    let name = caller.name.clone();
    let refused = if caller.role < asked.role {
        let (has, needs) = (caller.role, asked.role);
        Some(format!("You are {name}, with the role {has}. This needs the role {needs}."))
    } else if !caller.projects.all() && path == "/" {
        return Redirect::to("/account").into_response();
    } else if !caller.projects.all() && !asked.in_projects {
        Some(format!("You are {name}, limited to projects. This page is about all of them."))
    } else {
        None
    };
    let response = match refused {
        Some(why) => html(StatusCode::FORBIDDEN, message("Not for you", &why)),
        // As if it were not there: what others have is not told.
        None if !crate::access::guard::covered(&fleet, &caller, &path) => {
            Trouble::Missing.into_response()
        }
        None => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    if !look || response.status() == StatusCode::FORBIDDEN {
        let dry_run = response.extensions().get::<DryRun>().is_some();
        let outcome = outcome(response.status(), dry_run);
        audit(&fleet, &name, &method, &path, &outcome, address).await;
    }
    response
}

pub(super) fn come_again(wait: std::time::Duration, title: &str) -> Response {
    let seconds = limits::seconds(wait);
    let text = message(title, &format!("Please try again in {seconds} s."));
    let mut response = html(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The fields of a form, as browsers send them (`application/x-www-form-urlencoded`).
struct Form(Vec<(String, String)>);

impl Form {
    async fn read(headers: &HeaderMap, body: Body) -> Form {
        let bytes = body::read(headers, body, FORM_MAX).await.unwrap_or_default();
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let fields = text.split('&').filter_map(|f| f.split_once('='));
        Form(fields.map(|(name, value)| (plain(name), plain(value))).collect())
    }

    fn field(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

fn plain(text: &str) -> String {
    crate::access::guard::unescaped(&text.replace('+', " "))
}

async fn login_page(State(fleet): State<Arc<Fleet>>) -> Response {
    html(StatusCode::OK, login_form(&fleet, None))
}

async fn login(State(fleet): State<Arc<Fleet>>, request: Request) -> Result<Response, Trouble> {
    let address = address(&request);
    let (head, body) = request.into_parts();
    of_ours(&head.headers)?;
    let form = Form::read(&head.headers, body).await;
    let now = fleet.now();
    let token: String = form.field("token").split_whitespace().collect();
    if !token.is_empty() {
        if let Err(time) = fleet.access.may_be_refused(address) {
            return Ok(come_again(time, "Too many log-ins"));
        }
        let Some(caller) = fleet.access.by_token(&token, now).await? else {
            fleet.access.note("(unknown)", "login", "", "refused: token", address, now).await?;
            let text = login_form(&fleet, Some("Nobody has this token, or it has ended."));
            return Ok(html(StatusCode::UNAUTHORIZED, text));
        };
        fleet.access.note(&caller.name, "login", "with a token", "done", address, now).await?;
        return enter(&fleet, &caller.name, (caller.role, caller.projects)).await;
    }
    match fleet.access.log_in(form.field("name"), form.field("password"), address, now).await {
        Ok(user) => enter(&fleet, &user.name, (user.role, user.projects)).await,
        Err(Refused::Wrong) => {
            let text = login_form(&fleet, Some("The name or the password is wrong."));
            Ok(html(StatusCode::UNAUTHORIZED, text))
        }
        Err(Refused::Wait(time)) => Ok(come_again(time, "Too many log-ins failed")),
        Err(Refused::Own(e)) => Err(e.into()),
    }
}

async fn logout(State(fleet): State<Arc<Fleet>>, headers: HeaderMap) -> Result<Response, Trouble> {
    of_ours(&headers)?;
    if let Some(session) = session(&headers) {
        fleet.db.end_session(&hash(session)).await?;
    }
    let cookie = format!("{COOKIE}=; Max-Age=0; {FLAGS}");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// What came back from a provider.
#[derive(Debug, Deserialize)]
struct Back {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: String,
}

fn without_provider() -> Response {
    let why = "No provider is set up here (`eve controller serve --oidc-issuer`).";
    html(StatusCode::NOT_FOUND, message("No provider", why))
}

/// Where a provider sends people back to: this controller, by the name they know it by.
fn redirect(fleet: &Fleet, headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok())?;
    fleet.is_our_name(host).then(|| format!("https://{host}/oidc/callback"))
}

async fn oidc_login(
    State(fleet): State<Arc<Fleet>>,
    request: Request,
) -> Result<Response, Trouble> {
    let Some(oidc) = &fleet.access.oidc else { return Ok(without_provider()) };
    if let Err(time) = fleet.access.may_be_refused(address(&request)) {
        return Ok(come_again(time, "Too many log-ins"));
    }
    let Some(redirect) = redirect(&fleet, request.headers()) else {
        let why = "This controller is not known by that name (`eve controller serve --name`).";
        return Ok(html(StatusCode::BAD_REQUEST, message("Another name", why)));
    };
    let (state, nonce, verifier) = (secret()?, secret()?, secret()?);
    let url = match oidc.begin(&state, &nonce, &verifier, &redirect).await {
        Ok(url) => url,
        Err(e) => return Ok(provider_failed(&e)),
    };
    let row = OidcStateRow { nonce, verifier, made: fleet.now() };
    fleet.db.add_oidc_state(&hash(&state), &row).await?;
    // Lax: the provider's page sends the browser back. It holds nothing but this one try.
    let life = LINK_LIFE.as_secs();
    let cookie = format!("{TRY}={state}; Max-Age={life}; Path=/; HttpOnly; Secure; SameSite=Lax");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&url)).into_response())
}

fn secret() -> Result<String, Trouble> {
    Ok(random_hex().map_err(AccessError::from)?)
}

fn provider_failed(e: &OidcError) -> Response {
    let why = model::chain(e);
    tracing::warn!("log-in by the provider: {why}");
    html(StatusCode::BAD_GATEWAY, message("The provider did not log you in", &why))
}

async fn oidc_callback(
    State(fleet): State<Arc<Fleet>>,
    Query(back): Query<Back>,
    request: Request,
) -> Result<Response, Trouble> {
    let Some(oidc) = &fleet.access.oidc else { return Ok(without_provider()) };
    let (address, now) = (address(&request), fleet.now());
    let same = cookie(request.headers(), TRY).is_some_and(|t| t == back.state);
    let row = match same {
        true => fleet.db.take_oidc_state(&hash(&back.state)).await?,
        false => None,
    };
    let redirect = redirect(&fleet, request.headers());
    let (Some(row), Some(redirect)) = (row.filter(|r| link_holds(r.made, now)), redirect) else {
        let why = "This log-in was begun elsewhere, was used already, or took too long. Try again.";
        return Ok(html(StatusCode::BAD_REQUEST, message("Not logged in", why)));
    };
    if !back.error.is_empty() {
        let said: String = back.error.chars().take(100).collect();
        return Ok(provider_failed(&OidcError::Refused(said)));
    }
    let found = oidc.finish(&back.code, &row.nonce, &row.verifier, &redirect, now).await;
    let user = match found {
        Ok(identity) => fleet.access.welcome(identity, now).await?,
        Err(e) => {
            let outcome = format!("refused: {e}");
            fleet
                .access
                .note("(unknown)", "login", "by a provider", &outcome, address, now)
                .await?;
            return Ok(provider_failed(&e));
        }
    };
    fleet.access.note(&user.name, "login", "by a provider", "done", address, now).await?;
    let session = fleet.access.begin_session(&user.name, (user.role, user.projects), now).await?;
    // A page of ours in between: of a redirect from elsewhere, browsers send no strict cookie.
    let text = "<meta http-equiv=\"refresh\" content=\"0; url=/\"><p><a href=\"/\">Go on</a></p>";
    let mut response = html(StatusCode::OK, page("Logged in", text));
    for cookie in [
        format!("{COOKIE}={session}; {FLAGS}"),
        format!("{TRY}=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax"),
    ] {
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    Ok(response)
}

/// Whose link this is, if it is still good.
async fn linked(fleet: &Fleet, secret: &str) -> Result<Option<String>, Trouble> {
    let found = fleet.db.link(&hash(secret)).await?;
    Ok(found.filter(|(_, made)| link_holds(*made, fleet.now())).map(|(name, _)| name))
}

fn no_link() -> Response {
    let minutes = LINK_LIFE.as_secs() / 60;
    let text = format!(
        "This link was used already, or is older than {minutes} minutes. `eve controller link` \
         on the controller's machine prints another one."
    );
    html(StatusCode::NOT_FOUND, message("This link has ended", &text))
}

/// Looking at a link does not use it up: messengers and browsers look ahead.
async fn first_page(
    State(fleet): State<Arc<Fleet>>,
    Path(secret): Path<String>,
) -> Result<Response, Trouble> {
    Ok(match linked(&fleet, &secret).await? {
        Some(name) => html(StatusCode::OK, first_form(&name, None)),
        None => no_link(),
    })
}

async fn first(
    State(fleet): State<Arc<Fleet>>,
    Path(secret): Path<String>,
    request: Request,
) -> Result<Response, Trouble> {
    let address = address(&request);
    let (head, body) = request.into_parts();
    of_ours(&head.headers)?;
    let form = Form::read(&head.headers, body).await;
    let Some(name) = linked(&fleet, &secret).await? else { return Ok(no_link()) };
    let new = form.field("password");
    let problem = match password::check(&name, new) {
        Err(e) => Some(e.to_string()),
        Ok(()) if form.field("again") != new => Some("the two passwords differ".to_owned()),
        Ok(()) => None,
    };
    if let Some(problem) = problem {
        return Ok(html(StatusCode::UNPROCESSABLE_ENTITY, first_form(&name, Some(&problem))));
    }
    // Of two who send the form at once, one has the link.
    if !fleet.db.take_link(&hash(&secret)).await? {
        return Ok(no_link());
    }
    fleet.access.set_password(&name, new).await?;
    let now = fleet.now();
    fleet.access.note(&name, "login", "by a link; password set", "done", address, now).await?;
    let Some(user) = fleet.db.user(&name).await? else { return Ok(no_link()) };
    enter(&fleet, &user.name, (user.role, user.projects)).await
}

/// A text inside HTML.
struct E<T>(T);

impl<T: Display> Display for E<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0} · EVE</title><link rel=\"icon\" href=\"/icon.svg\">\
         <link rel=\"stylesheet\" href=\"/style.css\"></head>\
         <body><main class=\"door\"><div class=\"card\"><h1>{0}</h1>{body}</div></main></body></html>",
        E(title)
    )
}

fn message(title: &str, text: &str) -> String {
    page(title, &format!("<p>{}</p><p><a href=\"/\">Back</a></p>", E(text)))
}

fn problem(text: Option<&str>) -> String {
    text.map(|p| format!("<p class=\"problem\" role=\"alert\">{}</p>", E(p))).unwrap_or_default()
}

fn login_form(fleet: &Fleet, wrong: Option<&str>) -> String {
    let provider = match fleet.access.oidc {
        Some(_) => {
            "<p><a class=\"button\" href=\"/oidc/login\">Log in with your organisation</a></p>"
        }
        None => "",
    };
    let body = format!(
        "{}{provider}<form method=\"post\" action=\"/login\">\
         <label for=\"name\">Name</label>\
         <input id=\"name\" name=\"name\" autocomplete=\"username\" required autofocus>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" name=\"password\" type=\"password\" \
         autocomplete=\"current-password\" required><button>Log in</button></form>\
         <details><summary>With a token</summary><form method=\"post\" action=\"/login\">\
         <label for=\"token\">Token</label><input id=\"token\" name=\"token\" type=\"password\" \
         autocomplete=\"off\" required><button>Log in</button></form>\
         <p class=\"soft\">The administrator's is in the file <code>admin.token</code> of the \
         controller's data folder; <code>eve controller link</code> there prints a link to choose \
         a password with.</p></details>",
        problem(wrong)
    );
    page("EVE controller", &body)
}

/// Two fields for a new password.
fn new_password() -> String {
    format!(
        "<label for=\"password\">New password, {} letters or more</label>\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"new-password\" \
         minlength=\"{0}\" required><label for=\"again\">The same again</label>\
         <input id=\"again\" name=\"again\" type=\"password\" autocomplete=\"new-password\" required>",
        password::LENGTH_MIN
    )
}

fn first_form(name: &str, wrong: Option<&str>) -> String {
    let body = format!(
        "<p>You are <b>{0}</b>. Choose the password to log in with from now on.</p>{1}\
         <form method=\"post\"><input type=\"hidden\" name=\"name\" value=\"{0}\" \
         autocomplete=\"username\">{2}<button>Set the password and log in</button></form>",
        E(name),
        problem(wrong),
        new_password()
    );
    page("Welcome", &body)
}
