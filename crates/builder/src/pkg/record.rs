//! What dpkg would know of a package's .debs, kept in the package: a stanza each in
//! `/var/lib/dpkg/status.d`, where scanners look in images without a package manager.

use formats::deb822::{Stanza, stanzas};

use super::lock::Deb;

/// The folder of the stanzas; the file's name is that of the Debian package.
pub const FOLDER: &str = "var/lib/dpkg/status.d";

/// What is kept of a .deb's own description. The rest is for a package manager.
const KEPT: [&str; 16] = [
    "Package",
    "Priority",
    "Section",
    "Installed-Size",
    "Maintainer",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Provides",
    "Pre-Depends",
    "Depends",
    "Built-Using",
    "Static-Built-Using",
    "Homepage",
    "Description",
];

/// The stanza of a .deb from its own description (deb-control(5)), with what the lock says of it.
/// `None` if the description names no package.
pub(super) fn stanza(control: &str, deb: &Deb, suite: &str) -> Option<Stanza> {
    let control = stanzas(control).next()?;
    control.get("Package")?;
    let mut stanza = Stanza::default();
    for name in KEPT {
        if let Some(value) = control.get(name) {
            let short = value.lines().next().unwrap_or_default();
            stanza.set(name, if name == "Description" { short } else { value });
        }
        if name == "Package" {
            stanza.set("Status", "install ok installed");
        }
    }
    stanza.set("Distribution", suite);
    stanza.set("Filename", deb.filename.as_str());
    stanza.set("Size", deb.size.0.to_string());
    stanza.set("SHA256", deb.sha256.hex());
    Some(stanza)
}

#[cfg(test)]
mod tests {
    use model::{Bytes, Digest};

    use super::*;

    #[test]
    fn a_stanza_has_what_people_and_scanners_ask_for() {
        let deb = Deb {
            name: "crun".to_owned(),
            version: "1.21-1".to_owned(),
            arch: "amd64".to_owned(),
            size: Bytes(7),
            sha256: Digest([0xab; 32]),
            filename: "pool/crun.deb".to_owned(),
        };
        let control = "Package: crun\nVersion: 1.21-1\nBreaks: x\nDescription: runs\n long text\n";
        let text = stanza(control, &deb, "trixie").unwrap().print();
        let sum = "ab".repeat(32);
        assert_eq!(
            text,
            format!(
                "Package: crun\nStatus: install ok installed\nVersion: 1.21-1\nDescription: runs\n\
                 Distribution: trixie\nFilename: pool/crun.deb\nSize: 7\nSHA256: {sum}\n"
            )
        );
        assert_eq!(stanza("Version: 1\n", &deb, "trixie"), None);
    }
}
