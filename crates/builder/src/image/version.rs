//! The version of what is built: from the repository's tags, branch and state.

use std::path::Path;
use std::time::UNIX_EPOCH;

use host::process::{Tool, ToolError, finish};

/// What git says of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `git describe --always --tags`.
    pub describe: String,
    /// The branch; `HEAD` if there is none.
    pub branch: String,
    /// The commit, all of its digits.
    pub commit: String,
    /// `None`: nothing was changed since. Else when the last of the changed files was changed, in
    /// seconds since 1970: the same state has the same version, however often it is built.
    pub changed: Option<u64>,
}

/// The version: a release's tag, or `0.0.0-<branch>-<commit>`, with the time of the last change if
/// something is not committed. A platform other than `generic` is added.
pub fn version(state: &State, platform: &str) -> String {
    let mut version = match (is_release(&state.describe), state.changed) {
        (true, None) => state.describe.clone(),
        (_, changed) => {
            let commit = state.commit.get(..8).unwrap_or(&state.commit);
            let branch = state.branch.replace('/', "_");
            let dirty = changed.map(|t| format!("-dirty-{}", minute(t))).unwrap_or_default();
            format!("0.0.0-{branch}-{commit}{dirty}")
        }
    };
    if platform != "generic" {
        version.push('-');
        version.push_str(platform);
    }
    version
}

/// Asks git. Fails if it is missing or `repository` is none.
pub fn ask(repository: &Path) -> Result<State, ToolError> {
    let git = |args: &[&str]| -> Result<String, ToolError> {
        let tool = Tool::Git;
        let out = tool.command().arg("-C").arg(repository).args(args).output();
        let out = out.map_err(|source| ToolError::Spawn { tool, source })?;
        finish(tool, args, out).map(|said| String::from_utf8_lossy(&said).into_owned())
    };
    let line = |args: &[&str]| git(args).map(|said| said.trim().to_owned());
    let status = git(&["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"])?;
    let changed = status.split('\0').filter_map(|entry| entry.get(3..)).map(|path| {
        let about = std::fs::metadata(repository.join(path)).and_then(|m| m.modified());
        // A file that was removed has no time; that it was is in the word "dirty".
        let since = about.ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |t| t.as_secs())
    });
    Ok(State {
        describe: line(&["describe", "--always", "--tags"])?,
        branch: line(&["rev-parse", "--abbrev-ref", "HEAD"])?,
        commit: line(&["rev-parse", "HEAD"])?,
        changed: changed.max(),
    })
}

/// `1.2.3`, `1.2.3-lts`, `1.2.3-rc4`.
fn is_release(tag: &str) -> bool {
    let (numbers, suffix) = tag.split_once('-').map_or((tag, None), |(n, s)| (n, Some(s)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = numbers.split('.').collect();
    let known = suffix.is_none_or(|s| s == "lts" || s.strip_prefix("rc").is_some_and(is_number));
    parts.len() == 3 && parts.into_iter().all(is_number) && known
}

/// `2026-01-31.23.59`, in UTC.
fn minute(time: u64) -> String {
    let (days, rest) = (time / 86_400, time % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}.{:02}.{:02}", rest / 3600, rest / 60 % 60)
}

/// Year, month and day of a day since 1970, in the calendar of Gregory. Counted in years that begin
/// in March, so that the odd day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + late, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(describe: &str, changed: Option<u64>, platform: &str, expect: &str) {
        let state = State {
            describe: describe.into(),
            branch: "feature/disks".into(),
            commit: "0123456789abcdef".into(),
            changed,
        };
        assert_eq!(version(&state, platform), expect);
    }

    #[test]
    fn a_release_has_the_version_of_its_tag() {
        for tag in ["1.2.3", "12.0.0-lts", "1.0.0-rc12"] {
            check(tag, None, "generic", tag);
        }
        check("1.2.3", None, "rt", "1.2.3-rt");
    }

    #[test]
    fn everything_else_says_branch_and_commit() {
        for tag in ["0123456", "1.2.3-4-g0123456", "v1.2.3", "1.2", "1.2.3-rc", "1.2.3-x"] {
            check(tag, None, "generic", "0.0.0-feature_disks-01234567");
        }
    }

    #[test]
    fn what_is_not_committed_shows_with_the_time_of_its_last_change() {
        let text = "0.0.0-feature_disks-01234567-dirty-2024-02-29.23.59";
        check("1.2.3", Some(1_709_251_199), "generic", text);
    }
}
