//! The whole way from packages to a qcow2, beside the same way with the tools that others use: unpack
//! the layers, join them to one tar, mksquashfs, veritysetup, mtools, sgdisk, qemu-img.
//!
//! The packages are those of this repository and, so that there is something to do, this machine's
//! files as further images. Both ways begin with the same gzipped layers and make the same parts; the
//! unified kernel image is given to the tools ready.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::cost::{Cost, Run, ratios, show, succeed};
use super::image::write;
use crate::tool::{command, root};

/// How many images the machine's files become.
const PARTS: usize = 8;
const ROUNDS: usize = 2;
const PROFILE: &str = "eve-2026";
/// The file of a package that changes.
const CHANGED: &str = "pkg/base/hosts";
/// What a build keeps between runs; everything else in the cache is packages.
const KEPT: [&str; 3] = ["steps", "blocks", "layers"];

/// Measures and prints.
pub(super) fn run(eve: &str, tree: &Path, folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let bench = Bench { eve, folder };
    bench.prepare(tree)?;
    let mut best: [Option<Cost>; 2] = [None, None];
    for _ in 0..ROUNDS {
        bench.forget()?;
        for (best, cost) in best.iter_mut().zip([bench.ours()?, bench.theirs()?]) {
            if best.is_none_or(|best: Cost| cost.wall < best.wall) {
                *best = Some(cost);
            }
        }
    }
    let [Some(cold), Some(theirs)] = best else { bail!("there were no rounds") };
    show("packages to qcow2: eve", cold);
    show("packages to qcow2: tools", theirs);
    ratios(cold, theirs);
    bench.steps()?;
    show("the same again", bench.ours()?);
    bench.one_file(cold)
}

struct Bench<'a> {
    eve: &'a str,
    folder: &'a Path,
}

impl Bench<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A copy of the repository whose image has the machine's files, too; its packages, built; and
    /// what the tools begin with.
    fn prepare(&self, tree: &Path) -> anyhow::Result<()> {
        let repo = self.at("repo");
        fs::create_dir_all(&repo)?;
        let copy = format!(
            "git ls-files -z | tar -c --null -T - | tar -x -C {}",
            shell_word(&repo.display().to_string())
        );
        succeed("sh", &["-c", &copy])?;
        fs::remove_file(repo.join("images/limits.toml"))?; // it is larger than ours may be
        self.cache()?;

        println!("building this repository's packages");
        self.eve_succeeds(&["build", "rootfs", "--version", "bench", "--out", &self.text("own")])?;
        fs::rename(self.at("own/amd64/bench/rootfs.tar"), self.at("own.tar"))?;
        succeed("gzip", &["-6", &self.text("own.tar")])?;

        let lists = self.at("lists");
        fs::create_dir_all(&lists)?;
        let yml = repo.join("images/rootfs.yml.in");
        let mut text = fs::read_to_string(&yml)?;
        let files = String::from_utf8(fs::read(tree.with_extension(""))?)?;
        let mut parts = vec![Vec::new(); PARTS];
        for (n, name) in files.split('\0').filter(|name| !name.is_empty()).enumerate() {
            parts[n * PARTS / files.matches('\0').count()].push(name);
        }
        for (n, names) in parts.iter().enumerate() {
            let tar = self.text(&format!("part-{n}.tar"));
            let list = lists.join(n.to_string());
            write(&list, names.join("\0").as_bytes())?;
            let list = list.display().to_string();
            // A root file system of ours has links where this machine may have folders.
            let args = ["--transform", "s,^,opt/bench/,", "-cf", &tar, "-C", "/", "--null"];
            succeed("tar", &[&args[..], &["--no-recursion", "-T", &list]].concat())?;
            let image = format!("docker.io/bench/part:{n}");
            self.image(&image, &tar)?;
            succeed("gzip", &["-6", "-k", "-f", &tar])?;
            let place = "  - STORAGE_TOOLS_TAG\n";
            text = text.replace(place, &format!("{place}  - {image}\n"));
        }
        fs::remove_file(&yml)?;
        write(&yml, text.as_bytes())?;
        self.ours()?; // its unified kernel image is what the tools get
        fs::copy(self.at("dist/amd64/bench/slot.img"), self.at("slot.img"))?;
        self.take_uki()?;
        write(&self.at("chain.sh"), CHAIN.as_bytes())
    }

    /// A cache with the packages of the usual one and nothing of its steps.
    fn cache(&self) -> anyhow::Result<()> {
        let usual = match std::env::var_os("EVE_CACHE") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?)
                .join(".cache/eve"),
        };
        fs::create_dir_all(usual.join("oci"))?;
        let cache = self.at("cache");
        fs::create_dir_all(&cache)?;
        for entry in fs::read_dir(&usual)? {
            let entry = entry?;
            let name = entry.file_name();
            // The images of the bench stay out of the usual cache.
            let own = KEPT.iter().chain(&["oci"]).any(|kept| name == **kept);
            if !own {
                symlink(entry.path(), cache.join(name))?;
            }
        }
        let (from, to) = (usual.join("oci").display().to_string(), self.text("cache/oci"));
        succeed("cp", &["-a", &from, &to])
    }

    /// Makes an image of a tar and brings it into the cache.
    fn image(&self, name: &str, tar: &str) -> anyhow::Result<()> {
        let script = self.at("image.sh");
        write(&script, IMAGE.as_bytes())?;
        succeed("sh", &["-e", &script.display().to_string(), name, tar, &self.text("layout")])?;
        let oci = self.text("cache/oci");
        let packed = self.text("layout.tar");
        succeed(self.eve, &["cache", "--cache", &oci, "import", &packed])
    }

    fn take_uki(&self) -> anyhow::Result<()> {
        let newest = fs::read_dir(self.at("cache/steps"))?.flatten();
        let mut found = newest.map(|e| e.path().join("uki.efi")).filter(|path| path.exists());
        let uki = found.next().context("no unified kernel image was made")?;
        fs::copy(uki, self.at("uki.efi"))?;
        Ok(())
    }

    /// Makes the next build a cold one.
    fn forget(&self) -> anyhow::Result<()> {
        for name in KEPT.iter().map(|name| format!("cache/{name}")).chain(["dist".to_owned()]) {
            let path = self.at(&name);
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    fn build_args(&self) -> Vec<String> {
        let out = self.text("dist");
        let args = ["build", "live", "--version", "bench", "--profile", PROFILE, "--json"];
        args.iter().chain(&["--out", &out]).map(|arg| (*arg).to_owned()).collect()
    }

    fn ours(&self) -> anyhow::Result<Cost> {
        let image = self.at("dist/amd64/bench/live.qcow2");
        fs::create_dir_all(self.at("dist/amd64/bench"))?;
        let args = self.build_args();
        let run = Run::new(self.eve, &args).env("EVE_CACHE", self.text("cache"));
        let run = run.env("EVE_DEVICE_TARGET_DIR", device_target());
        run.within(&self.at("repo")).measure(&image)
    }

    fn theirs(&self) -> anyhow::Result<Cost> {
        let script = ["-e".to_owned(), self.text("chain.sh"), self.text("")];
        Run::new("sh", &script).within(self.folder).measure(&self.at("theirs.qcow2"))
    }

    /// Where the time of the build before went.
    fn steps(&self) -> anyhow::Result<()> {
        let facts = fs::read(self.at("dist/amd64/bench/image.json"))?;
        let facts: serde_json::Value = serde_json::from_slice(&facts)?;
        let steps = facts["steps"].as_array().context("the build did not tell its steps")?;
        let told = steps.iter().map(|step| {
            let name = step["name"].as_str().unwrap_or("?");
            format!("{name} {} ms", step["millis"])
        });
        println!("  {}", told.collect::<Vec<_>>().join(", "));
        Ok(())
    }

    /// One changed file in one package, and whether a clean build gives the same.
    fn one_file(&self, cold: Cost) -> anyhow::Result<()> {
        let file = self.at("repo").join(CHANGED);
        let image = "dist/amd64/bench/live.qcow2";
        let mut best: Option<Cost> = None;
        for n in 0..=ROUNDS {
            let mut text = fs::read_to_string(&file)?;
            text += &format!("# {n}\n");
            fs::remove_file(&file)?;
            write(&file, text.as_bytes())?;
            let cost = self.ours()?;
            if best.is_none_or(|best| cost.wall < best.wall) {
                best = Some(cost);
            }
        }
        let Some(best) = best else { bail!("there were no rounds") };
        show("one file changed", best);
        self.steps()?;
        println!("  wall {:.3} of cold", best.wall / cold.wall);
        let (warm, clean) = (self.text("warm.qcow2"), self.text(image));
        fs::rename(self.at(image), &warm)?;
        self.forget()?;
        self.ours()?;
        succeed("cmp", &[&warm, &clean]).context("a clean build gives other bytes")?;
        println!("  the same bytes as a clean build's");
        Ok(())
    }

    fn eve_succeeds(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = command(self.eve);
        command.args(args).current_dir(self.at("repo")).env("EVE_CACHE", self.text("cache"));
        let status = command.env("EVE_DEVICE_TARGET_DIR", device_target()).status()?;
        if status.success() { Ok(()) } else { bail!("eve {} ended with {status}", args.join(" ")) }
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }
}

/// What must be compiled is compiled where it was before.
fn device_target() -> String {
    let device = std::env::var_os("EVE_DEVICE_TARGET_DIR");
    device.map_or_else(|| root().join("target/device"), PathBuf::from).display().to_string()
}

/// A word that a shell takes as it is.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Makes an OCI layout, in a tar, of a tar: name, tar, folder.
const IMAGE: &str = r#"
name=$1 tar=$2 to=$3
rm -rf "$to"; mkdir -p "$to/blobs/sha256"
put() { d=$(sha256sum < "$1" | cut -d' ' -f1); s=$(stat -c %s "$1"); mv "$1" "$to/blobs/sha256/$d"; }
diff=$(sha256sum < "$tar" | cut -d' ' -f1)
gzip -6 < "$tar" > "$to/x"; put "$to/x"; layer=$d layer_size=$s
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$diff" > "$to/x"
put "$to/x"; config=$d config_size=$s
v=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"%s.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' $v $v "$config" "$config_size" $v "$layer" "$layer_size" > "$to/x"
put "$to/x"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' $v "$d" "$s" "$name" > "$to/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' > "$to/oci-layout"
tar -cf "$to.tar" -C "$to" oci-layout index.json blobs
"#;

/// The way with tools, in the folder that it is given. The slot is what ours is: the file system, its
/// tree, the unified kernel image.
const CHAIN: &str = r#"
cd "$1"
rm -rf work; mkdir work; cd work
for layer in ../own.tar.gz ../part-*.tar.gz; do gzip -dc "$layer" > "$(basename "$layer" .gz)"; done
set --; for layer in *.tar; do set -- "$@" "@$layer"; done
bsdtar -cf rootfs "$@"
mksquashfs - slot.img -tar -comp zstd -Xcompression-level 15 -b 256K -noappend -quiet -no-progress < rootfs
veritysetup format slot.img verity --salt 00 --uuid 2b5c5d2e-7a52-4e59-b8f5-6c8d6a1f1f3a > /dev/null
cat verity ../uki.efi >> slot.img
sha256sum slot.img > slot.sum
truncate -s 36M esp.img; mformat -i esp.img -F ::; mmd -i esp.img ::EFI ::EFI/BOOT
mcopy -i esp.img ../uki.efi ::EFI/BOOT/BOOTX64.EFI
truncate -s 5M config.img; mformat -i config.img ::; mcopy -i config.img ../repo/conf/server ::server
size=$(( ($(stat -c %s slot.img) >> 20) + 1 ))
truncate -s "$(( size + 100 ))M" live.raw
sgdisk -o -n "1:2048:+40M" -t 1:ef00 -n "2:0:+${size}M" -n "3:0:+5M" live.raw > /dev/null
dd if=esp.img of=live.raw bs=1M seek=1 conv=notrunc,sparse status=none
dd if=slot.img of=live.raw bs=1M seek=41 conv=notrunc,sparse status=none
dd if=config.img of=live.raw bs=1M seek="$(( size + 41 ))" conv=notrunc,sparse status=none
qemu-img convert -c -O qcow2 live.raw ../theirs.qcow2
qemu-img resize -q ../theirs.qcow2 16G
sync ../theirs.qcow2
"#;
