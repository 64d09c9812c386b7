//! What is said of a certificate that the listener shows: whom it is for, until when, and what its
//! chain lacks.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use crate::words::time;

/// Whom a certificate is for, and when it ends: `for a.example, until 2026-01-02T03:04:05Z`.
pub(super) fn said(leaf: &CertificateDer<'_>) -> String {
    let names = api::names_of(leaf).unwrap_or_default();
    let names = if names.is_empty() { "nobody by name".to_owned() } else { names.join(", ") };
    match api::end_of(leaf) {
        Ok(until) => format!("for {names}, until {}", time(until)),
        Err(_) => format!("for {names}"),
    }
}

/// Who issued the last certificate of a chain (its first is the listener's own), if that is neither in
/// the chain nor one of `roots`: what a client would have to know beforehand. A root itself need not
/// be in a chain.
pub(super) fn missing(chain: &[CertificateDer<'_>], roots: &RootCertStore) -> Option<String> {
    let mut last = api::issuance_of(chain.first()?).ok()?;
    // Each one leads to another, or the chain goes round.
    for _ in 0..chain.len() {
        if last.issuer == last.subject || roots.roots.iter().any(|r| *r.subject == *last.issuer) {
            return None;
        }
        let all = chain.iter().filter_map(|c| api::issuance_of(c).ok());
        match all.into_iter().find(|c| c.subject == last.issuer) {
            Some(next) => last = next,
            None => return Some(last.issuer_said),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn named(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    #[test]
    fn a_chain_lacks_its_intermediate_but_not_its_root() {
        let keys = [0, 1, 2].map(|_| KeyPair::generate().unwrap());
        let [root_key, between_key, leaf_key] = keys;
        let (root, between) = (named("root", true), named("between", true));
        let root_der = root.self_signed(&root_key).unwrap().der().clone();
        let root = Issuer::new(root, root_key);
        let between_der = between.signed_by(&between_key, &root).unwrap().der().clone();
        let issuer = Issuer::new(between, between_key);
        let leaf = named("leaf", false).signed_by(&leaf_key, &issuer).unwrap().der().clone();
        let self_signed = named("leaf", true).self_signed(&leaf_key).unwrap().der().clone();

        let nobody = RootCertStore::empty();
        let mut known = RootCertStore::empty();
        known.add(root_der.clone()).unwrap();
        let lacks = |chain: &[&CertificateDer<'static>], roots| {
            let chain: Vec<_> = chain.iter().map(|c| (*c).clone()).collect();
            missing(&chain, roots)
        };
        let between_name = lacks(&[&leaf], &known).expect("its intermediate is not there");
        assert!(between_name.contains("CN=between"), "{between_name}");
        assert_eq!(lacks(&[&leaf, &between_der], &known), None);
        assert_eq!(lacks(&[&leaf, &between_der, &root_der], &nobody), None);
        assert_eq!(lacks(&[&leaf, &root_der, &between_der], &nobody), None, "in any order");
        let root_name = lacks(&[&leaf, &between_der], &nobody).expect("nobody knows its root");
        assert!(root_name.contains("CN=root"), "{root_name}");
        assert_eq!(lacks(&[&self_signed], &nobody), None);
        assert_eq!(lacks(&[], &nobody), None);
        assert!(said(&leaf).starts_with("for leaf.example, until 4"), "{}", said(&leaf));
    }
}
