//! A PostgreSQL server of a test: its own data in a temporary folder, a Unix socket and no port; it
//! ends with the test.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

const START: Duration = Duration::from_secs(30);
/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The server.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// It refuses to run as root.
    owner: Option<(u32, u32)>,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts it. `None` if PostgreSQL is not installed.
    pub fn start() -> anyhow::Result<Option<Postgres>> {
        let Some(programs) = programs() else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let owner = unprivileged()?;
        if let Some((user, group)) = owner {
            chown(folder.path(), Some(user), Some(group))?;
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))?;
        let mut server = Postgres { folder, programs, owner, child: None };
        let mut make = server.command("initdb");
        // The cluster is made anew for each test: it need not outlive a power cut, its data must.
        make.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
        let made = make.arg(server.data()).output().context("initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run()?;
        Ok(Some(server))
    }

    /// Where to find it, for `--database`.
    pub fn url(&self) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/postgres")
    }

    /// Ends it in the middle of everything (SIGKILL) …
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// … and starts it again on the same data.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let socket = self.folder.path().to_owned();
        let mut serve = self.command("postgres");
        serve.arg("-D").arg(self.data()).arg("-k").arg(&socket);
        serve.args(["-c", "listen_addresses=", "-c", "max_connections=60"]);
        let log = std::fs::File::create(socket.join("log"))?;
        self.child = Some(serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        let until = Instant::now() + START;
        loop {
            let mut ask = self.command("pg_isready");
            let asked = ask.arg("-q").arg("-h").arg(&socket).status()?;
            if asked.success() {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                let said = std::fs::read_to_string(socket.join("log")).unwrap_or_default();
                bail!("PostgreSQL does not come up:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    #[expect(clippy::disallowed_methods, reason = "a server of tests; the product starts none")]
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its data goes with it: no farewell is needed.
        let _ = self.kill();
    }
}

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("initdb").exists().then_some((version, programs))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, programs)| programs)
}

/// Whom to run it as: the package's own user if we are root, else ourselves.
fn unprivileged() -> anyhow::Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string(Path::new("/etc/passwd"))?;
    let user = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let mut fields = user.context("there is no user postgres")?.split(':').skip(1);
    let mut number = || fields.next().and_then(|n| n.parse().ok());
    number().zip(number()).map(Some).context("the user postgres has no numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_server_comes_back_with_its_data() {
        let Some(mut server) = Postgres::start().unwrap() else {
            println!("skipped: PostgreSQL is not installed");
            return;
        };
        let query = |server: &Postgres, text: &str| {
            let mut psql = server.command("psql");
            psql.args(["-U", "postgres", "-At", "-c", text, "-h"]).arg(server.folder.path());
            String::from_utf8(psql.output().unwrap().stdout).unwrap().trim().to_owned()
        };
        query(&server, "CREATE TABLE t (n int); INSERT INTO t VALUES (42)");
        server.kill().unwrap();
        assert_eq!(query(&server, "SELECT n FROM t"), "");
        server.run().unwrap();
        assert_eq!(query(&server, "SELECT n FROM t"), "42");
    }
}
