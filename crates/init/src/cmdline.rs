//! The kernel command line: `eve.slot=IMGA eve.verity=<root hash>:<data blocks>:<hash start
//! block>:<salt> [eve.debug]` (contract in ARCHITECTURE.md; `eve.debug` is read by `model::boot`).

/// The partition that an installer runs from.
pub(crate) const INSTALLER: &str = "INSTALLER";

/// What the command line tells us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    /// The name of the partition that holds the root file system: IMGA or IMGB, or INSTALLER.
    pub(crate) slot: String,
    /// How to check it.
    pub(crate) verity: Verity,
}

/// Parameters of a dm-verity table, version 1, SHA-256, blocks of 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verity {
    /// 64 hexadecimal digits.
    pub(crate) root: String,
    /// Blocks of the file system.
    pub(crate) data_blocks: u64,
    /// The block of the partition where the tree begins, behind its superblock.
    pub(crate) hash_start: u64,
    /// Hexadecimal; `-` for none.
    pub(crate) salt: String,
}

/// Reads the command line. The error completes "the kernel command line …".
pub(crate) fn parse(text: &str) -> Result<Boot, String> {
    let value = |key: &str| {
        // The last one counts, as it does for the kernel.
        text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)).next_back()
    };
    let slot = value("eve.slot=").ok_or("has no eve.slot=")?;
    if !matches!(slot, "IMGA" | "IMGB" | INSTALLER) {
        return Err(format!("has eve.slot={slot}, which is none of IMGA, IMGB, {INSTALLER}"));
    }
    let verity = value("eve.verity=").ok_or("has no eve.verity=: an unchecked root is not used")?;
    Ok(Boot { slot: slot.to_owned(), verity: parse_verity(verity)? })
}

fn parse_verity(text: &str) -> Result<Verity, String> {
    let bad = |why: &str| format!("has eve.verity={text}: {why}");
    let parts: Vec<&str> = text.split(':').collect();
    let [root, data_blocks, hash_start, salt] = parts[..] else {
        return Err(bad("not <root hash>:<data blocks>:<hash start block>:<salt>"));
    };
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_hexdigit());
    if root.len() != 64 || !hex(root) {
        return Err(bad("the root hash is not 64 hexadecimal digits"));
    }
    // The kernel takes up to 256 bytes of salt.
    if salt != "-" && (salt.is_empty() || salt.len() > 512 || salt.len() % 2 != 0 || !hex(salt)) {
        return Err(bad("the salt is not hexadecimal"));
    }
    let number = |s: &str| s.parse::<u64>().ok().filter(|n| (1..1 << 40).contains(n));
    let data_blocks = number(data_blocks).ok_or_else(|| bad("data blocks is no number"))?;
    let hash_start = number(hash_start).ok_or_else(|| bad("hash start is no number"))?;
    Ok(Verity { root: root.to_owned(), data_blocks, hash_start, salt: salt.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_slot_and_verity() {
        let root = "ab".repeat(32);
        let line = format!("console=ttyS0 eve.slot=IMGA eve.verity={root}:100:101:00ff quiet");
        let verity = Verity { root, data_blocks: 100, hash_start: 101, salt: "00ff".to_owned() };
        assert_eq!(parse(&line), Ok(Boot { slot: "IMGA".to_owned(), verity }));
    }

    #[test]
    fn refuses_a_root_that_cannot_be_checked() {
        let root = "ab".repeat(32);
        for line in [
            String::new(),
            "eve.slot=IMGA".to_owned(),
            format!("eve.slot=P3 eve.verity={root}:1:2:00"),
            format!("eve.slot=IMGA eve.verity={root}:1:2"),
            format!("eve.slot=IMGA eve.verity={root}:0:2:00"),
            format!("eve.slot=IMGA eve.verity={root}:1:2:0"),
            format!("eve.slot=IMGA eve.verity={}:1:2:00", &root[1..]),
        ] {
            assert!(parse(&line).is_err(), "{line}");
        }
    }
}
