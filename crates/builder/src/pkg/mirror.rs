//! Which Debian mirror to ask: the one that the host's apt uses for Debian, unless we are told.

use std::fs;
use std::path::{Path, PathBuf};

/// Suites that only Debian itself has. An apt source of one of them, with `main`, is a Debian mirror.
const SUITES: [&str; 10] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// An apt source: where, which suite, which components.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    off: bool,
}

/// The Debian mirror in apt's configuration below `etc` (`/etc/apt`), without a slash at its end.
/// `None` if there is none, as on a machine that is not Debian.
pub(super) fn of_host(etc: &Path) -> Option<String> {
    let names = files(etc, "sources.list");
    let sources = names.iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        match path.extension().and_then(|e| e.to_str()) {
            Some("sources") => deb822(&text),
            Some("list") => one_line(&text),
            _ => Vec::new(),
        }
    });
    choose(&sources.collect::<Vec<_>>(), &|list| fs::read_to_string(list).ok())
}

/// The proxy in apt's configuration below `etc`, for `http` or `https`.
pub(super) fn proxy_of_host(etc: &Path, scheme: &str) -> Option<String> {
    let names = files(etc, "apt.conf");
    let texts = names.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.filter_map(|text| proxy(&text, scheme)).next_back()
}

/// `etc/name` and the files of `etc/name.d`, in the order in which apt reads them.
fn files(etc: &Path, name: &str) -> Vec<PathBuf> {
    let mut files = vec![etc.join(name)];
    if let Ok(dir) = fs::read_dir(etc.join(format!("{name}.d"))) {
        let mut more: Vec<_> = dir.filter_map(|e| e.ok().map(|e| e.path())).collect();
        more.sort();
        files.extend(more);
    }
    files
}

fn proxy(text: &str, scheme: &str) -> Option<String> {
    let key = format!("acquire::{scheme}::proxy");
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with("//") && !l.starts_with('#'));
    let mut values = lines.filter_map(|line| {
        let (name, rest) = line.split_once(char::is_whitespace)?;
        let value = rest.trim().trim_end_matches(';').trim_matches('"');
        (name.to_ascii_lowercase() == key).then(|| value.to_owned())
    });
    values.next_back().filter(|v| v.contains("://"))
}

fn choose(sources: &[Source], read: &dyn Fn(&Path) -> Option<String>) -> Option<String> {
    let debian = sources.iter().filter(|s| {
        let suite = |s: &String| SUITES.contains(&s.as_str());
        !s.off && s.suites.iter().any(suite) && s.components.iter().any(|c| c == "main")
    });
    let uris =
        debian.flat_map(|s| &s.uris).filter_map(|uri| match uri.strip_prefix("mirror+file:") {
            // A file with one mirror a line, as Debian's cloud images have it.
            Some(list) => {
                let text = read(Path::new(&format!("/{}", list.trim_start_matches('/'))))?;
                let first =
                    text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'))?;
                first.split_whitespace().next().map(str::to_owned)
            }
            None => Some(uri.clone()),
        });
    let known = |uri: &String| ["http://", "https://", "file:/"].iter().any(|s| uri.starts_with(s));
    uris.filter(known).map(|uri| uri.trim_end_matches('/').to_owned()).next()
}

/// Sources in deb822 form (sources.list(5)).
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut now = Source::default();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            sources.push(std::mem::take(&mut now));
            continue;
        }
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let words = || value.split_whitespace().map(str::to_owned).collect();
        match key.to_ascii_lowercase().as_str() {
            "uris" => now.uris = words(),
            "suites" => now.suites = words(),
            "components" => now.components = words(),
            "enabled" => now.off = value.trim().eq_ignore_ascii_case("no"),
            _ => {}
        }
    }
    sources
}

/// Sources in one-line form: `deb [options] URI SUITE COMPONENT…`.
fn one_line(text: &str) -> Vec<Source> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    let sources = lines.filter_map(|rest| {
        let rest = rest.trim();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split('#').next()?.split_whitespace().map(str::to_owned);
        let (uri, suite) = (words.next()?, words.next()?);
        let components = words.collect();
        Some(Source { uris: vec![uri], suites: vec![suite], components, off: false })
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sources: Vec<Source>, want: Option<&str>) {
        let read = |path: &Path| {
            (path == Path::new("/etc/apt/mirrors/debian.list"))
                .then(|| "# ours\nhttps://mirror.example/debian\n".to_owned())
        };
        assert_eq!(choose(&sources, &read).as_deref(), want);
    }

    #[test]
    fn the_debian_mirror_is_found_in_deb822() {
        check(
            deb822(
                "Types: deb\nURIs: https://other.example/x\nSuites: nodistro\nComponents: main\n\n\
                 Types: deb\n# a note\nURIs: http://security.example/debian-security\n\
                 Suites: trixie-security\nComponents: main\n\n\
                 Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\n\
                 Components: main\n\n\
                 Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\n\
                 Components: main\n",
            ),
            Some("http://mirror.example/debian"),
        );
    }

    #[test]
    fn the_debian_mirror_is_found_in_one_line_lists() {
        check(
            one_line(
                "# deb http://old.example/debian trixie main\n\
                 deb [arch=amd64 signed-by=/k.gpg] https://cloud.example/apt cloud-bookworm main\n\
                 deb-src http://src.example/debian trixie main\n\
                 deb [ arch=amd64 ] http://mirror.example/debian trixie main contrib # ours\n",
            ),
            Some("http://mirror.example/debian"),
        );
    }

    #[test]
    fn a_mirror_list_is_followed() {
        check(
            one_line("deb mirror+file:///etc/apt/mirrors/debian.list trixie main\n"),
            Some("https://mirror.example/debian"),
        );
    }

    #[test]
    fn another_distribution_has_none() {
        check(one_line("deb http://archive.example/ubuntu noble main universe\n"), None);
        check(one_line("deb cdrom:[Debian]/ trixie main\n"), None);
    }

    #[test]
    fn the_proxy_of_apt_is_ours_too() {
        let text = "// Acquire::http::Proxy \"http://no.example\";\n\
                    Acquire::http::Proxy \"http://proxy.example:3128\";\n\
                    Acquire::https::Proxy \"DIRECT\";\n";
        assert_eq!(proxy(text, "http").as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(proxy(text, "https"), None);
    }
}
