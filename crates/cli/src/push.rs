//! `eve image push|files`: single files that nodes download from the controller.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Context;
use controller::view::ImageFile;
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::archive::{self, Tar};
use crate::fleet::{To, time};
use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise, Step, WrongUse};
use crate::packed::Input;
use crate::push_image;

/// A call carries so much: it has to be through within the minute that a call may take.
const PART: u64 = 4 << 20;
const READ: usize = 256 << 10;

/// `eve image push`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file, a folder with oci-layout and index.json, or a tar with images, packed or not; `-`
    /// reads standard input
    file: PathBuf,
    /// Its name there: NAME:TAG of a container image [default: that of the file, or in the image]
    #[arg(conflicts_with = "named")]
    name: Option<String>,
    /// The same as NAME
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<String>,
    /// Which image of a layout or tar, if there are several
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Send the file as it is, for nodes' disks, also if it is empty or looks like a tar
    #[arg(long, conflicts_with = "from")]
    as_file: bool,
}

pub(crate) async fn run(to: &To, args: &Args) -> anyhow::Result<()> {
    let path = &args.file;
    let name = args.name.as_deref().or(args.named.as_deref());
    let from = args.from.as_deref();
    // Nothing is read or unpacked for nobody.
    to.client()?;
    if path.is_dir() {
        if !args.as_file && path.join("oci-layout").is_file() {
            return push_image::layout(to, path, name, from).await;
        }
        return Err(out::advised(
            format!("{} is a folder, and no OCI image layout", path.display()),
            "push a single file, or a folder with the files oci-layout and index.json",
        ));
    }
    let mut input = Input::open(path)?;
    if args.as_file {
        return file(to, input, name).await;
    }
    let mut looks = archive::looks_like(&mut input)?;
    if let Some(Tar::Packed(packing)) = looks {
        input = input.unpacked(packing)?;
        looks = Some(Tar::Plain);
    }
    if looks.is_some() && archive::is_one(&mut input) {
        return push_image::archive(to, input, name, from).await;
    }
    meant(&mut input, looks)?;
    if from.is_some() {
        let text = format!("{} holds no images to choose --from", path.display());
        return Err(WrongUse(text).into());
    }
    file(to, input, name).await
}

/// Sends a file, beginning where an earlier try ended.
async fn file(to: &To, input: Input, name: Option<&str>) -> anyhow::Result<()> {
    let shown = input.shown().to_owned();
    let name = match name.or(input.name()) {
        Some(name) => name.to_owned(),
        None => {
            let text = format!("{shown} has no name that can be sent; give NAME after it");
            return Err(WrongUse(text).into());
        }
    };
    let cannot = || format!("cannot read {shown}");
    let mut file = input.into_file();
    let client = to.client()?;
    let (digest, total) = digest_of(&mut file).with_context(cannot)?;
    let there = client.image_file(&name, &digest).await.or_advise()?;
    let step = Step::start(format!("sending {name}"));
    let mut whole = there.as_ref().filter(|f| f.at.is_some()).cloned();
    let mut have = there.map_or(0, |f| f.have);
    if have > total {
        return Err(out::advised(
            format!("the controller has {have} bytes of {name}, the file {total}"),
            "look at what it has with `eve image files`",
        ));
    }
    while whole.is_none() {
        let part = part(&mut file, have, total).with_context(cannot)?;
        let sent = client.send_image_part(&name, &digest, (have, total), part.into()).await;
        let sent = sent.or_advise()?;
        if sent.at.is_some() {
            whole = Some(sent);
        } else if sent.have <= have {
            return Err(out::advised(
                format!("the controller keeps nothing of {name} beyond byte {have}"),
                "look into the controller's log",
            ));
        } else {
            have = sent.have;
            step.bytes(Bytes(have), Bytes(total));
        }
    }
    step.done(Bytes(total));
    to.told(&whole, |_| format!("{name} sha256:{}", digest.hex()))
}

/// Refuses what nobody means as a disk: nothing at all, and what was to be a container image.
fn meant(input: &mut Input, looks: Option<Tar>) -> anyhow::Result<()> {
    let empty = input.head(1)?.is_empty();
    let shown = input.shown();
    let (what, advice) = match looks {
        _ if empty => {
            (format!("{shown} is empty"), "look whether what was to write it failed".to_owned())
        }
        None => return Ok(()),
        Some(Tar::Plain | Tar::Packed(_)) => (
            format!(
                "{shown} is a tar, and no container image: it has no index.json or manifest.json"
            ),
            "write it anew with `docker save` or `skopeo copy … oci-archive:FILE`".to_owned(),
        ),
        Some(Tar::Foreign(with)) => (
            format!("{shown} is packed as images are not read: gzip, zstd and xz are"),
            format!("unpack it with `{with} {shown}` and push the tar"),
        ),
    };
    Err(out::advised(what, format!("{advice}; --as-file sends it as a file for nodes' disks")))
}

/// The digest and size of a file; reads it whole.
fn digest_of(file: &mut File) -> std::io::Result<(Digest, u64)> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|p| !p.is_empty()) else {
            return Ok((Digest(hash.finalize().into()), size));
        };
        hash.update(part);
        size += part.len() as u64;
    }
}

/// The bytes from `first` on, at most [`PART`].
fn part(file: &mut File, first: u64, total: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let want = total.saturating_sub(first).min(PART);
    file.seek(SeekFrom::Start(first))?;
    file.take(want).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < want {
        return Err(std::io::Error::other("it became shorter meanwhile"));
    }
    Ok(bytes)
}

/// What is there.
pub(crate) async fn list(to: &To) -> anyhow::Result<()> {
    let client = to.client()?;
    let ask = async || client.ask::<Vec<ImageFile>>("/images").await.or_advise();
    to.print(ask, |all| {
        let row = |f: &ImageFile| {
            let at = f.at.map_or_else(|| "-".to_owned(), time);
            vec![f.name.clone(), Bytes(f.size).to_string(), at, f.author.clone(), f.sha256.clone()]
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        out::aligned(&["name", "size", "since", "by", "sha256"], &rows)
    })
    .await
}

/// `eve image tags`
pub(crate) async fn tags(to: &To) -> anyhow::Result<()> {
    let client = to.client()?;
    let ask = async || client.ask::<Vec<String>>("/tags").await.or_advise();
    to.print(ask, |all| {
        if all.is_empty() {
            say!("the registry holds no image; `eve image push` sends one");
        }
        all.iter().map(|tag| format!("{}\n", one_line(tag))).collect()
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::packed::tests::packed;

    #[test]
    fn a_file_is_read_in_parts_that_are_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..PART + 5).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let (digest, total) = digest_of(&mut file).unwrap();
        assert_eq!(total, PART + 5);
        assert_eq!(digest, Digest(Sha256::digest(&bytes).into()));
        let first = part(&mut file, 0, total).unwrap();
        let second = part(&mut file, PART, total).unwrap();
        assert_eq!(second.len(), 5);
        assert!([first, second].concat() == bytes);
        assert!(part(&mut file, PART, total + 1).is_err());
    }

    #[test]
    fn what_was_to_be_an_image_is_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let tar = {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(2);
            tar.append_data(&mut header, "etc/hosts", &b"::"[..]).unwrap();
            tar.into_inner().unwrap()
        };
        let disk = vec![7; 4096];
        let [(_, gz_tar), (_, zst_tar), (_, xz_tar)] = packed(&tar);
        let [(_, gz_disk), ..] = packed(&disk);
        let (is_tar, no_disk) = ("is a tar, and no container image", "is packed as images are not");
        for (name, bytes, want) in [
            ("rootfs.tar", tar.clone(), is_tar),
            ("rootfs", tar.clone(), is_tar),
            ("note.tar", b"words".to_vec(), is_tar),
            ("web.tar.gz", gz_tar.clone(), is_tar),
            ("web", gz_tar.clone(), is_tar),
            ("web.tar.zst", zst_tar, is_tar),
            ("web.txz", xz_tar, is_tar),
            ("web.tar.zst", disk.clone(), is_tar),
            ("web.tar.gz", gz_tar[..12].to_vec(), is_tar),
            ("web.tar.bz2", b"BZh9".to_vec(), no_disk),
            ("disk.raw", Vec::new(), "is empty"),
            ("machine.ova", tar.clone(), ""),
            ("disk.raw", disk.clone(), ""),
            ("disk.raw.gz", gz_disk, ""),
            ("disk.gz", gz_tar[..12].to_vec(), ""),
            ("a", b"a".to_vec(), ""),
        ] {
            store::save(dir.path(), name, &bytes).unwrap();
            let mut input = Input::open(&dir.path().join(name)).unwrap();
            let looks = archive::looks_like(&mut input).unwrap();
            let said = meant(&mut input, looks).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{name}: {said}");
        }
    }
}
