//! What the person who installs wants: words of the kernel command line and answers in a file, by
//! the names that EVE's installer gave them.
//!
//! A word counts only as a whole, `name` or `name=value`. Names of ours that nobody knows are told,
//! not ignored: a misspelt wish must not end in an erased disk.

use model::boot::PowerKind;

/// What is wanted of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The disk to install onto, as the kernel calls it: `sda`. `None`: to be chosen.
    pub disk: Option<String>,
    /// Disks for P3. None: the disk that is installed onto.
    pub persist: Vec<String>,
    /// The controller, instead of that in CONFIG.
    pub server: Option<String>,
    /// The serial number that the node tells, instead of that in CONFIG.
    pub soft_serial: Option<String>,
    /// Disks whose tables are to be wiped first.
    pub nuke: Nuke,
    /// What is to stay as it is.
    pub skip: Skip,
    /// Wait for a person before anything is written.
    pub pause_before: bool,
    /// Wait for a person at the end.
    pub pause_after: bool,
    /// What becomes of the machine.
    pub then: PowerKind,
    /// Only tell what this machine is.
    pub report_only: bool,
    /// Words that are known, but change nothing here.
    pub without_effect: Vec<String>,
}

/// Disks whose partition tables are wiped before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nuke {
    /// None.
    No,
    /// These.
    Disks(Vec<String>),
    /// Every disk but the boot medium; nothing is installed then.
    All,
}

/// What keeps its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skip {
    /// The slots and the EFI system partition.
    pub rootfs: bool,
    /// CONFIG.
    pub config: bool,
    /// P3.
    pub persist: bool,
}

impl Skip {
    /// Whether anything is to stay.
    pub fn any(self) -> bool {
        self.rootfs || self.config || self.persist
    }
}

impl Default for Wish {
    fn default() -> Wish {
        Wish {
            disk: None,
            persist: Vec::new(),
            server: None,
            soft_serial: None,
            nuke: Nuke::No,
            skip: Skip::default(),
            pause_before: false,
            pause_after: false,
            then: PowerKind::PowerOff,
            report_only: false,
            without_effect: Vec::new(),
        }
    }
}

/// Why a wish cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// A name with our prefix that means nothing.
    #[error("nothing is called {0}")]
    Unknown(String),
    /// A value that cannot be.
    #[error("{name}={value}: {why}")]
    Value {
        /// The wish.
        name: String,
        /// What was given; empty if nothing was.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is understood, but no part of this installer.
    #[error("{name}: {why}")]
    NotHere {
        /// The wish.
        name: String,
        /// What to do instead.
        why: &'static str,
    },
    /// The file of answers is no object of names and values.
    #[error("the answers are not a JSON object of names and values: {0}")]
    Answers(String),
}

/// The largest file of answers taken.
const ANSWERS_MAX: usize = 64 << 10;

/// Reads the kernel command line and the file of answers, if there is one. A word of the command line
/// counts more: it was typed for this boot.
pub fn read(command_line: &str, answers: Option<&[u8]>) -> Result<Wish, WishError> {
    let mut wish = Wish::default();
    for (name, value) in answers.map(words_of_answers).transpose()?.unwrap_or_default() {
        wish.apply(&name, value.as_deref())?;
    }
    for word in command_line.split_ascii_whitespace() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        wish.apply(name, value)?;
    }
    Ok(wish)
}

/// The object's members as words: lists are joined by commas, `true` is a bare name.
fn words_of_answers(bytes: &[u8]) -> Result<Vec<(String, Option<String>)>, WishError> {
    use serde_json::Value;
    let bad = |why: &str| WishError::Answers(why.to_owned());
    if bytes.len() > ANSWERS_MAX {
        return Err(bad("it is longer than 64 KiB"));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(&e.to_string()))?;
    let Value::Object(members) = value else { return Err(bad("it is something else")) };
    let mut words = Vec::new();
    for (name, value) in members {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(bad(&format!("{name} has a value of another kind"))),
        };
        let value = match &value {
            Value::Null => continue,
            Value::Bool(on) => Some(if *on { "1" } else { "0" }.to_owned()),
            Value::Array(all) => {
                Some(all.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(","))
            }
            one => Some(text(one)?),
        };
        words.push((name.to_ascii_lowercase(), value));
    }
    Ok(words)
}

impl Wish {
    fn apply(&mut self, name: &str, value: Option<&str>) -> Result<(), WishError> {
        let bad = |why| WishError::Value {
            name: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            why,
        };
        let not_here = |why| Err(WishError::NotHere { name: name.to_owned(), why });
        let flag = || match value {
            None | Some("1" | "true" | "yes") => Ok(true),
            Some("0" | "false" | "no") => Ok(false),
            Some(_) => Err(bad("it is on by its name alone, or 1 or 0")),
        };
        let disk = |text: &str| disk_name(text).ok_or_else(|| bad("that is no name of a disk"));
        let disks = || -> Result<Vec<String>, WishError> {
            value.unwrap_or_default().split(',').filter(|d| !d.is_empty()).map(disk).collect()
        };
        match name {
            "eve_install_disk" => self.disk = Some(disk(value.unwrap_or_default())?),
            "eve_persist_disk" => self.persist = disks()?,
            "eve_install_server" => {
                let why = "a server is host or host:port";
                self.server = Some(line(value, is_server).ok_or_else(|| bad(why))?);
            }
            "eve_soft_serial" => {
                let why = "a serial number has 1 to 250 printable characters";
                self.soft_serial = Some(line(value, is_serial).ok_or_else(|| bad(why))?);
            }
            "eve_nuke_disks" => self.nuke = Nuke::Disks(disks()?),
            "eve_nuke_all_disks" => {
                let all = flag()?;
                if all {
                    self.nuke = Nuke::All;
                }
            }
            "eve_install_skip_rootfs" => self.skip.rootfs = flag()?,
            "eve_install_skip_config" => self.skip.config = flag()?,
            "eve_install_skip_persist" => self.skip.persist = flag()?,
            "eve_pause_before_install" => self.pause_before = flag()?,
            "eve_pause_after_install" => self.pause_after = flag()?,
            "eve_reboot_after_install" => {
                self.then = if flag()? { PowerKind::Reboot } else { PowerKind::PowerOff };
            }
            "eve_blackbox" => self.report_only = flag()?,
            "eve_install_zfs_with_raid_level" if value != Some("none") => {
                return not_here("storage pools cannot be made yet: leave it out for ext4");
            }
            "interactive" if flag()? => {
                return not_here("there is no dialogue yet: name the disk with eve_install_disk=");
            }
            "eve_install_zfs_with_raid_level"
            | "eve_install_skip_zfs_checks"
            // Names in a file of answers come in small letters.
            | "eve_install_k3s_etcd_sizegb"
            | "eve_install_k3s_etcd_sizeGB"
            | "eve_disable_verify"
            | "eve_skip_dev_cert"
            | "eve_install_debug" => self.without_effect.push(name.to_owned()),
            _ if ["eve_install", "eve_nuke", "eve_pause", "eve_persist"]
                .iter()
                .any(|ours| name.starts_with(ours)) =>
            {
                return Err(WishError::Unknown(name.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// `sda` of `sda` or `/dev/sda`.
fn disk_name(text: &str) -> Option<String> {
    let name = text.strip_prefix("/dev/").unwrap_or(text);
    let good = |c: char| c.is_ascii_alphanumeric() || "-_!".contains(c);
    ((1..=32).contains(&name.len()) && name.chars().all(good)).then(|| name.to_owned())
}

fn line(value: Option<&str>, good: fn(&str) -> bool) -> Option<String> {
    value.filter(|text| good(text)).map(ToOwned::to_owned)
}

fn is_server(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
    let letter = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let port = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    (1..=255).contains(&host.len()) && host.chars().all(letter) && port
}

fn is_serial(text: &str) -> bool {
    (1..=250).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command_line: &str, want: Wish) {
        assert_eq!(read(command_line, None), Ok(want), "{command_line}");
    }

    #[test]
    fn each_knob_is_understood() {
        let plain = Wish::default;
        check("console=ttyS0 quiet eve.slot=INSTALLER root=x", plain());
        check("eve_install_disk=sda", Wish { disk: Some("sda".into()), ..plain() });
        check("eve_install_disk=/dev/nvme0n1", Wish { disk: Some("nvme0n1".into()), ..plain() });
        check(
            "eve_persist_disk=sdb,sdc",
            Wish { persist: vec!["sdb".into(), "sdc".into()], ..plain() },
        );
        check("eve_install_server=a.b:8443", Wish { server: Some("a.b:8443".into()), ..plain() });
        check("eve_soft_serial=X1", Wish { soft_serial: Some("X1".into()), ..plain() });
        check("eve_nuke_all_disks", Wish { nuke: Nuke::All, ..plain() });
        check("eve_nuke_disks=sdb", Wish { nuke: Nuke::Disks(vec!["sdb".into()]), ..plain() });
        let skip = Skip { rootfs: true, config: true, persist: true };
        check(
            "eve_install_skip_rootfs eve_install_skip_config=1 eve_install_skip_persist=true",
            Wish { skip, ..plain() },
        );
        check("eve_reboot_after_install", Wish { then: PowerKind::Reboot, ..plain() });
        check(
            "eve_pause_before_install eve_pause_after_install eve_blackbox",
            Wish { pause_before: true, pause_after: true, report_only: true, ..plain() },
        );
        check(
            "eve_skip_dev_cert",
            Wish { without_effect: vec!["eve_skip_dev_cert".into()], ..plain() },
        );
    }

    /// The builder takes these names for a file of answers.
    #[test]
    fn each_name_of_the_list_means_something() {
        for name in model::installer::WISHES {
            let answers = serde_json::json!({ name: ["x"] }).to_string();
            let known = read("", Some(answers.as_bytes()));
            assert!(!matches!(known, Err(WishError::Unknown(_))), "{name}");
            // What means nothing leaves no trace.
            assert_ne!(known, Ok(Wish::default()), "{name}");
        }
    }

    #[test]
    fn a_word_counts_as_a_whole_only() {
        check("x_eve_nuke_all_disks noeve_reboot_after_install", Wish::default());
        check("a=eve_nuke_all_disks", Wish::default());
        check("eve_nuke_all_disks=0 eve_reboot_after_install=no", Wish::default());
    }

    #[track_caller]
    fn refused(command_line: &str, words: &str) {
        let error = read(command_line, None).expect_err(command_line).to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        refused("eve_install_dsik=sda", "eve_install_dsik");
        refused("eve_nuke_all_discs", "eve_nuke_all_discs");
        refused("eve_install_disk=", "eve_install_disk");
        refused("eve_install_disk=../sda", "no name of a disk");
        refused("eve_nuke_all_disks=maybe", "1 or 0");
        refused("eve_install_server=a/b", "host:port");
        refused("eve_install_server=a:0", "host:port");
        refused("eve_install_zfs_with_raid_level=raid1", "pools");
        refused("interactive", "eve_install_disk");
    }

    #[test]
    fn answers_say_the_same_and_the_command_line_counts_more() {
        let answers = br#"{"EVE_INSTALL_DISK": "sda", "eve_persist_disk": ["sdb"],
            "eve_reboot_after_install": true, "eve_pause_after_install": false, "eve_soft_serial": 12}"#;
        let wish = read("eve_install_disk=sdz", Some(answers)).unwrap();
        let want = Wish {
            disk: Some("sdz".into()),
            persist: vec!["sdb".into()],
            then: PowerKind::Reboot,
            soft_serial: Some("12".into()),
            ..Wish::default()
        };
        assert_eq!(wish, want);
        for bad in [&b"[]"[..], b"{\"eve_install_disk\":{}}", b"{", b"\xff"] {
            assert!(matches!(read("", Some(bad)), Err(WishError::Answers(_))));
        }
    }
}
