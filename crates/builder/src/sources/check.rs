//! Whether a manifest of sources and a bill of materials tell of the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Manifest, SourcesError};
use crate::sbom::purl;

/// What only one of both has, as `debian glibc@2.41-12`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Unmatched {
    /// In the image, and its source is not in the manifest.
    pub only_in_bill: Vec<String>,
    /// In the manifest, and not in the image.
    pub only_in_manifest: Vec<String>,
    /// How many match.
    pub matched: usize,
}

/// Compares a bill (SPDX or CycloneDX, as JSON) with a manifest.
pub fn check(bill: &[u8], manifest: &Manifest) -> Result<Unmatched, SourcesError> {
    let bill = of_bill(&serde_json::from_slice(bill)?)?;
    let listed: BTreeSet<String> = manifest
        .rows
        .iter()
        // The kernel's source is a package of Debian like the others; only its folder is another.
        .map(|r| key(if r.kind == "kernel" { "debian" } else { &r.kind }, &r.name, &r.version))
        .collect();
    Ok(Unmatched {
        only_in_bill: bill.difference(&listed).cloned().collect(),
        only_in_manifest: listed.difference(&bill).cloned().collect(),
        matched: bill.intersection(&listed).count(),
    })
}

fn key(kind: &str, name: &str, version: &str) -> String {
    format!("{kind} {name}@{version}")
}

/// The sources that a bill tells of, by the package URLs in it.
fn of_bill(bill: &Value) -> Result<BTreeSet<String>, SourcesError> {
    let mut urls = Vec::new();
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    if bill["spdxVersion"].is_string() {
        for package in list(bill, "packages") {
            let refs = list(&package, "externalRefs");
            let refs = refs.iter().filter(|r| r["referenceType"] == "purl");
            urls.extend(refs.filter_map(|r| r["referenceLocator"].as_str().map(str::to_owned)));
        }
    } else if bill["bomFormat"] == "CycloneDX" {
        for component in list(bill, "components") {
            let ancestors = list(&component["pedigree"], "ancestors");
            let all = std::iter::once(&component).chain(&ancestors);
            urls.extend(all.filter_map(|c| c["purl"].as_str().map(str::to_owned)));
        }
    } else {
        return Err(SourcesError::Format);
    }
    Ok(urls.iter().filter_map(|url| source_of(url)).collect())
}

/// The source behind a package URL; `None` if it has none that manifests tell of.
fn source_of(url: &str) -> Option<String> {
    let parsed = purl::parse(url)?;
    let own = (parsed.name.as_str(), parsed.version.as_str());
    match parsed.kind.as_str() {
        "deb" => {
            let (name, version) = match parsed.qualifier("upstream") {
                Some(upstream) => upstream.split_once('@').unwrap_or((upstream, own.1)),
                None => own,
            };
            Some(key("debian", name, version))
        }
        "cargo" => Some(key("rust", own.0, own.1)),
        "apk" => Some(key("alpine", parsed.qualifier("upstream").unwrap_or(own.0), own.1)),
        "golang" => Some(key("golang", own.0, own.1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "debian,yajl@2.1.0-5,,debian/yajl\nkernel,linux@6.12-1,,kernel/linux\n\
        rust,serde@1.0.0,,rust/serde\nrust,gone@1.0.0,,rust/gone\n";

    fn spdx(purls: &[&str]) -> Vec<u8> {
        let package = |p: &&str| {
            let purl = serde_json::json!({ "referenceType": "purl", "referenceLocator": p });
            serde_json::json!({ "externalRefs": [purl] })
        };
        let packages: Vec<Value> = purls.iter().map(package).collect();
        serde_json::json!({ "spdxVersion": "SPDX-2.3", "packages": packages }).to_string().into()
    }

    #[test]
    fn what_is_on_one_side_only_is_listed() {
        let bill = spdx(&[
            "pkg:deb/debian/libyajl2@2.1.0-5%2Bb2?arch=amd64&upstream=yajl%402.1.0-5",
            "pkg:deb/debian/linux@6.12-1?arch=source",
            "pkg:cargo/serde@1.0.0",
            "pkg:cargo/new@1.0.0",
            "pkg:generic/x@1",
        ]);
        let found = check(&bill, &Manifest::parse(MANIFEST).unwrap()).unwrap();
        assert_eq!(found.only_in_bill, ["rust new@1.0.0"]);
        assert_eq!(found.only_in_manifest, ["rust gone@1.0.0"]);
        assert_eq!(found.matched, 3);
    }

    #[test]
    fn both_formats_tell_the_same() {
        let linux = serde_json::json!({ "purl": "pkg:deb/debian/linux@6.12-1?arch=source" });
        let text = serde_json::json!({
            "bomFormat": "CycloneDX",
            "components": [{
                "purl": "pkg:deb/debian/libyajl2@2.1.0-5?arch=amd64&upstream=yajl",
                "pedigree": { "ancestors": [linux] },
            }],
        });
        let found =
            check(text.to_string().as_bytes(), &Manifest::parse(MANIFEST).unwrap()).unwrap();
        assert_eq!((found.only_in_bill.len(), found.matched), (0, 2));
        assert!(matches!(check(b"{}", &Manifest::default()), Err(SourcesError::Format)));
        assert!(matches!(check(b"no", &Manifest::default()), Err(SourcesError::Bill(_))));
    }
}
