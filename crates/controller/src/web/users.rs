//! Who may log in: for administrators.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::frame::{self, Page, when};
use super::{Caller, Trouble, html as page_of, to};
use crate::access::shown::UserSpec;
use crate::access::{LINK_LIFE, Projects, Role, new_link};
use crate::db::UserChange;
use crate::fleet::Fleet;
use crate::operator::put_user_as;
use axum::http::StatusCode;

pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Response, Trouble> {
    show(&fleet, &caller, &Markup::default()).await
}

async fn show(fleet: &Fleet, caller: &Caller, said: &Markup) -> Result<Response, Trouble> {
    let users = fleet.db.users().await?;
    let now = fleet.now();
    let part = html! {
        (said)
        // No part that scrolls: it would cut off the menus.
        div.card { table.stack {
            thead { tr {
                th scope="col" { "User" } th scope="col" { "Logs in by" } th scope="col" { "Made" }
                th scope="col" { "Role and projects" } th scope="col" { span.hidden { "Act" } }
            } }
            tbody {
                @for user in &users {
                    @let projects: Vec<&str> = user.projects.0.iter().map(String::as_str).collect();
                    tr {
                        td data-of="" { b { (user.name) } @if user.name == caller.name { span.soft { " (you)" } } }
                        td data-of="Logs in by" {
                            @match (&user.identity, user.password.is_some()) {
                                (Some((issuer, _)), _) => (issuer),
                                (None, true) => "password",
                                (None, false) => span.soft { "nothing yet: make a link" },
                            }
                        }
                        td.tight data-of="Made" { @if user.created.0 == 0 { "with the controller" } @else { (when(now, user.created)) } }
                        td data-of="May" { form.actions method="post" action="/users" {
                            input type="hidden" name="name" value=(user.name);
                            (role(user.role, &format!("Role of {}", user.name)))
                            input name="projects" value=(projects.join(", ")) placeholder="all projects" size="14" aria-label={ "Projects of " (user.name) };
                            button aria-label={ "Change " (user.name) } { "Change" }
                        } }
                        td data-of="" { details.menu {
                            summary { "Act" }
                            div {
                                form method="post" action={ "/users/" (user.name) "/link" } { p { "A link by which they choose a new password; it is good once." } button { "Link for " (user.name) } }
                                form method="post" action={ "/users/" (user.name) "/delete" } { p { "They are logged out and their tokens end." } button.risky { "Delete " (user.name) } }
                            }
                        } }
                    }
                }
            }
        } }
    };
    let head = html! {
        (frame::head(&[], "Users", "Viewers look, operators change objects and drive nodes, administrators do everything.", &Markup::default()))
        form.filters method="post" action="/users" {
            div.wide { label for="name" { "New user" } input #name name="name" required maxlength="64" autocomplete="off"; }
            div { label for="role" { "Role" } select #role name="role" { @for role in Role::ALL { option value=(role.name()) { (role.name()) } } } }
            div { label for="projects" { "Projects" } input #projects name="projects" placeholder="all" autocomplete="off"; }
            button { "Add" }
        }
    };
    let page = Page { who: caller, title: "Users", way: "/users", head, live: None, part };
    Ok(page_of(StatusCode::OK, page.whole()))
}

fn role(chosen: Role, label: &str) -> Markup {
    html! {
        select name="role" aria-label=(label) {
            @for role in Role::ALL { option value=(role.name()) selected[role == chosen] { (role.name()) } }
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NewUser {
    name: String,
    role: String,
    #[serde(default)]
    projects: String,
}

pub(super) async fn put(
    State(fleet): State<Arc<Fleet>>,
    Form(new): Form<NewUser>,
) -> Result<Response, Trouble> {
    let role = new.role.parse::<Role>().map_err(Trouble::Refused)?;
    let names = new.projects.split(',').map(str::trim).filter(|p| !p.is_empty());
    let projects = Projects(names.map(str::to_owned).collect());
    put_user_as(&fleet, new.name.trim(), UserSpec { role, projects }).await?;
    Ok(to("/users"))
}

pub(super) async fn link(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let path = new_link(&fleet.db, &name, fleet.now()).await?;
    let minutes = LINK_LIFE.as_secs() / 60;
    let said = html! {
        div.note.good role="status" {
            b { "Give this to " (name) ": " } code { (path) }
            p { "Below this controller's address; it sets a password, is good once and for " (minutes) " minutes, and is not shown again." }
        }
    };
    show(&fleet, &caller, &said).await
}

pub(super) async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Response, Trouble> {
    match fleet.db.delete_user(&name).await? {
        UserChange::Done => Ok(to("/users")),
        UserChange::LastAdmin => {
            let why = "This is the last administrator of all projects; make another one first.";
            Err(Trouble::Refused(why.to_owned()))
        }
        UserChange::Missing | UserChange::Exists => Err(Trouble::Missing),
    }
}
