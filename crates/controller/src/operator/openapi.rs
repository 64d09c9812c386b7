//! The operator API as an OpenAPI 3.1 document (<https://spec.openapis.org/oas/v3.1.0>), at
//! `/api/operator/v1/openapi.json`: read without a token, for programs that make clients of it.
//!
//! It is made of two tables, [`super::calls::CALLS`] and [`super::calls::SHAPES`]; tests hold them
//! against the routes in the sources and against answers of a running controller.

use std::sync::Arc;

use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::HINT;
use super::calls::{CALLS, SHAPES};
use crate::access::permit::need;
use crate::fleet::Fleet;

/// A call: a row of the table.
#[derive(Debug)]
pub(super) struct Call {
    /// In capitals.
    pub(super) method: &'static str,
    /// As the router has it, below the base of the API.
    pub(super) path: &'static str,
    /// What it does.
    pub(super) does: &'static str,
    /// `NAME TYPE` of what may stand in the query, with `,` between.
    pub(super) query: &'static str,
    /// The type of the body; empty: none. `documents` is YAML or JSON, `file` is bytes.
    pub(super) body: &'static str,
    /// `STATUS[|STATUS] TYPE` of the answer; without a type it has no body.
    pub(super) answer: &'static str,
}

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new().route("/openapi.json", get(|| async { Json(document()) }))
}

/// The whole document.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for call in CALLS {
        let path = call.path.replace("{*", "{");
        let item = paths.entry(path).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(item) = item {
            item.insert(call.method.to_ascii_lowercase(), operation(call));
        }
    }
    let schemas: Map<String, Value> =
        SHAPES.iter().map(|(name, fields)| ((*name).to_owned(), object(fields))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "EVE-OS controller: operator API",
            "description": format!(
                "Any answer may have headers `{HINT}`: what is allowed in what was asked for, and \
                 still may not be meant."
            ),
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/api/operator/v1" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

/// Calls that need no token.
fn is_open(call: &Call) -> bool {
    ["/login", "/openapi.json"].contains(&call.path)
}

fn operation(call: &Call) -> Value {
    let mut parameters = Vec::new();
    for part in call.path.split('/') {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
        if let Some(name) = name {
            let name = name.trim_start_matches('*');
            let what = if name == "revision" || name == "id" { "number" } else { "text" };
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "schema": schema(what),
            }));
        }
    }
    for (name, what) in fields(call.query) {
        parameters.push(json!({ "name": name, "in": "query", "schema": schema(what) }));
    }
    let mut operation = json!({
        "operationId": operation_id(call),
        "summary": call.does,
        "tags": [call.path.split('/').nth(1).filter(|t| !t.is_empty()).unwrap_or("controller")],
        "parameters": parameters,
        "responses": responses(call),
    });
    if is_open(call) {
        operation["security"] = json!([]);
    } else if let Ok(method) = Method::from_bytes(call.method.as_bytes()) {
        let need = need(&method, call.path);
        let limited = if need.in_projects {
            "; who is limited to projects sees and changes what is theirs"
        } else {
            "; not for who is limited to projects"
        };
        operation["description"] = format!("Needs the role {}{limited}.", need.role).into();
    }
    if !call.body.is_empty() {
        operation["requestBody"] = json!({ "required": true, "content": content(call.body) });
    }
    operation
}

/// `get_devices_by_name_drift`: the method, and the path with `by` before what varies.
fn operation_id(call: &Call) -> String {
    let mut id = call.method.to_ascii_lowercase();
    for part in call.path.split('/').filter(|p| !p.is_empty()) {
        let name = part.trim_matches(['{', '}', '*']);
        id.push_str(if part.starts_with('{') { "_by_" } else { "_" });
        id.push_str(&name.replace(['-', '.'], "_"));
    }
    id
}

fn responses(call: &Call) -> Value {
    let (statuses, what) = call.answer.split_once(' ').unwrap_or((call.answer, ""));
    let mut all = Map::new();
    for status in statuses.split('|') {
        let text = match status {
            "200" => "The answer.",
            "201" => "It is made.",
            "202" => "A part is there.",
            _ => "It is done.",
        };
        let mut one = json!({ "description": text });
        if !what.is_empty() && status != "204" {
            one["content"] = content(what);
        }
        all.insert(status.to_owned(), one);
    }
    let failure = json!({ "description": "What failed, and why.", "content": content("Failure") });
    all.insert("default".to_owned(), failure);
    Value::Object(all)
}

fn content(what: &str) -> Value {
    match what {
        "documents" => json!({
            "application/yaml": { "schema": { "type": "string" } },
            "application/json": { "schema": {} },
        }),
        "file" => json!({ "application/octet-stream": {} }),
        "lines" => json!({ "application/jsonl": {} }),
        what => json!({ "application/json": { "schema": schema(what) } }),
    }
}

/// `NAME TYPE, NAME TYPE` taken apart.
fn fields(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.split(',').filter_map(|f| f.trim().split_once(' '))
}

/// An object with these fields. `NAME?` may be left out when it is sent.
fn object(text: &'static str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, what) in fields(text) {
        let always = name.strip_suffix('?');
        if always.is_none() {
            required.push(name);
        }
        properties.insert(always.unwrap_or(name).to_owned(), schema(what));
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

/// `text`, `number`, `bool`, `time`, `id`, `any`, `a|b` (one of these words), `[T]` (a list),
/// `{T}` (by name), `T?` (or null), or the name of a shape.
fn schema(what: &str) -> Value {
    if let Some(inner) = what.strip_suffix('?') {
        return json!({ "anyOf": [schema(inner), { "type": "null" }] });
    }
    let inside = |open, close| what.strip_prefix(open).and_then(|w| w.strip_suffix(close));
    if let Some(inner) = inside('[', ']') {
        return json!({ "type": "array", "items": schema(inner) });
    }
    if let Some(inner) = inside('{', '}') {
        return json!({ "type": "object", "additionalProperties": schema(inner) });
    }
    match what {
        "text" => json!({ "type": "string" }),
        "number" => json!({ "type": "integer", "minimum": 0 }),
        "bool" => json!({ "type": "boolean" }),
        "time" => json!({
            "type": "integer", "minimum": 0, "description": "Milliseconds since 1970, UTC.",
        }),
        "id" => json!({ "type": "string", "format": "uuid" }),
        "any" => json!({}),
        words if words.contains('|') => {
            json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() })
        }
        shape => json!({ "$ref": format!("#/components/schemas/{shape}") }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|v| references(v, found));
            }
            Value::Array(all) => all.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_every_shape_is_used() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let shapes: BTreeSet<String> =
            SHAPES.iter().map(|(n, _)| format!("#/components/schemas/{n}")).collect();
        let found: BTreeSet<String> = found.into_iter().map(str::to_owned).collect();
        assert_eq!(found, shapes);
        assert_eq!(SHAPES.len(), shapes.len(), "a shape stands there twice");
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_all_its_parameters() {
        let mut names = BTreeSet::new();
        for call in CALLS {
            assert!(names.insert(operation_id(call)), "{} {}", call.method, call.path);
            let operation = operation(call);
            let named = operation["parameters"].as_array().unwrap();
            let in_path = named.iter().filter(|p| p["in"] == "path").count();
            assert_eq!(in_path, call.path.matches('{').count(), "{}", call.path);
            let in_query = named.iter().filter(|p| p["in"] == "query").count();
            assert_eq!(in_query, call.query.split(',').filter(|q| !q.is_empty()).count());
        }
        assert_eq!(operation_id(&CALLS[0]), "get");
    }

    #[test]
    fn types_become_schemas() {
        assert_eq!(schema("[time?]")["items"]["anyOf"][1], json!({ "type": "null" }));
        assert_eq!(
            schema("{Device}")["additionalProperties"]["$ref"],
            "#/components/schemas/Device"
        );
        assert_eq!(schema("a|b")["enum"], json!(["a", "b"]));
        let shape = object("name text, note? text");
        assert_eq!(shape["required"], json!(["name"]));
        assert_eq!(shape["properties"]["note"], json!({ "type": "string" }));
    }
}
