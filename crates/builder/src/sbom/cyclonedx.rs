//! A bill as CycloneDX 1.6.
//!
//! What contains what, and what needs what, is one graph there (`dependencies`); source packages are
//! the pedigree of what was built from them.
//!
//! Format: CycloneDX 1.6 (ECMA-424), and its JSON schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Bill, Id, Kind, Part, Relation, rfc3339};

/// The image itself among the components.
const IMAGE: &str = "image";

/// The document.
pub(super) fn document(bill: &Bill) -> Value {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    needs.entry(IMAGE.to_owned()).or_default();
    let mut made: BTreeMap<&Id, Vec<&Part>> = BTreeMap::new();
    let is_source = |id: &Id| bill.parts.get(id).is_some_and(|p| p.kind == Kind::Source);
    for (id, _) in bill.parts.iter().filter(|(_, p)| p.kind != Kind::Source) {
        needs.entry(reference(id)).or_default();
    }
    for (one, how, other) in &bill.relations {
        match bill.parts.get(other) {
            Some(part) if *how == Relation::MadeFrom && is_source(other) => {
                made.entry(one).or_default().push(part);
            }
            _ => {
                needs.entry(reference(one)).or_default().insert(reference(other));
            }
        }
    }
    let parts = bill.parts.iter().filter(|(_, p)| p.kind != Kind::Source);
    let components: Vec<Value> =
        parts.map(|(id, part)| component(id, part, made.get(id).map_or(&[][..], |m| m))).collect();
    let needs: Vec<Value> =
        needs.into_iter().map(|(one, all)| json!({ "ref": one, "dependsOn": all })).collect();
    let mut image = json!({ "type": "operating-system", "bom-ref": IMAGE, "name": bill.name });
    if !bill.version.is_empty() {
        image["version"] = bill.version.clone().into();
    }
    let tool =
        json!({ "type": "application", "name": "eve", "version": env!("CARGO_PKG_VERSION") });
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(bill.created),
            "tools": { "components": [tool] },
            "component": image,
        },
        "components": components,
        "dependencies": needs,
    });
    document["serialNumber"] = format!("urn:uuid:{}", Bill::uuid(&document)).into();
    document
}

fn reference(id: &Id) -> String {
    if id.0.is_empty() { IMAGE.to_owned() } else { id.0.clone() }
}

fn component(id: &Id, part: &Part, sources: &[&Part]) -> Value {
    let kind = match part.kind {
        Kind::Image => "container",
        Kind::Kernel => "operating-system",
        Kind::File => "file",
        Kind::Package | Kind::Source | Kind::Crate | Kind::BuildCrate => "library",
    };
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("type", kind.into());
    put("bom-ref", reference(id).into());
    put("name", part.name.clone().into());
    if !part.version.is_empty() {
        put("version", part.version.clone().into());
    }
    if !part.purl.is_empty() {
        put("purl", part.purl.clone().into());
    }
    if part.kind == Kind::BuildCrate {
        put("scope", "excluded".into());
    }
    if !part.summary.is_empty() {
        put("description", part.summary.clone().into());
    }
    if let Some((name, mail)) = part.supplier.split_once('<') {
        let contact = json!([{ "email": mail.trim_end_matches('>') }]);
        put("supplier", json!({ "name": name.trim(), "contact": contact }));
    } else if !part.supplier.is_empty() {
        put("supplier", json!({ "name": part.supplier }));
    }
    if let Some(licence) = &part.licence {
        put("licenses", json!([{ "expression": licence.expression }]));
    }
    if let Some(sum) = part.sha256 {
        put("hashes", json!([{ "alg": "SHA-256", "content": sum.hex() }]));
    }
    if !part.homepage.is_empty() {
        put("externalReferences", json!([{ "type": "website", "url": part.homepage }]));
    }
    let sources: Vec<Value> = sources
        .iter()
        .map(|s| json!({ "type": "library", "name": s.name, "version": s.version, "purl": s.purl }))
        .collect();
    if !sources.is_empty() {
        put("pedigree", json!({ "ancestors": sources }));
    }
    Value::Object(out)
}
