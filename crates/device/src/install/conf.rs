//! What CONFIG of the installed node says.

use formats::fat::Files;
use uuid::Uuid;

use super::Wish;

/// The serial number that the node tells beside that of its board, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// It was wished for.
    Wished(String),
    /// CONFIG had one.
    Had(String),
    /// It was made for this installation.
    Made(String),
}

impl Serial {
    /// The number itself.
    pub fn text(&self) -> &str {
        match self {
            Serial::Wished(text) | Serial::Had(text) | Serial::Made(text) => text,
        }
    }
}

const SERVER: &str = "server";
const SERIAL: &str = "soft_serial";

/// The files of the new CONFIG, from those that came with the installer. `made` is a number that
/// nobody has had yet, for the case that none is given: an operator must be able to tell nodes apart
/// whose makers gave all of them the same.
pub fn config(mut files: Files, wish: &Wish, made: Uuid) -> (Files, Serial) {
    // The installer's own answers are not for the node: it would not know what they are.
    files.remove(model::installer::ANSWERS);
    if let Some(server) = &wish.server {
        files.insert(SERVER.to_owned(), format!("{server}\n").into_bytes());
    }
    let had = files.get(SERIAL).map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let serial = match (&wish.soft_serial, had.filter(|text| !text.is_empty())) {
        (Some(wished), _) => Serial::Wished(wished.clone()),
        (None, Some(had)) => return (files, Serial::Had(had)),
        (None, None) => Serial::Made(made.to_string()),
    };
    files.insert(SERIAL.to_owned(), format!("{}\n", serial.text()).into_bytes());
    (files, serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Uuid = Uuid::from_u128(7);

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_wish_counts_more_than_what_came_and_that_more_than_what_is_made() {
        let came =
            files(&[("server", "old\n"), ("soft_serial", " had \n"), ("installer.json", "{}")]);
        let wish = Wish {
            server: Some("new:443".into()),
            soft_serial: Some("wished".into()),
            ..Wish::default()
        };
        let (all, serial) = config(came.clone(), &wish, MADE);
        assert_eq!(all, files(&[("server", "new:443\n"), ("soft_serial", "wished\n")]));
        assert_eq!(serial, Serial::Wished("wished".into()));

        let (all, serial) = config(came, &Wish::default(), MADE);
        assert_eq!(all, files(&[("server", "old\n"), ("soft_serial", " had \n")]));
        assert_eq!(serial, Serial::Had("had".into()));

        let (all, serial) = config(Files::new(), &Wish::default(), MADE);
        assert_eq!(serial, Serial::Made(MADE.to_string()));
        assert_eq!(all["soft_serial"], format!("{MADE}\n").into_bytes());
    }
}
