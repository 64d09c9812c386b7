//! What is allowed in an object and still may not be meant: it is said beside what became of the
//! object, and nothing is refused for it.

use std::collections::BTreeSet;

use model::desired::DatastoreKind;

use super::{Flaw, Key, Kind, NAME, Objects, Query, Spec, labels};

/// So many labels are named.
const NAMED_MAX: usize = 12;

/// What may not be meant in an object. `read` reads the query of a group, a window or a rule; `None`
/// if it is none.
pub(crate) fn hints(
    objects: &Objects,
    (key, spec): (&Key, &Spec),
    read: impl Fn(&str) -> Option<Query>,
) -> Vec<Flaw> {
    let mut all = Vec::new();
    let query = match spec {
        Spec::Group(group) => read(&group.query).map(|q| ("spec.query", q)),
        Spec::Window(window) => read(&window.devices).map(|q| ("spec.match", q)),
        Spec::AlertRule(rule) => read(&rule.devices).map(|q| ("spec.match", q)),
        Spec::App(app) => app.device.matching.clone().map(|q| ("spec.device.match", q)),
        _ => None,
    };
    if let Some((field, query)) = query {
        // Apps are objects, and objects are found by what objects say: a name is no label there.
        let names = key.kind != Kind::App;
        let texts = unlabelled(objects, &query, names).into_iter();
        all.extend(texts.map(|text| (field, text)));
    }
    all.extend(undigested(objects, spec));
    let flaw = |(field, text): (&str, String)| Flaw {
        key: key.clone(),
        field: field.to_owned(),
        text,
        missing: false,
    };
    all.into_iter().map(flaw).collect()
}

/// What a query asks for and no device has, in words; devices with such a label may still come.
/// `names`: whether `name` is what devices are called.
pub(crate) fn unlabelled(objects: &Objects, query: &Query, names: bool) -> Vec<String> {
    let devices = || {
        let from = objects.range(Key::new(Kind::Device, "")..);
        from.take_while(|(key, _)| key.kind == Kind::Device).map(|(_, object)| &**object)
    };
    let keys = query.keys().filter(|key| !(names && *key == NAME));
    let nobodys = keys.filter(|key| !devices().any(|d| labels(objects, d).contains_key(key)));
    let nobodys: BTreeSet<&str> = nobodys.collect();
    if nobodys.is_empty() {
        return Vec::new();
    }
    let mut there: BTreeSet<&str> = BTreeSet::new();
    for device in devices() {
        there.extend(labels(objects, device).into_keys());
    }
    let more = if there.len() > NAMED_MAX { ", …" } else { "" };
    let there: Vec<&str> = there.into_iter().take(NAMED_MAX).collect();
    let there = match there.as_slice() {
        [] => "none has any".to_owned(),
        all => format!("there are {}{more}", all.join(", ")),
    };
    nobodys.iter().map(|key| format!("no device has a label {key:?} ({there})")).collect()
}

/// The field of an image without a digest that comes from elsewhere than a registry, and why that may
/// not be meant. Only a registry leads from a tag to a digest; EVE checks whatever it downloads against
/// one (EVE API, content trees; EVE's verifier).
fn undigested(objects: &Objects, spec: &Spec) -> Option<(&'static str, String)> {
    let other = |name: &str| {
        let key = Key::new(Kind::Datastore, name);
        match objects.get(&key).map(|o| &o.spec) {
            Some(Spec::Datastore(d)) if d.kind != DatastoreKind::Registry => Some(key),
            _ => None,
        }
    };
    let own = |image: &str, datastore: &str| {
        let named = objects.contains_key(&Key::new(Kind::Image, image));
        if named { None } else { other(datastore) }
    };
    let why = "is no registry: nodes have nothing to check what they download against, and an EVE \
               device may refuse it";
    let from = match spec {
        Spec::Image(image) if image.sha256.is_none() => {
            let from = image.datastore.0.iter().find_map(|name| other(name))?;
            return Some(("spec.sha256", format!("it is not said, and {from} {why}")));
        }
        Spec::App(app) => own(&app.image, &app.datastore),
        Spec::BaseOs(base) => own(&base.image, &base.datastore),
        _ => None,
    };
    Some(("spec.image", format!("{} {why}; name an Image with its path and sha256", from?)))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::objects::check_tests::objects;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        let all = objects(text);
        let read = |query: &str| Query::parse(query, &Default::default()).ok();
        let found = all.values().flat_map(|o| hints(&all, (&o.key, &o.spec), read));
        expect.assert_eq(&found.map(|f| format!("{f}\n")).collect::<String>());
    }

    #[test]
    fn what_no_device_has_is_named() {
        check(
            "
{kind: Template, name: t, spec: {device: {labels: {kind: kiosk}}}}
---
{kind: Device, name: d, spec: {template: t, labels: {site: berlin}}}
---
{kind: Group, name: good, spec: {query: 'kind=kiosk, site=bonn, name=x, !lab'}}
---
{kind: Group, name: g, spec: {query: 'state=expected, site=berlin'}}
---
{kind: Window, name: w, spec: {match: 'tier!=lab', from: '02:00'}}
---
{kind: AlertRule, name: r, spec: {when: silent, match: serial}}
---
{kind: App, name: a, spec: {device: {match: 'name=d'}, image: a}}
",
            expect![[r#"
                App a: spec.device.match: no device has a label "name" (there are kind, site)
                Group g: spec.query: no device has a label "state" (there are kind, site)
                Window w: spec.match: no device has a label "tier" (there are kind, site)
                AlertRule r: spec.match: no device has a label "serial" (there are kind, site)
            "#]],
        );
        check(
            "{kind: Group, name: g, spec: {query: a=b}}",
            expect![[r#"
            Group g: spec.query: no device has a label "a" (none has any)
        "#]],
        );
    }

    #[test]
    fn an_image_from_elsewhere_than_a_registry_has_a_digest() {
        check(
            "
{kind: Datastore, name: far, spec: {type: registry, host: registry.example}}
---
{kind: Datastore, name: web, spec: {type: https, host: files.example}}
---
{kind: Image, name: tagged, spec: {datastore: far, path: 'a:1'}}
---
{kind: Image, name: own, spec: {path: 'a:1'}}
---
{kind: Image, name: bare, spec: {datastore: [far, web], path: disk.qcow2, format: qcow2}}
---
{kind: Image, name: sure, spec: {datastore: web, path: disk.qcow2, format: qcow2, sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}
---
{kind: App, name: a, spec: {device: d, image: sure, datastore: web}}
---
{kind: App, name: b, spec: {device: d, image: x, datastore: web}}
---
{kind: BaseOs, name: c, spec: {image: x, datastore: web, version: '1'}}
",
            expect![[r#"
                Image bare: spec.sha256: it is not said, and Datastore web is no registry: nodes have nothing to check what they download against, and an EVE device may refuse it
                App b: spec.image: Datastore web is no registry: nodes have nothing to check what they download against, and an EVE device may refuse it; name an Image with its path and sha256
                BaseOs c: spec.image: Datastore web is no registry: nodes have nothing to check what they download against, and an EVE device may refuse it; name an Image with its path and sha256
            "#]],
        );
    }
}
