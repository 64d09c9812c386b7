//! A bill as SPDX 2.3.
//!
//! Format: the SPDX Specification 2.3, and its JSON schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Bill, Id, Kind, Part, Relation, rfc3339};

/// Nothing is claimed.
const UNKNOWN: &str = "NOASSERTION";
/// The image itself among the packages.
const IMAGE: &str = "SPDXRef-image";

/// The document.
pub(super) fn document(bill: &Bill) -> Value {
    let mut packages = vec![image(bill)];
    let mut texts: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, part) in &bill.parts {
        packages.push(package(id, part));
        for (reference, text) in part.licence.iter().flat_map(|l| &l.texts) {
            texts.entry(reference).or_insert(text);
        }
    }
    let texts: Vec<Value> = texts
        .into_iter()
        .map(|(id, text)| json!({ "licenseId": id, "extractedText": text, "name": id }))
        .collect();
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    relations.extend(bill.relations.iter().map(|(one, how, other)| {
        let (one, other) = (reference(one), reference(other));
        match how {
            Relation::Contains => relation(&one, "CONTAINS", &other),
            Relation::DependsOn => relation(&one, "DEPENDS_ON", &other),
            Relation::BuiltWith => relation(&other, "BUILD_DEPENDENCY_OF", &one),
            Relation::MadeFrom => relation(&one, "GENERATED_FROM", &other),
        }
    }));
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": bill.name,
        "creationInfo": {
            "created": rfc3339(bill.created),
            "creators": [concat!("Tool: eve-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relations,
    });
    if !texts.is_empty() {
        document["hasExtractedLicensingInfos"] = texts.into();
    }
    let name = super::licence::plain(&bill.name);
    let space = format!("https://spdx.org/spdxdocs/{name}-{}", Bill::uuid(&document));
    document["documentNamespace"] = space.into();
    document
}

fn relation(one: &str, how: &str, other: &str) -> Value {
    json!({ "spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other })
}

fn reference(id: &Id) -> String {
    if id.0.is_empty() { IMAGE.to_owned() } else { format!("SPDXRef-{}", id.0) }
}

fn image(bill: &Bill) -> Value {
    let mut image = json!({
        "SPDXID": IMAGE,
        "name": bill.name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "OPERATING_SYSTEM",
    });
    if !bill.version.is_empty() {
        image["versionInfo"] = bill.version.clone().into();
    }
    image
}

fn package(id: &Id, part: &Part) -> Value {
    let purpose = match part.kind {
        Kind::Image => "CONTAINER",
        Kind::Kernel => "OPERATING_SYSTEM",
        Kind::Source => "SOURCE",
        Kind::Crate | Kind::BuildCrate => "LIBRARY",
        Kind::Package => "INSTALL",
        // Not among SPDX's files: a package that has some there must list all that it has.
        Kind::File => "FILE",
    };
    let licence = part.licence.as_ref().map_or(UNKNOWN, |l| &l.expression);
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("SPDXID", reference(id).into());
    put("name", part.name.clone().into());
    put("downloadLocation", UNKNOWN.into());
    put("filesAnalyzed", false.into());
    put("licenseConcluded", UNKNOWN.into());
    put("licenseDeclared", licence.into());
    put("copyrightText", UNKNOWN.into());
    put("primaryPackagePurpose", purpose.into());
    if part.kind == Kind::File {
        put("packageFileName", format!("./{}", part.name).into());
    }
    if !part.version.is_empty() {
        put("versionInfo", part.version.clone().into());
    }
    if !part.supplier.is_empty() {
        put("supplier", supplier(&part.supplier).into());
    }
    if is_address(&part.homepage) {
        put("homepage", part.homepage.clone().into());
    }
    if !part.summary.is_empty() {
        put("summary", part.summary.clone().into());
    }
    if let Some(sum) = part.sha256 {
        put("checksums", json!([{ "algorithm": "SHA256", "checksumValue": sum.hex() }]));
    }
    if !part.purl.is_empty() {
        let purl = json!({
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": part.purl,
        });
        put("externalRefs", json!([purl]));
    }
    Value::Object(out)
}

/// `Name <mail>` as SPDX says it. Those who speak of several are organizations.
fn supplier(text: &str) -> String {
    match text.split_once('<') {
        Some((name, mail)) => {
            let (name, mail) = (name.trim().replace(['(', ')'], ""), mail.trim_end_matches('>'));
            format!("Organization: {name} ({mail})")
        }
        None => format!("Organization: {}", text.replace(['(', ')'], "")),
    }
}

fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_graphic()))
}
