//! Which role a request needs: one table for the operator API and the pages.
//!
//! What stands in no row needs an operator to change and anybody to look, and is closed to who is
//! limited to projects: a new call is never open by accident.

use axum::http::Method;

use super::Role;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) role: Role,
    /// Whether it is also for who is limited to projects: then it shows and changes only what is
    /// theirs.
    pub(crate) in_projects: bool,
}

/// Calls and pages for administrators, with all below them.
const ADMIN: &[&str] = &[
    "/users",
    "/audit",
    "/backup",
    "/backups",
    "/restore",
    "/retention",
    "/certificates",
    "/blobs",
    "/escrow",
    "/admin",
];

/// What asks who is limited to projects for nothing but their own.
const IN_PROJECTS: &[&str] = &[
    "/devices",
    "/devices/{name}",
    "/devices/{name}/restart",
    "/devices/{name}/shutdown",
    "/devices/{name}/attest",
    "/devices/{name}/resend",
    "/devices/{name}/quarantine",
    "/devices/{name}/edgeview",
    "/apps",
    "/apps/{name}",
    "/apps/{name}/restart",
    "/apps/{name}/purge",
    "/networks",
    "/networks/{name}",
    "/objects",
    "/objects/{kind}/{name}",
    "/logs",
];

/// Calls that may show a password: a config that somebody wrote whole, in clear as they wrote it.
const WITH_SECRETS: &[&str] = &["/devices/{name}/config"];

/// Pages that show who is limited to projects nothing but their own.
const PAGES_IN_PROJECTS: &[&str] = &[
    "/devices/{name}",
    "/devices/{name}/restart",
    "/devices/{name}/shutdown",
    "/devices/{name}/quarantine",
    "/devices/{name}/network",
    "/devices/{name}/logs",
    "/devices/{name}/events",
    "/devices/{name}/trust",
    "/apps/{name}/restart",
    "/live",
];

/// The need of a page.
pub(crate) fn need_of_page(method: &Method, route: &str) -> Need {
    let Need { role, in_projects } = usual(method, route);
    let own = below(route, "/account") && in_projects;
    Need { role, in_projects: own || PAGES_IN_PROJECTS.contains(&route) }
}

/// The need of a request: its method and its route as the router has it, below the base of the API.
pub(crate) fn need(method: &Method, route: &str) -> Need {
    let usual = usual(method, route);
    let role = if WITH_SECRETS.contains(&route) { Role::Operator } else { Role::Viewer };
    Need { role: usual.role.max(role), ..usual }
}

fn usual(method: &Method, route: &str) -> Need {
    // One's own password and tokens.
    if below(route, "/me") || below(route, "/account") {
        return Need { role: Role::Viewer, in_projects: true };
    }
    if ADMIN.iter().any(|top| below(route, top)) {
        return Need { role: Role::Admin, in_projects: false };
    }
    let look = [Method::GET, Method::HEAD].contains(method);
    // What would be told instead is asked with a document, and changes nothing.
    let asks = ["/diff", "/devices/{name}/diff"].contains(&route);
    let role = if look || asks { Role::Viewer } else { Role::Operator };
    // A node that is made known is of no project yet.
    let in_projects = IN_PROJECTS.contains(&route) && (look || route != "/devices");
    Need { role, in_projects }
}

fn below(route: &str, top: &str) -> bool {
    route.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_row_is_closed_rather_than_open() {
        let operator = Need { role: Role::Operator, in_projects: false };
        assert_eq!(need(&Method::POST, "/something/new"), operator);
        assert_eq!(need(&Method::from_bytes(b"PURGE").unwrap(), "/x"), operator);
        let viewer = Need { role: Role::Viewer, in_projects: false };
        assert_eq!(need(&Method::GET, "/something/new"), viewer);
        assert_eq!(need(&Method::GET, "/users/{name}").role, Role::Admin);
        assert_eq!(need(&Method::GET, "/usersx").role, Role::Viewer);
        assert_eq!(need(&Method::POST, "/me/tokens").role, Role::Viewer);
    }
}
