//! What the images say they are made of, joined into one SPDX 2.3 document, as the reference does it.
//!
//! An image says it with an attestation: a manifest beside its own in the index, whose layers are
//! in-toto statements (in-toto attestation framework, statement v0.1; BuildKit, attestation storage).
//! The reference's document names itself by a random number; ours by a number made of the inputs, so
//! that the same images give the same bytes.

use std::collections::HashSet;

use model::{Bytes, Digest};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use store::{Descriptor, Index, Layout, MANIFEST_MAX, Manifest, StoreError};
use uuid::Uuid;

use super::gojson;

/// Where the document comes to lie.
pub(super) const PATH: &str = "sbom.spdx.json";

/// The largest statement we read. That of an image with a thousand packages has 5 MB.
const STATEMENT_MAX: Bytes = Bytes::mib(32);

const PREDICATE: &str = "https://spdx.dev/Document";
const PREDICATE_KEY: &str = "in-toto.io/predicate-type";
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const REFERENCE_TYPE: (&str, &str) = ("vnd.docker.reference.type", "attestation-manifest");
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const NAMESPACE: &str = "https://github.com/linuxkit/linuxkit/sbom-";

/// The SPDX documents that stand beside the manifest `of` in the index `target`. None if `target` is
/// no index, or has no attestation for it.
pub(super) fn statements(
    layout: &Layout,
    target: &Descriptor,
    of: &Digest,
) -> Result<Vec<Value>, StoreError> {
    if !store::media_type::is_index(&target.media_type) {
        return Ok(Vec::new());
    }
    let what = target.digest.to_string();
    let index = Index::parse(&layout.read(&target.digest, MANIFEST_MAX)?, &what)?;
    let about = of.to_string();
    let attests = |d: &&Descriptor| {
        let said = |key: &str| d.annotations.get(key).map(String::as_str);
        said(REFERENCE_TYPE.0) == Some(REFERENCE_TYPE.1)
            && said(REFERENCE_DIGEST) == Some(about.as_str())
    };
    let Some(entry) = index.manifests.iter().find(attests) else { return Ok(Vec::new()) };
    let what = entry.digest.to_string();
    let manifest = Manifest::parse(&layout.read(&entry.digest, MANIFEST_MAX)?, &what)?;
    let mut documents = Vec::new();
    for layer in manifest.layers {
        let kind = layer.annotations.get(PREDICATE_KEY).map(String::as_str);
        if kind != Some(PREDICATE) || layer.media_type != STATEMENT_TYPE {
            continue;
        }
        #[derive(Deserialize)]
        struct Statement {
            predicate: Value,
        }
        let what = || format!("attestation {}", layer.digest);
        let bytes = layout.read(&layer.digest, STATEMENT_MAX)?;
        let statement: Statement = serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Parse { what: what(), source })?;
        if !statement.predicate.is_object() {
            let why = "it holds no SPDX document".to_owned();
            return Err(StoreError::Nonsense { what: what(), why });
        }
        documents.push(statement.predicate);
    }
    Ok(documents)
}

/// Documents as one.
#[derive(Default)]
pub(super) struct Sbom {
    packages: Vec<Json>,
    files: Vec<Json>,
    licenses: Vec<Json>,
    relationships: Vec<Json>,
    annotations: Vec<Json>,
    references: Vec<Json>,
}

impl Sbom {
    /// Adds a document of an image whose files lie below `prefix`.
    pub(super) fn add(&mut self, prefix: &str, document: &Value) {
        let mut relationships = objects(document, "relationships").collect::<Vec<_>>();
        let mut known: HashSet<String> = relationships.iter().map(|r| meaning(r)).collect();
        let mut more = Vec::new();
        let mut imply = |from: &str, kind: &str, to: &Value| {
            let implied = relationship(from, kind, to.as_str().unwrap_or_default());
            if known.insert(meaning(&implied)) {
                more.push(implied);
            }
        };
        let own = text(document, "SPDXID");
        for described in array(document, "documentDescribes") {
            imply(own, "DESCRIBES", described);
        }
        for package in objects(document, "packages") {
            let mut package = package.clone();
            for file in package.get("hasFiles").and_then(Value::as_array).into_iter().flatten() {
                let id = package.get("SPDXID").and_then(Value::as_str).unwrap_or_default();
                imply(id, "CONTAINS", file);
            }
            let name = package.get("packageFileName").and_then(Value::as_str).unwrap_or_default();
            let name = joined(prefix, name);
            package.insert("packageFileName".to_owned(), Value::from(name));
            if !package.get("filesAnalyzed").is_some_and(Value::is_boolean) {
                package.insert("filesAnalyzed".to_owned(), Value::from(true));
            }
            self.packages.push(pick(&package, PACKAGE));
        }
        for file in objects(document, "files") {
            let mut file = file.clone();
            let name = file.get("fileName").and_then(Value::as_str).unwrap_or_default();
            let name = joined(prefix, name);
            file.insert("fileName".to_owned(), Value::from(name));
            self.files.push(pick(&file, FILE));
        }
        relationships.extend(&more);
        self.relationships.extend(relationships.iter().map(|r| pick(r, RELATIONSHIP)));
        for (list, key, fields) in [
            (&mut self.licenses, "hasExtractedLicensingInfos", LICENSE),
            (&mut self.annotations, "annotations", ANNOTATION),
            (&mut self.references, "externalDocumentRefs", REFERENCE),
        ] {
            list.extend(objects(document, key).map(|o| pick(o, fields)));
        }
    }

    /// The document.
    pub(super) fn print(self) -> String {
        let mut text = self.document(NAMESPACE);
        // All that is in the document but its own name makes its name.
        let seed = Sha256::digest(gojson::compact(&text));
        let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, &seed);
        if let Json::Map(entries) = &mut text {
            for (key, value) in entries {
                if *key == "documentNamespace" {
                    *value = Json::from(format!("{NAMESPACE}{name}"));
                }
            }
        }
        gojson::compact(&text) + "\n"
    }

    fn document(self, namespace: &str) -> Json {
        let said = |text: &str| Json::from(text.to_owned());
        let creation = Json::Map(vec![
            ("licenseListVersion", said("3.20")),
            ("creators", Json::List(vec![said("Organization: LinuxKit"), said("Tool: linuxkit")])),
            ("created", said("2017-04-18T16:30:00Z")),
        ]);
        let mut entries = vec![
            ("spdxVersion", said("SPDX-2.3")),
            ("dataLicense", said("CC0-1.0")),
            ("SPDXID", said("SPDXRef-DOCUMENT")),
            ("name", said("sbom")),
            ("documentNamespace", said(namespace)),
            ("externalDocumentRefs", Json::List(self.references)),
            ("creationInfo", creation),
            ("packages", Json::List(self.packages)),
            ("files", Json::List(self.files)),
            ("hasExtractedLicensingInfos", Json::List(self.licenses)),
            ("relationships", Json::List(self.relationships)),
            ("annotations", Json::List(self.annotations)),
        ];
        entries.retain(|(_, value)| !matches!(value, Json::List(list) if list.is_empty()));
        Json::Map(entries)
    }
}

/// JSON whose keys stand in the order of the reference's types.
enum Json {
    Leaf(Value),
    List(Vec<Json>),
    Map(Vec<(&'static str, Json)>),
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::Leaf(Value::from(text))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Leaf(value) => value.serialize(s),
            Json::List(list) => s.collect_seq(list),
            Json::Map(entries) => s.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
    }
}

/// A key of the reference's types.
type Field = (&'static str, Shape);

/// What stands under a key.
#[derive(Clone, Copy)]
enum Shape {
    /// A text, there in any case.
    Always,
    /// A text or truth value, left out when empty.
    Said,
    /// Texts, left out when there are none.
    Texts,
    /// An object, left out when it is not there.
    One(&'static [Field]),
    /// Objects, left out when there are none.
    Many(&'static [Field]),
    /// Objects; nothing is null.
    Nullable(&'static [Field]),
}

use Shape::{Always, Many, Nullable, One, Said, Texts};

/// The fields in this order, and no others.
fn pick(from: &Map<String, Value>, fields: &[Field]) -> Json {
    let entry = |(key, shape): &Field| {
        let value = from.get(*key).unwrap_or(&Value::Null);
        let many = |fields| {
            let objects = value.as_array().into_iter().flatten().filter_map(Value::as_object);
            Json::List(objects.map(|o| pick(o, fields)).collect())
        };
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        let json = match shape {
            Always => Json::from(value.as_str().unwrap_or_default().to_owned()),
            Nullable(_) if value.is_null() => Json::Leaf(Value::Null),
            Nullable(fields) => many(fields),
            _ if empty => return None,
            Said | Texts => Json::Leaf(value.clone()),
            One(fields) => pick(value.as_object()?, fields),
            Many(fields) => many(fields),
        };
        Some((*key, json))
    };
    Json::Map(fields.iter().filter_map(entry).collect())
}

const CHECKSUM: &[Field] = &[("algorithm", Always), ("checksumValue", Always)];

const ANNOTATION: &[Field] = &[
    ("annotator", Always),
    ("annotationDate", Always),
    ("annotationType", Always),
    ("comment", Always),
];

const PACKAGE: &[Field] = &[
    ("name", Always),
    ("SPDXID", Always),
    ("versionInfo", Said),
    ("packageFileName", Said),
    ("supplier", Said),
    ("originator", Said),
    ("downloadLocation", Always),
    ("filesAnalyzed", Said),
    (
        "packageVerificationCode",
        One(&[
            ("packageVerificationCodeValue", Always),
            ("packageVerificationCodeExcludedFiles", Texts),
        ]),
    ),
    ("checksums", Many(CHECKSUM)),
    ("homepage", Said),
    ("sourceInfo", Said),
    ("licenseConcluded", Said),
    ("licenseInfoFromFiles", Texts),
    ("licenseDeclared", Said),
    ("licenseComments", Said),
    ("copyrightText", Said),
    ("summary", Said),
    ("description", Said),
    ("comment", Said),
    (
        "externalRefs",
        Many(&[
            ("referenceCategory", Always),
            ("referenceType", Always),
            ("referenceLocator", Always),
            ("comment", Said),
        ]),
    ),
    ("attributionTexts", Texts),
    ("primaryPackagePurpose", Said),
    ("releaseDate", Said),
    ("builtDate", Said),
    ("validUntilDate", Said),
    ("annotations", Many(ANNOTATION)),
];

const FILE: &[Field] = &[
    ("fileName", Always),
    ("SPDXID", Always),
    ("fileTypes", Texts),
    ("checksums", Nullable(CHECKSUM)),
    ("licenseConcluded", Said),
    ("licenseInfoInFiles", Texts),
    ("licenseComments", Said),
    ("copyrightText", Always),
    ("artifactOfs", Many(&[("name", Always), ("homePage", Always), ("URI", Always)])),
    ("comment", Said),
    ("noticeText", Said),
    ("fileContributors", Texts),
    ("attributionTexts", Texts),
    ("fileDependencies", Texts),
    ("annotations", Many(ANNOTATION)),
];

const RELATIONSHIP: &[Field] = &[
    ("spdxElementId", Always),
    ("relatedSpdxElement", Always),
    ("relationshipType", Always),
    ("comment", Said),
];

const LICENSE: &[Field] = &[
    ("licenseId", Always),
    ("extractedText", Always),
    ("name", Said),
    ("seeAlsos", Texts),
    ("comment", Said),
];

const REFERENCE: &[Field] =
    &[("externalDocumentId", Always), ("spdxDocument", Always), ("checksum", One(CHECKSUM))];

fn array<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn objects<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    array(document, key).filter_map(Value::as_object)
}

fn text<'a>(document: &'a Value, key: &str) -> &'a str {
    document.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn relationship(from: &str, kind: &str, to: &str) -> Map<String, Value> {
    [("spdxElementId", from), ("relatedSpdxElement", to), ("relationshipType", kind)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect()
}

/// The same for relationships that say the same, from whichever side.
fn meaning(relationship: &Map<String, Value>) -> String {
    let get = |key: &str| relationship.get(key).and_then(Value::as_str).unwrap_or_default();
    let (a, b) = (get("spdxElementId"), get("relatedSpdxElement"));
    match get("relationshipType") {
        "CONTAINED_BY" => format!("{b} CONTAINS {a}"),
        "DESCRIBED_BY" => format!("{b} DESCRIBES {a}"),
        kind => format!("{a} {kind} {b}"),
    }
}

/// The file below the folder, as the shortest path; empty if both are.
fn joined(prefix: &str, name: &str) -> String {
    let parts = [prefix, name].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>();
    if parts.is_empty() {
        return String::new();
    }
    let clean = store::tarball::clean_path(parts.join("/").as_bytes());
    String::from_utf8_lossy(&clean).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_joined_in_the_order_of_the_types_below_their_folder() {
        let document = json!({
            "SPDXID": "SPDXRef-DOCUMENT",
            "documentDescribes": ["SPDXRef-Package-a"],
            "packages": [{"SPDXID": "SPDXRef-Package-a", "name": "a<b", "versionInfo": "",
                "downloadLocation": "NOASSERTION", "unknown": 1, "hasFiles": ["SPDXRef-File-f"]}],
            "files": [{"fileName": "/lib/x", "SPDXID": "SPDXRef-File-f", "copyrightText": ""}],
            "relationships": [{"spdxElementId": "SPDXRef-File-f", "relationshipType": "CONTAINED_BY",
                "relatedSpdxElement": "SPDXRef-Package-a"}],
        });
        let mut sbom = Sbom::default();
        sbom.add("containers/services/s/lower/", &document);
        let text = sbom.print();
        let wanted = [
            r#"{"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","#,
            r#""packages":[{"name":"a\u003cb","SPDXID":"SPDXRef-Package-a","#,
            r#""packageFileName":"containers/services/s/lower","downloadLocation":"NOASSERTION","#,
            r#""files":[{"fileName":"containers/services/s/lower/lib/x","SPDXID":"SPDXRef-File-f","#,
            r#""checksums":null,"copyrightText":""}]"#,
            r#""relationships":[{"spdxElementId":"SPDXRef-File-f","relatedSpdxElement":"SPDXRef-Pack"#,
            r#"{"spdxElementId":"SPDXRef-DOCUMENT","relatedSpdxElement":"SPDXRef-Package-a","rela"#,
        ];
        for want in wanted {
            assert!(text.contains(want), "{want}\n{text}");
        }
        // CONTAINED_BY said it already.
        assert_eq!(text.matches("relationshipType").count(), 2, "{text}");
    }

    #[test]
    fn the_name_follows_from_the_content_alone() {
        let print = |name: &str| {
            let mut sbom = Sbom::default();
            sbom.add("", &json!({"packages": [{"name": name}]}));
            sbom.print()
        };
        assert_eq!(print("a"), print("a"));
        let name = |text: String| text.split("sbom-").nth(1).map(|t| t[..36].to_owned());
        assert_ne!(name(print("a")), name(print("b")));
    }
}
