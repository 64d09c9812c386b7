//! One's own account: the password, tokens, and the nodes of who is limited to projects.

use std::sync::Arc;

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::frame::{self, Page, empty, when, when_if};
use super::login::{come_again, enter};
use super::{Caller, Trouble, html as page_of, to};
use crate::access::{Refused, password};
use crate::fleet::Fleet;
use crate::objects::Kind;

pub(super) async fn page(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Response, Trouble> {
    show(&fleet, &caller, StatusCode::OK, None).await
}

async fn show(
    fleet: &Fleet,
    caller: &Caller,
    status: StatusCode,
    wrong: Option<&str>,
) -> Result<Response, Trouble> {
    let kept = fleet.db.user(&caller.name).await?.and_then(|u| u.password);
    let part = html! {
        @if !caller.projects.all() { (nodes(fleet, caller)) }
        (tokens(fleet, caller).await?)
        @if kept.is_some() { (password_form(&caller.name, wrong)) }
    };
    let words = format!("You are {}, with the role {}.", caller.name, caller.role.name());
    let head = frame::head(&[], "Your account", &words, &Markup::default());
    let page = Page { who: caller, title: "Your account", way: "/account", head, live: None, part };
    Ok(page_of(status, page.whole()))
}

fn nodes(fleet: &Fleet, caller: &Caller) -> Markup {
    let known = fleet.known();
    let own = known.of_kind(Kind::Device).filter(|d| caller.covers(d));
    let own: Vec<&str> = own.map(|d| d.object.key.name.as_str()).collect();
    let projects: Vec<&str> = caller.projects.0.iter().map(String::as_str).collect();
    html! {
        section.card {
            h2 { "Your nodes" }
            p.soft { "Those of " (projects.join(", ")) "." }
            @if own.is_empty() { (empty("None of them has a node", "An administrator puts nodes into projects.", None)) }
            ul.plain { @for name in own { li { a.name href={ "/devices/" (name) } { (name) } } } }
        }
    }
}

async fn tokens(fleet: &Fleet, caller: &Caller) -> Result<Markup, Trouble> {
    let (all, now) = (fleet.db.tokens(&caller.name).await?, fleet.now());
    Ok(html! {
        section.card {
            h2 { "Tokens" }
            @if all.is_empty() { (empty("You have no token", "Programs log in with one: eve token create NAME makes it.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Token" } th scope="col" { "Role" } th scope="col" { "Ends" } th scope="col" { "Last used" } th scope="col" { span.hidden { "Act" } } } }
                    tbody { @for token in &all { tr {
                        td data-of="" { b { (token.name) } }
                        td data-of="Role" { (token.role.name()) }
                        td.tight data-of="Ends" { @match token.ends { Some(at) => (crate::words::time(at)), None => span.soft { "never" } } }
                        td.tight data-of="Last used" { @if let Some(at) = token.used { (when(now, at)) } @else { (when_if(now, None)) } }
                        td.tight data-of="" { form.inline method="post" action="/account/tokens/end" {
                            input type="hidden" name="name" value=(token.name);
                            button.risky aria-label={ "End the token " (token.name) } { "End" }
                        } }
                    } } }
                } }
                p.hint { code { "eve token create NAME" } " makes another one." }
            }
        }
    })
}

fn password_form(name: &str, wrong: Option<&str>) -> Markup {
    html! {
        section.card {
            h2 { "Password" }
            @if let Some(wrong) = wrong { p.note.bad role="alert" { (wrong) } }
            form method="post" action="/account/password" {
                input type="hidden" name="name" value=(name) autocomplete="username";
                div.field { label for="old" { "Password of today" } input #old name="old" type="password" autocomplete="current-password" required; }
                div.field {
                    label for="password" { "New password, " (password::LENGTH_MIN) " letters or more" }
                    input #password name="password" type="password" autocomplete="new-password" minlength=(password::LENGTH_MIN) required;
                }
                div.field { label for="again" { "The same again" } input #again name="again" type="password" autocomplete="new-password" required; }
                button { "Change it, and log out everywhere else" }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct NewPassword {
    old: String,
    password: String,
    again: String,
}

pub(super) async fn change_password(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(form): Form<NewPassword>,
) -> Result<Response, Trouble> {
    let now = fleet.now();
    let problem = match password::check(&caller.name, &form.password) {
        Err(e) => e.to_string(),
        Ok(()) if form.again != form.password => "the two passwords differ".to_owned(),
        Ok(()) => match fleet.access.log_in(&caller.name, &form.old, caller.address, now).await {
            Ok(_) => {
                fleet.access.set_password(&caller.name, &form.password).await?;
                return enter(&fleet, &caller.name, (caller.role, caller.projects)).await;
            }
            Err(Refused::Wait(time)) => return Ok(come_again(time, "Too many wrong passwords")),
            Err(Refused::Own(e)) => return Err(e.into()),
            Err(Refused::Wrong) => "this is not your password of today".to_owned(),
        },
    };
    show(&fleet, &caller, StatusCode::UNPROCESSABLE_ENTITY, Some(&problem)).await
}

#[derive(Deserialize)]
pub(super) struct Which {
    name: String,
}

pub(super) async fn end_token(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(Which { name }): Form<Which>,
) -> Result<Response, Trouble> {
    fleet.db.delete_token(&caller.name, &name).await?;
    Ok(to("/account"))
}
