//! `eve image push` of an OCI image layout, or of a tar with images: into the controller's registry,
//! by the distribution API. What is there already is not sent again.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use controller::client::{Client, escaped};
use model::{Bytes, Digest};
use store::{Descriptor, Index, Layout, Manifest, Ref, media_type};

use crate::archive::Archive;
use crate::fleet::To;
use crate::out::{self, OrAdvise, Step, WrongUse};
use crate::packed::Input;

/// A call carries so much: it has to be through within the minute that a call may take.
const PART: u64 = 4 << 20;
/// The size that the distribution spec asks registries to take.
const MANIFEST_MAX: Bytes = Bytes::mib(4);
/// Indexes in indexes, at most.
const DEPTH_MAX: usize = 4;

/// Where an image's blobs are.
enum Source {
    Layout(Layout),
    Archive(Archive),
}

impl Source {
    fn has(&self, what: &Descriptor) -> bool {
        match self {
            Source::Layout(layout) => layout.has(&what.digest, Some(what.size)),
            Source::Archive(archive) => archive.has(what),
        }
    }

    /// A document whole.
    fn read(&self, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        match self {
            Source::Layout(layout) => layout.read(digest, MANIFEST_MAX).or_advise(),
            Source::Archive(archive) => archive.read(digest, MANIFEST_MAX),
        }
    }

    /// A file with a blob in it, where it begins there, and its size.
    fn open(&self, digest: &Digest) -> anyhow::Result<(File, u64, Bytes)> {
        match self {
            Source::Layout(layout) => {
                let (file, size) = layout.open_blob(digest).or_advise()?;
                Ok((file, 0, size))
            }
            Source::Archive(archive) => archive.open_blob(digest),
        }
    }
}

/// An image, and what it is called in the registry.
struct Image {
    source: Source,
    target: Descriptor,
    repository: String,
    tag: String,
}

/// Sends an image of a layout; `from` is its name there, if there are several.
pub(crate) async fn layout(
    to: &To,
    path: &Path,
    name: Option<&str>,
    from: Option<&str>,
) -> anyhow::Result<()> {
    let layout = Layout::open(path).or_advise()?;
    let refs = layout.refs().or_advise()?;
    let all: Vec<&str> = refs.iter().map(|r| r.name.as_str()).collect();
    let shown = path.display().to_string();
    let chosen = refs.get(choose(&shown, &all, from)?);
    let Ref { name: is, target } = chosen.cloned().ok_or_else(|| nothing(&shown))?;
    let folder = path.canonicalize().ok();
    let folder = folder.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
    let named = name.map(str::to_owned).or_else(|| named(&is, Some(folder.unwrap_or("image"))));
    let named = named.ok_or_else(|| nothing(&shown))?;
    send(to, Source::Layout(layout), target, &named).await
}

/// Sends an image of a tar; `from` is its name there, if there are several.
pub(crate) async fn archive(
    to: &To,
    input: Input,
    name: Option<&str>,
    from: Option<&str>,
) -> anyhow::Result<()> {
    let shown = input.shown().to_owned();
    let stem = input.name().map(stem).map(str::to_owned);
    let step = Step::start(format!("reading {shown}"));
    let mut archive = Archive::open(input)?;
    step.done("");
    let names = archive.names();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let at = choose(&shown, &all, from)?;
    let is = names.get(at).ok_or_else(|| nothing(&shown))?;
    let target = archive.target(at)?;
    let named = match name {
        Some(name) => name.to_owned(),
        None => named(is, stem.as_deref()).ok_or_else(|| {
            let text = format!(
                "{shown} does not say what the image is called: `eve image push - NAME:TAG`"
            );
            WrongUse(text)
        })?,
    };
    send(to, Source::Archive(archive), target, &named).await
}

/// `web` of `web.tar.gz`.
fn stem(name: &str) -> &str {
    let bare = match name.rsplit_once('.') {
        Some((bare, _)) if !bare.is_empty() => bare,
        _ => name,
    };
    bare.strip_suffix(".tar").filter(|b| !b.is_empty()).unwrap_or(bare)
}

fn nothing(shown: &str) -> anyhow::Error {
    let text = format!("{shown} names no image");
    out::advised(text, "name one in it, as `skopeo copy … oci:DIR:NAME` does")
}

/// Which of the images of a layout or tar is meant, by its name as it stands there or as the
/// registry will have it.
fn choose(shown: &str, all: &[&str], from: Option<&str>) -> anyhow::Result<usize> {
    let meant = |name: &str| from.is_none_or(|f| name == f || bare(name) == f);
    let found: Vec<usize> = (0..).zip(all).filter(|(_, n)| meant(n)).map(|(at, _)| at).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] if all.is_empty() => Err(nothing(shown)),
        [] => {
            let text = format!("{shown} has no image of this name");
            Err(out::advised(text, format!("--from one of: {}", all.join(", "))))
        }
        _ => {
            let text = format!("{shown} has {} images", all.len());
            Err(out::advised(text, format!("choose one with --from: {}", all.join(", "))))
        }
    }
}

async fn send(to: &To, source: Source, target: Descriptor, named: &str) -> anyhow::Result<()> {
    let (repository, tag) = split(named)?;
    let image = Image { source, target, repository, tag };
    let client = to.client()?;
    let step = Step::start(format!("sending {}:{}", image.repository, image.tag));
    let mut sent = Sent::default();
    image.send(&client, &image.target, Some(&image.tag), 0, &mut sent, &step).await?;
    step.done(format!("{} sent, {} there already", sent.bytes, sent.there));
    let digest = image.target.digest;
    let facts = serde_json::json!({
        "name": format!("{}:{}", image.repository, image.tag), "digest": digest.to_string(),
    });
    to.told(&facts, |_| format!("{}:{} {digest}", image.repository, image.tag))
}

/// A name for the registry: that in the layout, without the host of another registry; if that is a
/// tag only, the name of the folder or file comes before it. `None`: that has none.
fn named(name: &str, stem: Option<&str>) -> Option<String> {
    let bare = bare(name);
    let is_tag = !bare.contains(['/', ':', '@']) && bare.len() == name.len();
    if is_tag { stem.map(|stem| format!("{stem}:{bare}")) } else { Some(bare.to_owned()) }
}

/// A name without the host of another registry. Docker writes `neu:3` as it is or, since it keeps
/// images in containerd, as `docker.io/library/neu:3`: both are `neu:3` here.
fn bare(name: &str) -> &str {
    match name.split_once('/') {
        Some(("docker.io", rest)) => rest.strip_prefix("library/").unwrap_or(rest),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => name,
    }
}

/// Repository and tag.
fn split(name: &str) -> Result<(String, String), WrongUse> {
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    };
    let part = |p: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        !p.is_empty() && p.chars().all(plain)
    };
    // As the distribution spec has them: anything else would mean something in the call's address.
    let is_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let tagged = (1..=128).contains(&tag.len()) && tag.chars().all(is_tag);
    if !tagged || !repository.split('/').all(part) {
        let text = format!(
            "{name:?} is no name of an image: lower-case letters, digits, . _ - and / before the \
             tag, letters, digits, . _ - in it"
        );
        return Err(WrongUse(text));
    }
    Ok((repository.to_owned(), tag.to_owned()))
}

/// What was done.
#[derive(Default)]
struct Sent {
    bytes: Bytes,
    there: usize,
    done: BTreeSet<Digest>,
}

impl Image {
    /// Sends a manifest or an index with everything that it refers to, that first.
    async fn send(
        &self,
        client: &Client,
        what: &Descriptor,
        tag: Option<&str>,
        depth: usize,
        sent: &mut Sent,
        step: &Step,
    ) -> anyhow::Result<()> {
        let bytes = self.source.read(&what.digest)?;
        let name = what.digest.to_string();
        if media_type::is_index(&what.media_type) {
            if depth >= DEPTH_MAX {
                let text = format!("{name} is an index in more than {DEPTH_MAX} others");
                return Err(out::advised(text, "push one of its images"));
            }
            let index = Index::parse(&bytes, &name).or_advise()?;
            for inner in &index.manifests {
                // A layout may hold the images of some platforms only; the registry says which
                // one it misses.
                if self.source.has(inner) {
                    Box::pin(self.send(client, inner, None, depth + 1, sent, step)).await?;
                }
            }
        } else {
            let manifest = Manifest::parse(&bytes, &name).or_advise()?;
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                self.blob(client, blob, sent, step).await?;
            }
        }
        let path = format!("/v2/{}/manifests/{}", self.repository, tag.unwrap_or(&name));
        let kind = [("content-type", what.media_type.as_str())];
        client.registry("PUT", &path, &kind, bytes).await.or_advise()?;
        Ok(())
    }

    async fn blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        sent: &mut Sent,
        step: &Step,
    ) -> anyhow::Result<()> {
        if !sent.done.insert(blob.digest) {
            return Ok(());
        }
        let blobs = format!("/v2/{}/blobs", self.repository);
        let there = client.registry("HEAD", &format!("{blobs}/{}", blob.digest), &[], "").await;
        if there.is_ok() {
            sent.there += 1;
            return Ok(());
        }
        let (file, first, size) = self.source.open(&blob.digest)?;
        let place = client.registry("POST", &format!("{blobs}/uploads/"), &[], "").await;
        let place = place.or_advise()?.unwrap_or_default();
        let mut at = 0;
        while at < size.0 {
            let mut part = vec![0; usize::try_from(PART.min(size.0 - at))?];
            let read = file.read_at(&mut part, first + at)?;
            part.truncate(read);
            if part.is_empty() {
                let text = format!("{} became shorter meanwhile", blob.digest);
                return Err(out::advised(text, "push it again when nobody writes to it"));
            }
            let next = at + part.len() as u64;
            let range = format!("{at}-{}", next - 1);
            let range = [("content-range", range.as_str())];
            client.registry("PATCH", &place, &range, part).await.or_advise()?;
            at = next;
            step.bytes(Bytes(at), size);
        }
        let end = format!("{place}?digest={}", escaped(&blob.digest.to_string()));
        client.registry("PUT", &end, &[], "").await.or_advise()?;
        sent.bytes = Bytes(sent.bytes.0 + size.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gets_a_name_that_registries_take() {
        for (name, is) in [
            ("latest", "web:latest"),
            ("docker.io/library/nginx:1.27", "nginx:1.27"),
            ("docker.io/team/hello:1", "team/hello:1"),
            ("library/nginx:1.27", "library/nginx:1.27"),
            ("quay.io/library/nginx:1", "library/nginx:1"),
            ("localhost/hello:latest", "hello:latest"),
            ("hello:2", "hello:2"),
            ("team/hello", "team/hello"),
        ] {
            assert_eq!(named(name, Some("web")).unwrap(), is);
        }
        assert_eq!(named("latest", None), None);
        assert_eq!(named("hello:2", None).unwrap(), "hello:2");
        for (file, is) in [
            ("web.tar", "web"),
            ("web.tar.gz", "web"),
            ("web.tgz", "web"),
            ("web", "web"),
            ("web-1.2.tar.zst", "web-1.2"),
            (".tar", ".tar"),
        ] {
            assert_eq!(stem(file), is);
        }
        assert_eq!(split("team/hello").unwrap(), ("team/hello".into(), "latest".into()));
        assert_eq!(split("a/b:1.0").unwrap(), ("a/b".into(), "1.0".into()));
        let all = ["docker.io/library/neu:3", "neu:4"];
        assert_eq!(choose("it", &all, Some("neu:3")).unwrap(), 0);
        assert_eq!(choose("it", &all, Some(all[0])).unwrap(), 0);
        assert!(choose("it", &all, None).is_err() && choose("it", &all, Some("neu")).is_err());
        for wrong in ["Web:1", "a@b", "a//b", "a:", "", "a:1?b", "a:1 2", "a:b@c"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
