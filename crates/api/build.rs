//! Compiles `proto/` with compilers that are libraries: no `protoc` is needed.
//!
//! Beside the Rust code it leaves `descriptors.pb`, which a test compares with the field tables of
//! the specification, and `messages.rs`, a list of all messages for a test that tries each.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(Path::new("proto"), &mut files)?;
    files.sort();

    let set = protox::compile(&files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    File::create(out.join("descriptors.pb"))?.write_all(&set.encode_to_vec())?;
    // Sorted maps: the same value is always the same bytes.
    prost_build::Config::new()
        .btree_map(["."])
        .enable_type_names()
        // Nothing of a secret may reach a log: `cipher` says how it prints.
        .skip_debug(["org.lfedge.eve.common.EncryptionBlock"])
        .compile_fds(set)?;
    File::create(out.join("messages.rs"))?.write_all(list(&out)?.as_bytes())?;
    Ok(())
}

/// `[entry::<api::pb::info::ZInfoMsg>(), …]`, of what was generated.
fn list(out: &Path) -> Result<String, Box<dyn Error>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(out)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut entries = Vec::new();
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(package) =
            name.strip_prefix("org.lfedge.eve.").and_then(|n| n.strip_suffix(".rs"))
        else {
            continue;
        };
        // Modules that are open, with how far their lines are indented.
        let mut open: Vec<(usize, String)> = Vec::new();
        let mut message = false;
        for line in fs::read_to_string(&file)?.lines() {
            let indent = line.len() - line.trim_start().len();
            let word = |start: &str| {
                let rest = line.trim_start().strip_prefix(start)?;
                rest.split([' ', '{', ';']).next().map(str::to_owned)
            };
            if line.trim_start().starts_with("#[derive(") {
                message = line.contains("::prost::Message)");
            } else if let Some(name) = word("pub mod ") {
                open.push((indent, name));
            } else if line.trim() == "}" && open.last().is_some_and(|(at, _)| *at == indent) {
                open.pop();
            } else if let Some(name) = word("pub struct ").filter(|_| message) {
                let modules: String = open.iter().map(|(_, m)| format!("{m}::")).collect();
                entries.push(format!("entry::<api::pb::{package}::{modules}{name}>()"));
                message = false;
            }
        }
    }
    Ok(format!("[{}]", entries.join(",\n")))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
