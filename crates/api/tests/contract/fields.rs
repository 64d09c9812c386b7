//! The messages are those of the specification: every field, number, type and name.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::common::{given, read};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// `file,package,message,field,number,type,label` of everything that we compile.
fn ours() -> BTreeSet<String> {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.pb"));
    let set = FileDescriptorSet::decode(bytes.as_slice()).unwrap();
    let mut rows = BTreeSet::new();
    for file in set.file.iter().filter(|f| !f.name().starts_with("google/")) {
        let head = format!("{},{}", file.name(), file.package());
        for message in &file.message_type {
            messages(&head, "", message, &mut rows);
        }
        for declared in &file.enum_type {
            values(&head, "", declared, &mut rows);
        }
    }
    rows
}

fn messages(head: &str, outer: &str, message: &DescriptorProto, rows: &mut BTreeSet<String>) {
    let name = format!("{outer}{}", message.name());
    if message.field.is_empty() {
        rows.insert(format!("{head},{name},,,,"));
    }
    for range in &message.reserved_range {
        // The end is not included.
        let (first, last) = (range.start(), range.end() - 1);
        let numbers = if first == last { format!("{first}") } else { format!("{first}-{last}") };
        rows.insert(format!("{head},{name},,{numbers},,reserved"));
    }
    for reserved in &message.reserved_name {
        rows.insert(format!("{head},{name},{reserved},,,reserved_name"));
    }
    for field in &message.field {
        let map = message.nested_type.iter().find(|n| {
            n.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
                && field.type_name().ends_with(&format!(".{}", n.name()))
        });
        let (kind, label) = match map {
            Some(entry) => {
                let (key, value) = (kind_of(&entry.field[0]), kind_of(&entry.field[1]));
                (format!("\"map<{key},{value}>\""), "map".to_owned())
            }
            None => (kind_of(field), label_of(field, message)),
        };
        let (field, number) = (field.name(), field.number());
        rows.insert(format!("{head},{name},{field},{number},{kind},{label}"));
    }
    let outer = format!("{name}.");
    for nested in &message.nested_type {
        if !nested.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
            messages(head, &outer, nested, rows);
        }
    }
    for nested in &message.enum_type {
        values(head, &outer, nested, rows);
    }
}

fn values(head: &str, outer: &str, declared: &EnumDescriptorProto, rows: &mut BTreeSet<String>) {
    let name = format!("{outer}{}", declared.name());
    for value in &declared.value {
        rows.insert(format!("{head},{name},{},{},enum_value,", value.name(), value.number()));
    }
    for range in &declared.reserved_range {
        // Here, unlike in messages, the end is included.
        assert_eq!(range.start(), range.end(), "write the test for ranges in enums");
        rows.insert(format!("{head},{name},,{},,reserved", range.start()));
    }
    for reserved in &declared.reserved_name {
        rows.insert(format!("{head},{name},{reserved},,,reserved_name"));
    }
}

fn kind_of(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn label_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    if field.label() == Label::Repeated {
        return "repeated".to_owned();
    }
    match field.oneof_index {
        _ if field.proto3_optional() => "optional".to_owned(),
        Some(at) => {
            let at = usize::try_from(at).unwrap();
            format!("oneof:{}", message.oneof_decl[at].name())
        }
        None => String::new(),
    }
}

/// The tables, as far as we compare them; both files, the newer fields too.
fn theirs(table: PathBuf) -> BTreeSet<String> {
    let newer = table.with_file_name("api-fields-newer.csv");
    let mut rows = BTreeSet::new();
    for file in [table, newer] {
        let text = String::from_utf8(read(file)).unwrap();
        for line in text.lines().skip(1) {
            // The last two columns are not about the wire.
            let (row, _) = line.rsplit_once(',').unwrap();
            let (row, _) = row.rsplit_once(',').unwrap();
            rows.insert(row.to_owned());
        }
    }
    rows
}

#[test]
fn every_field_has_the_number_and_type_of_the_specification() {
    let Some(table) = given("EVE_API_FIELDS", "../shared/spec/api-fields.csv") else { return };
    let (ours, theirs) = (ours(), theirs(table));
    assert!(theirs.len() > 2000, "the table is not whole: {} rows", theirs.len());
    let mut report = String::new();
    for row in theirs.difference(&ours) {
        writeln!(report, "missing: {row}").unwrap();
    }
    for row in ours.difference(&theirs) {
        writeln!(report, "not in the table: {row}").unwrap();
    }
    assert!(report.is_empty(), "{report}");
}
