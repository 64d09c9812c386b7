//! The crates of a program to parts of a bill.

use super::purl::purl;
use super::{Bill, Id, Kind, Part, Relation, licence};
use crate::audit::{self, Crate, Crates};

/// Adds all crates of a program, and what each needs; the crate that the program is of.
pub(super) fn add(crates: &Crates, bill: &mut Bill) -> Option<Id> {
    let ids: Vec<Id> = crates.packages.iter().map(|c| bill.add(part(c))).collect();
    for (one, id) in crates.packages.iter().zip(&ids) {
        for need in one.dependencies.iter().filter_map(|n| ids.get(*n)) {
            let built = crates.packages.iter().zip(&ids).any(|(c, i)| i == need && is_tool(c));
            let how =
                if built && !is_tool(one) { Relation::BuiltWith } else { Relation::DependsOn };
            bill.relate(id, how, need);
        }
    }
    let root = crates.packages.iter().position(|c| c.root)?;
    ids.get(root).cloned()
}

fn is_tool(one: &Crate) -> bool {
    one.kind == audit::Kind::Build
}

fn part(one: &Crate) -> Part {
    let kind = if is_tool(one) { Kind::BuildCrate } else { Kind::Crate };
    let mut part = Part::new(kind, &*one.name, &*one.version);
    // A crate that is on no registry has no address there.
    if one.source == "crates.io" {
        part.purl = purl("cargo", None, &one.name, &one.version, &[]);
    }
    part.licence = one.license.as_deref().and_then(licence::of_crate);
    part.sha256 = one.checksum;
    part
}
