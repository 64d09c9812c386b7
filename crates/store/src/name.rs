//! Image names, short and full.

/// The full name of an image: `redis` is `docker.io/library/redis`, `a/b` is `docker.io/a/b`, and a
/// name whose first part is a host stays. No tag is added (the rule of linuxkit's yml files).
pub fn expand(name: &str) -> String {
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    match parts.count() {
        0 => format!("docker.io/library/{name}"),
        1 if !is_host(first) => format!("docker.io/{name}"),
        _ => name.to_owned(),
    }
}

/// The full name with a tag: `latest` where neither tag nor digest is given.
pub fn expand_with_tag(name: &str) -> String {
    let full = expand(name);
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { full } else { format!("{full}:latest") }
}

fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_full() {
        for (short, full) in [
            ("redis", "docker.io/library/redis"),
            ("redis:7", "docker.io/library/redis:7"),
            ("lfedge/eve:1", "docker.io/lfedge/eve:1"),
            ("localhost/eve", "localhost/eve"),
            ("box:5000/eve", "box:5000/eve"),
            ("quay.io/a/b", "quay.io/a/b"),
            ("a/b/c", "a/b/c"),
        ] {
            assert_eq!(expand(short), full);
        }
        assert_eq!(expand_with_tag("box:5000/eve"), "box:5000/eve:latest");
        assert_eq!(expand_with_tag("a/b@sha256:00"), "docker.io/a/b@sha256:00");
    }
}
