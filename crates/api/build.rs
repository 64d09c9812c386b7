//! Compiles `proto/` with compilers that are libraries: no `protoc` is needed.
//!
//! Beside the Rust code it leaves `descriptors.pb`, which a test compares with the field tables of
//! the specification.

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
        // Nothing of a secret may reach a log: `cipher` says how it prints.
        .skip_debug(["org.lfedge.eve.common.EncryptionBlock"])
        .compile_fds(set)?;
    Ok(())
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
