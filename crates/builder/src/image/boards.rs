//! What a board wants on a disk besides the kernel image: rows of `images/boards.toml`, filled from
//! folders of firmware. No firmware is part of this repository, and which board wants what is data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use formats::fat::Files;
use model::{Bytes, Diagnose, Diagnosis, Who};
use serde::Deserialize;

use super::Arch;

/// The table, below the repository.
pub(super) const TABLE: &str = "images/boards.toml";

const TABLE_MAX: u64 = 1 << 20;
/// No file of a board's firmware is larger.
const FILE_MAX: u64 = 64 << 20;
/// Where the first partition starts unless a board keeps something in front.
const START: Bytes = Bytes::mib(1);
/// In front of it stand the boot record and the partition table: 34 sectors.
const TABLE_END: Bytes = Bytes(34 * 512);

/// What boards want.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boards {
    #[serde(default)]
    board: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    arch: Arch,
    platforms: Vec<String>,
    #[serde(default)]
    esp: Vec<String>,
    #[serde(default)]
    needed: Vec<String>,
    raw: Option<RawRow>,
    licence: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    file: String,
    settings: Option<String>,
    /// KiB.
    offset: u64,
    /// MiB.
    room: u64,
}

/// What one board's disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Files in the EFI system partition, from its root.
    pub esp: Files,
    /// What stands in front of the first partition.
    pub raw: Option<Raw>,
    /// Where the first partition starts.
    pub start: Bytes,
}

/// Bytes in front of the first partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The file.
    pub path: PathBuf,
    /// Where it goes, from the start of the disk.
    pub at: Bytes,
}

/// Why a board gets no disk.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The table is not one.
    #[error("cannot understand {path}")]
    Table {
        /// The table.
        path: PathBuf,
        /// Why not.
        source: toml::de::Error,
    },
    /// A pattern that is none.
    #[error("{board}: {pattern:?} is no pattern of file names")]
    Pattern {
        /// The row.
        board: String,
        /// What it says.
        pattern: String,
    },
    /// There is no such file.
    #[error("{board} needs {file}, which is in none of the firmware folders")]
    Missing {
        /// The row.
        board: String,
        /// The file or pattern.
        file: String,
    },
    /// A licence was not accepted.
    #[error("the firmware of {board} comes under the licence in {licence}")]
    Licence {
        /// The row.
        board: String,
        /// Its text.
        licence: PathBuf,
    },
    /// An offset that is no number, or a place that is not free.
    #[error("{path} {what}")]
    Place {
        /// The file.
        path: PathBuf,
        /// What is wrong, as a verb.
        what: String,
    },
}

impl Diagnose for BoardError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            BoardError::Read { .. } => "check that the path is right and may be used",
            BoardError::Table { .. } | BoardError::Pattern { .. } => "correct images/boards.toml",
            BoardError::Missing { .. } => "give the folder that holds it with --firmware",
            BoardError::Licence { .. } => "read it, and if you agree say --accept-license",
            BoardError::Place { .. } => "take the file as the board's maker gives it",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl Boards {
    /// Reads the table.
    pub fn read(path: &Path) -> Result<Boards, BoardError> {
        let text = read_text(path, TABLE_MAX)?;
        toml::from_str(&text).map_err(|source| BoardError::Table { path: path.to_owned(), source })
    }

    /// What the disk of this platform holds, from these folders of firmware; in each later one a file
    /// counts more. A platform that no row names takes nothing.
    pub fn board(
        &self,
        arch: Arch,
        platform: &str,
        firmware: &[PathBuf],
        accepted: bool,
    ) -> Result<Board, BoardError> {
        let mut board = Board { esp: Files::new(), raw: None, start: START };
        let is_for = |row: &&Row| row.arch == arch && row.platforms.iter().any(|p| p == platform);
        for row in self.board.iter().filter(is_for) {
            row.fill(&mut board, platform, firmware, accepted)?;
        }
        Ok(board)
    }
}

impl Row {
    fn fill(
        &self,
        board: &mut Board,
        platform: &str,
        firmware: &[PathBuf],
        accepted: bool,
    ) -> Result<(), BoardError> {
        if let Some(licence) = self.licence.as_ref().filter(|_| !accepted) {
            let licence = self.find(licence, firmware)?;
            return Err(BoardError::Licence { board: self.name.clone(), licence });
        }
        for (patterns, needed) in [(&self.esp, false), (&self.needed, true)] {
            for pattern in patterns {
                let pattern = pattern.replace("PLATFORM", platform);
                let found = self.matching(&pattern, firmware)?;
                if needed && found.is_empty() {
                    return Err(self.missing(&pattern));
                }
                for (name, path) in found {
                    board.esp.insert(name, read(&path, FILE_MAX)?);
                }
            }
        }
        if let Some(raw) = &self.raw {
            let path = self.find(&raw.file.replace("PLATFORM", platform), firmware)?;
            board.start = Bytes::mib(raw.room);
            board.raw = Some(raw.place(platform, path)?);
        }
        Ok(())
    }

    /// Files below the folders, by their paths there.
    fn matching(
        &self,
        pattern: &str,
        firmware: &[PathBuf],
    ) -> Result<Vec<(String, PathBuf)>, BoardError> {
        let bad = || BoardError::Pattern { board: self.name.clone(), pattern: pattern.to_owned() };
        let mut found = Vec::new();
        for folder in firmware {
            let root = glob::Pattern::escape(&folder.to_string_lossy());
            for path in glob::glob(&format!("{root}/{pattern}")).map_err(|_| bad())? {
                let path = path.map_err(|e| BoardError::Read {
                    path: e.path().to_owned(),
                    source: e.into(),
                })?;
                let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
                if let (Some(name), true) = (name, path.is_file()) {
                    found.push((name.to_owned(), path.clone()));
                }
            }
        }
        Ok(found)
    }

    fn find(&self, file: &str, firmware: &[PathBuf]) -> Result<PathBuf, BoardError> {
        let mut all = firmware.iter().rev().map(|folder| folder.join(file));
        all.find(|path| path.is_file()).ok_or_else(|| self.missing(file))
    }

    fn missing(&self, file: &str) -> BoardError {
        BoardError::Missing { board: self.name.clone(), file: file.to_owned() }
    }
}

impl RawRow {
    /// Where it goes: as the settings beside it say, else as the row does.
    fn place(&self, platform: &str, path: PathBuf) -> Result<Raw, BoardError> {
        let settings = self.settings.as_ref().map(|s| s.replace("PLATFORM", platform));
        let settings = settings.and_then(|s| Some(path.parent()?.join(s))).filter(|s| s.is_file());
        let mut offset = self.offset;
        if let Some(settings) = settings {
            let text = read_text(&settings, TABLE_MAX)?;
            let said = text.lines().filter_map(|line| line.trim().strip_prefix("offset"));
            let said = said.filter_map(|rest| rest.trim_start().strip_prefix('=')).next_back();
            if let Some(said) = said {
                let what = format!("has the offset {:?}, which is no number of KiB", said.trim());
                let bad = |_| BoardError::Place { path: settings.clone(), what };
                offset = said.trim().parse::<u32>().map_err(bad)?.into();
            }
        }
        let at = Bytes::kib(offset);
        let length = fs::metadata(&path)
            .map_err(|source| BoardError::Read { path: path.clone(), source })?
            .len();
        let (from, to) = (TABLE_END, Bytes::mib(self.room));
        if at < from || at.0 + length > to.0 {
            let what = format!(
                "takes {} from {at} on; free is what lies between the partition table, which ends \
                 at {from}, and the first partition at {to}",
                Bytes(length)
            );
            return Err(BoardError::Place { path, what });
        }
        Ok(Raw { path, at })
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, BoardError> {
    let fail = |source| BoardError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(fail)?.len() > limit {
        return Err(fail(io::Error::other(format!("it has more than {}", Bytes(limit)))));
    }
    fs::read(path).map_err(fail)
}

fn read_text(path: &Path, limit: u64) -> Result<String, BoardError> {
    String::from_utf8(read(path, limit)?).map_err(|e| {
        let source = io::Error::new(io::ErrorKind::InvalidData, e);
        BoardError::Read { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boards() -> Boards {
        Boards::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(TABLE)).unwrap()
    }

    fn firmware(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, body) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            store::save(path.parent().unwrap(), name, body).unwrap();
        }
        dir
    }

    const IMX: [(&str, &[u8]); 5] = [
        ("imx8mq_evk-flash.bin", &[0xAB; 3000]),
        ("imx8mq_evk-flash.conf", b"# of the EVK\noffset = 33\n"),
        ("imx8mq-evk.dtb", b"dtb"),
        ("NXP-EULA-LICENSE.txt", b"terms"),
        ("u-boot.bin", b"u-boot"),
    ];

    #[test]
    fn a_board_without_a_row_takes_nothing() {
        for (arch, platform) in [(Arch::Amd64, "generic"), (Arch::Amd64, "rpi")] {
            let board = boards().board(arch, platform, &[], false).unwrap();
            assert_eq!(board, Board { esp: Files::new(), raw: None, start: Bytes::mib(1) });
        }
    }

    #[test]
    fn a_raspberry_pi_gets_what_its_loader_reads() {
        let dir = firmware(&[
            ("config.txt", b"kernel=u-boot.bin"),
            ("u-boot.bin", b"u-boot"),
            ("start4x.elf", b"elf"),
            ("fixup4.dat", b"dat"),
            ("overlays/disable-bt.dtbo", b"dtbo"),
            ("kernel8.img", b"not ours"),
        ]);
        let later = firmware(&[("config.txt", b"mine")]);
        let folders = [dir.path().to_owned(), later.path().to_owned()];
        let board = boards().board(Arch::Arm64, "rpi", &folders, false).unwrap();
        let names: Vec<_> = board.esp.keys().map(String::as_str).collect();
        let want =
            ["config.txt", "fixup4.dat", "overlays/disable-bt.dtbo", "start4x.elf", "u-boot.bin"];
        assert_eq!(names, want);
        assert_eq!(board.esp["config.txt"], b"mine");
        let missing = boards().board(Arch::Arm64, "rpi", &folders[1..], false).unwrap_err();
        assert!(missing.to_string().starts_with("Raspberry Pi needs u-boot.bin"), "{missing}");
    }

    #[test]
    fn a_licence_comes_before_all_else() {
        let dir = firmware(&IMX);
        let folders = [dir.path().to_owned()];
        let refused = boards().board(Arch::Arm64, "imx8mq_evk", &folders, false).unwrap_err();
        assert!(matches!(refused, BoardError::Licence { .. }), "{refused:?}");
        assert_eq!(refused.diagnose().advice, "read it, and if you agree say --accept-license");
    }

    #[test]
    fn what_stands_in_front_goes_where_its_settings_say() {
        let dir = firmware(&IMX);
        let folders = [dir.path().to_owned()];
        let board = |folders| boards().board(Arch::Arm64, "imx8mq_evk", folders, true);
        let made = board(&folders).unwrap();
        assert_eq!((made.raw.unwrap().at, made.start), (Bytes::kib(33), Bytes::mib(8)));
        assert_eq!(made.esp.keys().collect::<Vec<_>>(), ["imx8mq-evk.dtb", "u-boot.bin"]);
        store::save(dir.path(), "imx8mq_evk-flash.conf", b"#offset=40\n").unwrap();
        assert_eq!(board(&folders).unwrap().raw.unwrap().at, Bytes::kib(32));
        for (bad, why) in [(&b"offset=x"[..], "no number"), (b"offset=16", "free is what lies")] {
            store::save(dir.path(), "imx8mq_evk-flash.conf", bad).unwrap();
            let refused = board(&folders).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        store::save(dir.path(), "imx8mq_evk-flash.conf", b"").unwrap();
        store::save(dir.path(), "imx8mq_evk-flash.bin", &vec![1; 8 << 20]).unwrap();
        assert!(matches!(board(&folders), Err(BoardError::Place { .. })));
    }
}
