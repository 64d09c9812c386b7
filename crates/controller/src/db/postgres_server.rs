//! A PostgreSQL server of a test's own.

#![expect(clippy::disallowed_methods, reason = "tests start servers of others")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Ends with its value.
pub(crate) struct Postgres {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// A fresh server that listens on a socket in a folder of its own. It refuses to run as root, so
    /// it runs as `postgres`, whom Debian's package makes.
    pub(crate) fn start() -> Postgres {
        let dir = tempfile::tempdir().unwrap();
        let server = Postgres { programs: programs(), dir };
        let path = server.path();
        run(Command::new("chown").arg("postgres").arg(path));
        let data = path.join("data");
        run(server
            .program("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "eve"])
            .arg("--no-sync"));
        server.again();
        server
    }

    /// What a crash of it leaves.
    pub(crate) fn kill(&self) {
        let data = self.path().join("data");
        run(self.program("pg_ctl").arg("-D").arg(data).args(["-m", "immediate", "stop"]));
    }

    /// Starts it (again). Syncs are what a machine that loses power needs; this one goes with the
    /// test.
    pub(crate) fn again(&self) {
        let data = self.path().join("data");
        let options = format!("-c listen_addresses= -c fsync=off -k {}", self.path().display());
        let log = self.path().join("log");
        run(self
            .program("pg_ctl")
            .arg("-D")
            .arg(data)
            .args(["-w", "-o", &options, "-l"])
            .arg(log)
            .arg("start"));
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// As the user `postgres`, if we are root.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
        command
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://eve@localhost/postgres?host={}", self.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.path().join("data");
        let _ = self
            .program("pg_ctl")
            .arg("-D")
            .arg(data)
            .args(["-m", "immediate", "stop"])
            .stdout(Stdio::null())
            .status();
    }
}

fn run(command: &mut Command) {
    let done = command.stdout(Stdio::null()).status();
    assert!(
        done.is_ok_and(|s| s.success()),
        "{command:?} failed; is `apt install postgresql` done?"
    );
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("apt install postgresql");
    let mut folders: Vec<PathBuf> = versions.map(|v| v.unwrap().path().join("bin")).collect();
    folders.sort();
    folders.pop().expect("apt install postgresql")
}
