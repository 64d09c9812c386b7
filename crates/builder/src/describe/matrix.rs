//! Which ZARCH, HV and PLATFORM go together, and with which kernel: a table, `images/matrix.toml`.

use model::{Diagnose, Diagnosis, Who};
use serde::Deserialize;

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Hypervisors; each goes with every row.
    hv: Vec<Hypervisor>,
    /// Architectures with their platforms.
    row: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hypervisor {
    name: String,
    /// Why we cannot build it yet. `None`: we can.
    missing: Option<String>,
}

/// A platform of an architecture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// As ZARCH says it: `amd64`.
    pub arch: String,
    /// As PLATFORM says it: `generic`.
    pub platform: String,
    /// The kernel's words for its consoles: `console=tty0 console=ttyS0,115200`.
    pub console: String,
    /// EVE's kernel for it.
    pub kernel: Kernel,
    /// Our package with a kernel for it: `pkg/kernel`. `None`: there is none yet.
    pub package: Option<String>,
}

/// A kernel of EVE's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// `v6.12.96`
    pub version: String,
    /// `generic`, or the maker's board.
    pub flavor: String,
    /// The flavor of its configuration; most have none.
    pub config: Option<String>,
    /// Twelve digits of the commit it is built of.
    pub commit: String,
}

/// Why a combination is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// The table itself is broken.
    #[error("{file}: {why}")]
    Table {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// No such architecture.
    #[error("there is no ZARCH={arch}; there are {known}")]
    Arch {
        /// What was asked for.
        arch: String,
        /// All there are.
        known: String,
    },
    /// No such hypervisor.
    #[error("there is no HV={hv}; there are {known}")]
    Hv {
        /// What was asked for.
        hv: String,
        /// All there are.
        known: String,
    },
    /// The platform is none, or one of another architecture.
    #[error("there is no PLATFORM={platform} for ZARCH={arch}; {arch} has {known}{elsewhere}")]
    Platform {
        /// For what it was asked.
        arch: String,
        /// What was asked for.
        platform: String,
        /// All there are.
        known: String,
        /// Empty, or for what it is: `; rt is a platform of amd64`.
        elsewhere: String,
    },
    /// It exists, and we cannot build it yet.
    #[error("ZARCH={arch} HV={hv} PLATFORM={platform} cannot be built yet: {why}")]
    NotYet {
        /// For what it was asked.
        arch: String,
        /// With which hypervisor.
        hv: String,
        /// For which platform.
        platform: String,
        /// What is missing.
        why: String,
    },
}

impl Diagnose for MatrixError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(
            Who::Operator,
            match self {
                Self::Table { .. } => "correct the table",
                Self::Arch { .. } | Self::Hv { .. } | Self::Platform { .. } => {
                    "choose one of these; `eve matrix` shows what goes together"
                }
                Self::NotYet { .. } => "`eve matrix` shows what can be built",
            },
        )
    }
}

impl Kernel {
    /// The name of its image, as EVE gives it.
    pub fn image(&self, arch: &str) -> String {
        let Kernel { version, flavor, commit, .. } = self;
        let config = self.config.as_ref().map(|c| format!("{c}-")).unwrap_or_default();
        format!("{}{arch}-{version}-{flavor}-{config}{commit}-gcc", Kernel::IMAGES)
    }

    /// What the names of EVE's kernel images begin with.
    pub const IMAGES: &str = "docker.io/lfedge/eve-kernel:eve-kernel-";
}

/// What a kernel image adds to a version: `k-…` for EVE's own, else its name, without the signs that
/// mean something in paths.
pub fn kernel_suffix(image: &str) -> String {
    let short = match image.strip_prefix(Kernel::IMAGES) {
        Some(rest) => format!("k-{rest}"),
        None => image.to_owned(),
    };
    short.replace(|c: char| !(c.is_ascii_alphanumeric() || "._-+".contains(c)), "_")
}

impl Row {
    /// What `KERNEL_TAG` stands for: our package if there is one, else EVE's image.
    pub fn kernel_tag(&self) -> String {
        match &self.package {
            Some(package) => format!("@pkg:{package}"),
            None => self.kernel.image(&self.arch),
        }
    }

    /// The family of platforms that an installer tells apart: `imx8` for all of i.MX 8.
    pub fn family(&self) -> &str {
        if self.platform.contains("imx8") { "imx8" } else { &self.platform }
    }
}

impl Matrix {
    /// Reads a table. `file` names it in errors.
    pub fn parse(file: &str, text: &str) -> Result<Matrix, MatrixError> {
        let broken = |why: String| MatrixError::Table { file: file.to_owned(), why };
        let matrix: Matrix = toml::from_str(text).map_err(|e| broken(e.to_string()))?;
        for (n, row) in matrix.row.iter().enumerate() {
            let is_same = |r: &Row| (&r.arch, &r.platform) == (&row.arch, &row.platform);
            if matrix.row[..n].iter().any(is_same) {
                return Err(broken(format!("{} {} stands there twice", row.arch, row.platform)));
            }
        }
        Ok(matrix)
    }

    /// All rows, in the order of the table.
    pub fn rows(&self) -> &[Row] {
        &self.row
    }

    /// All hypervisors, and for those that we cannot build yet why not.
    pub fn hypervisors(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.hv.iter().map(|hv| (hv.name.as_str(), hv.missing.as_deref()))
    }

    /// The row of a combination. Fails if the combination does not exist.
    pub fn find(&self, arch: &str, hv: &str, platform: &str) -> Result<&Row, MatrixError> {
        if self.row.iter().all(|r| r.arch != arch) {
            let known = joined(self.row.iter().map(|r| r.arch.as_str()));
            return Err(MatrixError::Arch { arch: arch.to_owned(), known });
        }
        if self.hv.iter().all(|h| h.name != hv) {
            let known = joined(self.hv.iter().map(|h| h.name.as_str()));
            return Err(MatrixError::Hv { hv: hv.to_owned(), known });
        }
        let of_arch = || self.row.iter().filter(|r| r.arch == arch);
        of_arch().find(|r| r.platform == platform).ok_or_else(|| {
            let others = self.row.iter().filter(|r| r.platform == platform);
            let others = joined(others.map(|r| r.arch.as_str()));
            MatrixError::Platform {
                arch: arch.to_owned(),
                platform: platform.to_owned(),
                known: joined(of_arch().map(|r| r.platform.as_str())),
                elsewhere: match others.as_str() {
                    "" => String::new(),
                    archs => format!("; {platform} is a platform of {archs}"),
                },
            }
        })
    }

    /// The row of a combination that can be built, with this kernel image if one is given.
    pub fn buildable(
        &self,
        arch: &str,
        hv: &str,
        platform: &str,
        kernel: Option<&str>,
    ) -> Result<&Row, MatrixError> {
        let row = self.find(arch, hv, platform)?;
        let missing = self.hv.iter().find(|h| h.name == hv).and_then(|h| h.missing.clone());
        let no_kernel = (row.package.is_none() && kernel.is_none()).then(|| {
            let image = row.kernel.image(arch);
            format!(
                "we have no kernel package for {platform} (EVE's is {image}: bring an image like \
                 it into the cache and name it with KERNEL_TAG)"
            )
        });
        match missing.or(no_kernel) {
            None => Ok(row),
            Some(why) => Err(MatrixError::NotYet {
                arch: arch.to_owned(),
                hv: hv.to_owned(),
                platform: platform.to_owned(),
                why,
            }),
        }
    }
}

/// Each once, in order.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = Vec::new();
    for name in names {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Matrix {
        Matrix::parse("matrix.toml", include_str!("../../../../images/matrix.toml")).unwrap()
    }

    #[test]
    fn every_row_of_the_reference_is_there_with_its_kernel() {
        let rows: Vec<String> = matrix()
            .rows()
            .iter()
            .map(|r| {
                format!("{} {}", r.platform, r.kernel.image(&r.arch).replace(Kernel::IMAGES, ""))
            })
            .collect();
        expect_test::expect![[r#"
            generic amd64-v6.12.96-generic-core-5ec53c5d956c-gcc
            rt amd64-v6.12.96-generic-rt-5ec53c5d956c-gcc
            generic arm64-v6.1.155-generic-417a12ac3d50-gcc
            imx8mp_pollux arm64-v6.1.155-generic-417a12ac3d50-gcc
            imx8mp_epc_r3720 arm64-v6.1.155-generic-417a12ac3d50-gcc
            imx8mq_evk arm64-v6.1.155-generic-417a12ac3d50-gcc
            nvidia-jp5 arm64-v5.10.192-nvidia-jp5-2e0dcfd3260d-gcc
            nvidia-jp6 arm64-v5.15.136-nvidia-jp6-4929f15eda41-gcc
            nvidia-jp7 arm64-v6.8.12-nvidia-jp7-7f5919c0eaef-gcc
            generic riscv64-v6.1.112-generic-bd5816893ca9-gcc"#]]
        .assert_eq(&rows.join("\n"));
    }

    #[track_caller]
    fn check(arch: &str, hv: &str, platform: &str, want: &str) {
        let got = match matrix().find(arch, hv, platform) {
            Ok(row) => format!("{} {}", row.arch, row.family()),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn a_wrong_combination_is_refused_with_what_is_allowed() {
        check("amd64", "kvm", "generic", "amd64 generic");
        check("arm64", "k", "nvidia-jp6", "arm64 nvidia-jp6");
        check("arm64", "xen", "imx8mq_evk", "arm64 imx8");
        check("mips", "kvm", "generic", "there is no ZARCH=mips; there are amd64, arm64, riscv64");
        check("amd64", "acrn", "generic", "there is no HV=acrn; there are kvm, k, mini, xen");
        check(
            "arm64",
            "kvm",
            "rt",
            "there is no PLATFORM=rt for ZARCH=arm64; arm64 has generic, imx8mp_pollux, \
             imx8mp_epc_r3720, imx8mq_evk, nvidia-jp5, nvidia-jp6, nvidia-jp7; rt is a platform of \
             amd64",
        );
        check(
            "riscv64",
            "kvm",
            "pluto",
            "there is no PLATFORM=pluto for ZARCH=riscv64; riscv64 has generic",
        );
    }

    #[test]
    fn what_exists_and_cannot_be_built_yet_says_what_is_missing() {
        let matrix = matrix();
        assert!(matrix.buildable("amd64", "kvm", "generic", None).is_ok());
        let xen = matrix.buildable("amd64", "xen", "generic", None).unwrap_err().to_string();
        assert!(
            xen.starts_with("ZARCH=amd64 HV=xen PLATFORM=generic cannot be built yet: "),
            "{xen}"
        );
        let jp5 = matrix.buildable("arm64", "kvm", "nvidia-jp5", None).unwrap_err().to_string();
        assert!(jp5.contains("eve-kernel-arm64-v5.10.192-nvidia-jp5-2e0dcfd3260d-gcc"), "{jp5}");
        assert!(matrix.buildable("arm64", "kvm", "nvidia-jp5", Some("my/kernel:1")).is_ok());
    }

    #[test]
    fn a_broken_table_is_told() {
        let twice = "hv = []\n[[row]]\narch = \"a\"\nplatform = \"p\"\nconsole = \"\"\nkernel = {version = \"1\", \
                     flavor = \"f\", commit = \"c\"}\n";
        let row = twice.split_once('\n').map(|(_, row)| row).unwrap();
        for (text, want) in [
            (format!("{twice}{row}"), "a p stands there twice"),
            (twice.replace("arch", "arhc"), "unknown field `arhc`"),
        ] {
            let error = Matrix::parse("m.toml", &text).unwrap_err().to_string();
            assert!(error.starts_with("m.toml: ") && error.contains(want), "{error}");
        }
    }
}
