//! Users, tokens, log-in and the audit log: calls of the operator API.
//!
//! | Call | Does |
//! |---|---|
//! | POST `/login` | a token for a name and a password; the only call without a token |
//! | GET `/me` | who asks |
//! | DELETE `/me` | ends the token that asks |
//! | POST `/me/password` | changes one's own password; ends all sessions |
//! | GET, POST `/me/tokens`, DELETE `/me/tokens/{token}` | one's own tokens |
//! | GET `/users`, GET, PUT, DELETE `/users/{user}` | users |
//! | POST `/users/{user}/password` | gives one a new password |
//! | POST `/users/{user}/link` | a link by which one chooses a password, good once |
//! | GET, POST `/users/{user}/tokens`, DELETE `/users/{user}/tokens/{token}` | tokens of one |
//! | GET `/audit?author=…&action=…&object=…&address=…&after=…&since=…&until=…&limit=…` | the audit log |
//! | GET `/audit/export` | the same as JSON lines, without a bound |

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::channel::Channel;
use serde::de::DeserializeOwned;

use super::{Failed, ROWS_DEFAULT, ROWS_MAX, failed};
use crate::access::guard::{address, wait};
use crate::access::password::PasswordError;
use crate::access::shown::{
    Link, Login, MadeToken, Me, NewPassword, Token, TokenSpec, User, UserSpec,
};
use crate::access::{
    AccessError, Caller, LINK_LIFE, Projects, Refused, Role, is_name, new_link, told,
};
use crate::body;
use crate::db::{AuditFilter, AuditRow, UserChange, UserRow};
use crate::fleet::Fleet;

/// A document of these calls holds a few names.
const DOCUMENT_MAX: model::Bytes = model::Bytes::kib(16);
/// Lines of the audit log that are read from the database at once.
const EXPORT_ROWS: u32 = 1000;

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/me", get(me).delete(log_out))
        .route("/me/password", post(my_password))
        .route("/me/tokens", get(my_tokens).post(make_mine))
        .route("/me/tokens/{token}", delete(end_mine))
        .route("/users", get(users))
        .route("/users/{user}", get(user).put(set_user).delete(delete_user))
        .route("/users/{user}/password", post(password))
        .route("/users/{user}/link", post(link))
        .route("/users/{user}/tokens", get(tokens).post(make_token))
        .route("/users/{user}/tokens/{token}", delete(end_token))
        .route("/audit", get(audit))
        .route("/audit/export", get(export))
}

/// What is asked before there is a token.
pub(super) fn open_routes() -> Router<Arc<Fleet>> {
    Router::new().route("/login", post(log_in))
}

impl From<AccessError> for Failed {
    fn from(e: AccessError) -> Failed {
        let status = match &e {
            AccessError::Password(PasswordError::Random(_) | PasswordError::Hash(_))
            | AccessError::Db(_)
            | AccessError::File(_)
            | AccessError::Oidc(_)
            | AccessError::Random(_) => StatusCode::SERVICE_UNAVAILABLE,
            AccessError::Password(_) => StatusCode::UNPROCESSABLE_ENTITY,
            AccessError::NoUser(_) => StatusCode::NOT_FOUND,
        };
        failed(status, model::chain(&e))
    }
}

async fn document<T: DeserializeOwned>(request: Request) -> Result<T, Failed> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, DOCUMENT_MAX)
        .await
        .map_err(|status| failed(status, format!("more than {DOCUMENT_MAX} of JSON")))?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, e))
}

fn no_user(name: &str) -> Failed {
    failed(StatusCode::NOT_FOUND, format!("there is no user {name}"))
}

fn done(change: UserChange, user: &str, token: Option<&str>) -> Result<StatusCode, Failed> {
    match (change, token) {
        (UserChange::Done, _) => Ok(StatusCode::NO_CONTENT),
        (UserChange::Missing, None) => Err(no_user(user)),
        (UserChange::Missing, Some(token)) => {
            Err(failed(StatusCode::NOT_FOUND, format!("user {user} has no token {token}")))
        }
        (UserChange::Exists, None) => {
            Err(failed(StatusCode::CONFLICT, format!("there is a user {user} already")))
        }
        (UserChange::Exists, Some(token)) => {
            Err(failed(StatusCode::CONFLICT, format!("user {user} has a token {token} already")))
        }
        (UserChange::LastAdmin, _) => Err(failed(
            StatusCode::CONFLICT,
            format!("{user} is the last administrator of all projects; make another one first"),
        )),
    }
}

async fn log_in(State(fleet): State<Arc<Fleet>>, request: Request) -> Result<Response, Failed> {
    let address = address(&request);
    let login: Login = document(request).await?;
    check_token(&login.token)?;
    let now = fleet.now();
    let user = match fleet.access.log_in(&login.name, &login.password, address, now).await {
        Ok(user) => user,
        Err(Refused::Wait(time)) => return Ok(wait(time)),
        Err(Refused::Own(e)) => return Err(e.into()),
        Err(e @ Refused::Wrong) => return Err(failed(StatusCode::UNAUTHORIZED, e)),
    };
    let spec = &login.token;
    let role = spec.role.unwrap_or(user.role).min(user.role);
    let made =
        fleet.access.make_token(&user.name, spec, (role, spec.projects.clone()), true, now).await?;
    let made = made.ok_or_else(|| failed(StatusCode::CONFLICT, "log in again"))?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

async fn me(caller: Caller) -> Json<Me> {
    let Caller { name, role, projects, token, .. } = caller;
    Json(Me { name, role, projects, token })
}

async fn log_out(State(fleet): State<Arc<Fleet>>, caller: Caller) -> Result<StatusCode, Failed> {
    fleet.db.end_token(&caller.credential).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn my_password(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failed> {
    let new: NewPassword = document(request).await?;
    let now = fleet.now();
    match fleet.access.log_in(&caller.name, &new.old, caller.address, now).await {
        Ok(_) => {}
        Err(Refused::Wait(time)) => return Ok(wait(time)),
        Err(Refused::Own(e)) => return Err(e.into()),
        Err(Refused::Wrong) => {
            return Err(failed(StatusCode::FORBIDDEN, "old: this is not the password of today"));
        }
    }
    let change = fleet.access.set_password(&caller.name, &new.new).await?;
    done(change, &caller.name, None).map(IntoResponse::into_response)
}

async fn my_tokens(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Json<Vec<Token>>, Failed> {
    Ok(Json(fleet.db.tokens(&caller.name).await?.into_iter().map(told).collect()))
}

/// Tokens that a token makes can do no more than it.
async fn make_mine(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<MadeToken>), Failed> {
    let spec: TokenSpec = document(request).await?;
    let owner = caller.name.clone();
    made(&fleet, &owner, &spec, (caller.role, caller.projects)).await
}

async fn end_mine(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Failed> {
    done(fleet.db.delete_token(&caller.name, &token).await?, &caller.name, Some(&token))
}

fn check_token(spec: &TokenSpec) -> Result<(), Failed> {
    if !is_name(&spec.name) {
        let why = "name: 1 to 64 letters without spaces and `/`";
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    if spec.hours == Some(0) {
        let why = "hours: the token would end at once; give 1 or more, or none for ever";
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    Ok(())
}

async fn made(
    fleet: &Fleet,
    owner: &str,
    spec: &TokenSpec,
    (most, within): (Role, Projects),
) -> Result<(StatusCode, Json<MadeToken>), Failed> {
    check_token(spec)?;
    let role = spec.role.unwrap_or(most);
    if role > most {
        let why = format!("role: {role} is more than the {most} of its maker and its user");
        return Err(failed(StatusCode::FORBIDDEN, why));
    }
    let Some(projects) = spec.projects.both(&within) else {
        let why = "projects: none of them is its maker's and its user's";
        return Err(failed(StatusCode::FORBIDDEN, why));
    };
    let made = fleet.access.make_token(owner, spec, (role, projects), false, fleet.now()).await?;
    match made {
        Some(made) => Ok((StatusCode::CREATED, Json(made))),
        None => Err(failed(
            StatusCode::CONFLICT,
            format!("user {owner} has a token {} already", spec.name),
        )),
    }
}

fn shown(row: UserRow) -> User {
    User {
        name: row.name,
        role: row.role,
        projects: row.projects,
        password: row.password.is_some(),
        provider: row.identity.map(|(issuer, _)| issuer),
        created: row.created,
    }
}

async fn users(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<User>>, Failed> {
    Ok(Json(fleet.db.users().await?.into_iter().map(shown).collect()))
}

async fn user(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<User>, Failed> {
    let row = fleet.db.user(&name).await?;
    row.map(|r| Json(shown(r))).ok_or_else(|| no_user(&name))
}

async fn set_user(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Failed> {
    put_user(&fleet, &name, document(request).await?).await
}

/// Makes a user, or gives one another role and other projects.
pub(crate) async fn put_user(
    fleet: &Fleet,
    name: &str,
    spec: UserSpec,
) -> Result<StatusCode, Failed> {
    let why = if !is_name(name) {
        Some("name: 1 to 64 letters without spaces and `/`")
    } else if spec.projects.0.iter().any(|p| p.is_empty() || p.contains(char::is_control)) {
        Some("projects: a name is empty or holds a line break")
    } else {
        None
    };
    if let Some(why) = why {
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    match fleet.db.set_role(name, spec.role, &spec.projects).await? {
        UserChange::Missing => {}
        change => return done(change, name, None),
    }
    let row = UserRow {
        name: name.to_owned(),
        role: spec.role,
        projects: spec.projects,
        password: None,
        identity: None,
        created: fleet.now(),
    };
    match fleet.db.add_user(&row).await? {
        UserChange::Done => Ok(StatusCode::CREATED),
        change => done(change, name, None),
    }
}

async fn delete_user(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    done(fleet.db.delete_user(&name).await?, &name, None)
}

async fn password(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Failed> {
    let new: NewPassword = document(request).await?;
    done(fleet.access.set_password(&name, &new.new).await?, &name, None)
}

async fn link(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Link>), Failed> {
    let path = new_link(&fleet.db, &name, fleet.now()).await?;
    let minutes = u32::try_from(LINK_LIFE.as_secs() / 60).unwrap_or(0);
    Ok((StatusCode::CREATED, Json(Link { path, minutes })))
}

async fn tokens(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Token>>, Failed> {
    if fleet.db.user(&name).await?.is_none() {
        return Err(no_user(&name));
    }
    Ok(Json(fleet.db.tokens(&name).await?.into_iter().map(told).collect()))
}

async fn make_token(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<MadeToken>), Failed> {
    let spec: TokenSpec = document(request).await?;
    let user = fleet.db.user(&name).await?.ok_or_else(|| no_user(&name))?;
    made(&fleet, &name, &spec, (user.role, user.projects)).await
}

async fn end_token(
    State(fleet): State<Arc<Fleet>>,
    Path((name, token)): Path<(String, String)>,
) -> Result<StatusCode, Failed> {
    done(fleet.db.delete_token(&name, &token).await?, &name, Some(&token))
}

async fn audit(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<AuditFilter>,
) -> Result<Json<Vec<AuditRow>>, Failed> {
    let limit = which.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
    Ok(Json(fleet.db.audit_lines(&which, limit).await?))
}

/// Reads page after page while the lines go out: the log may be longer than memory is.
async fn export(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<AuditFilter>,
) -> Result<Response, Failed> {
    let newest = fleet.db.audit_lines(&AuditFilter::default(), 1).await?;
    let end = newest.last().map_or(0, |row| row.id);
    let (mut sender, channel) = Channel::<Bytes, std::io::Error>::new(2);
    tokio::spawn(async move {
        let mut which = which;
        loop {
            // What is written meanwhile is not waited for.
            let lines = match fleet.db.audit_page(&which, end, true, EXPORT_ROWS).await {
                Ok(lines) => lines,
                Err(e) => return sender.abort(std::io::Error::other(model::chain(&e))),
            };
            let Some(last) = lines.last() else { return };
            which.after = last.id;
            let text = lines.iter().filter_map(|l| serde_json::to_string(l).ok());
            let text: String = text.map(|l| l + "\n").collect();
            if sender.send_data(Bytes::from(text)).await.is_err() {
                return;
            }
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "application/jsonl"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(channel)).into_response())
}
