//! The `eve` command: one file a subcommand; each has `Args` and `run`.

#[macro_use]
mod out;
mod access;
mod alerts;
mod apply;
mod archive;
mod backup;
mod build;
mod cache;
mod compare;
mod compose;
mod contexts;
mod controller;
mod convert;
mod describe;
mod edit;
mod examples;
mod explain;
mod fleet;
mod form;
mod help;
mod history;
mod image;
mod install;
mod mkfs;
mod nodes;
mod objects;
mod overview;
mod packed;
mod pkg;
mod places;
mod push;
mod push_image;
mod rollout;
mod run;
mod sbom;
mod shown;
mod sizes;
mod slot;
mod sources;
mod steps;
mod up;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Builds EVE-OS images, runs them, and controls a fleet of nodes.
#[derive(Debug, Parser)]
#[command(name = "eve", version)]
struct Eve {
    #[command(subcommand)]
    command: Command,
}

/// What each command is for stands with its arguments: a text here would hide the longer one there.
#[derive(Debug, Subcommand)]
enum Command {
    Build(Box<build::Args>),
    Cache(cache::Args),
    Compose(compose::Args),
    Convert(convert::Args),
    Describe(describe::Args),
    Matrix(describe::MatrixArgs),
    Version(describe::VersionArgs),
    Mkfs(mkfs::Args),
    Pkg(pkg::Args),
    Slot(slot::Args),
    Sbom(sbom::Args),
    Sources(sources::Args),
    Compare(compare::Args),
    Explain(explain::Args),
    Sizes(sizes::Args),
    Install(install::Args),
    Run(run::Args),
    Up(up::Args),
    Down(up::DownArgs),
    Status(up::StatusArgs),
    Controller(controller::Args),
    /// Write everything of a controller here into one file, while it runs
    #[command(after_long_help = crate::backup::HOLDS)]
    Backup(controller::Backup),
    #[command(flatten)]
    Fleet(fleet::Command),
    #[command(flatten)]
    Objects(objects::Command),
    #[command(flatten)]
    Alerts(alerts::Command),
    #[command(flatten)]
    Access(access::Command),
    #[command(flatten)]
    Rollout(rollout::Command),
    #[command(flatten)]
    History(history::Command),
    /// Print the completion script of a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// The commands as people see them.
fn taught() -> clap::Command {
    help::grouped(examples::taught(Eve::command()))
}

fn main() -> std::process::ExitCode {
    // Wrong use ends here, with exit code 2.
    let matches = match taught().try_get_matches() {
        Ok(matches) => matches,
        Err(wrong) => {
            let words: Vec<String> =
                std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
            let unknown = wrong.kind() == clap::error::ErrorKind::InvalidSubcommand;
            let meant = help::swapped(&Eve::command(), &words).filter(|_| unknown);
            let Some(meant) = meant else { wrong.exit() };
            let text = format!("there is no such command; did you mean `{meant}`?");
            return out::report(&out::WrongUse(text).into());
        }
    };
    let eve = Eve::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    out::start_log();
    let outcome = match eve.command {
        Command::Build(args) => build::run(*args),
        Command::Cache(args) => cache::run(args),
        Command::Compose(args) => compose::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Describe(args) => describe::run(args),
        Command::Matrix(args) => describe::matrix(args),
        Command::Version(args) => describe::version(args),
        Command::Mkfs(args) => mkfs::run(args),
        Command::Pkg(args) => pkg::run(args),
        Command::Sbom(args) => sbom::run(args),
        Command::Sources(args) => sources::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Sizes(args) => sizes::run(args),
        Command::Install(args) => install::run(args),
        Command::Run(args) => run::run(args),
        Command::Slot(args) => slot::run(args),
        Command::Up(args) => up::up(args),
        Command::Down(args) => up::down(args),
        Command::Status(args) => up::status(args),
        Command::Controller(args) => controller::run(args),
        Command::Backup(args) => controller::back_up(args),
        Command::Fleet(command) => fleet::run(command),
        Command::Objects(command) => objects::run(command),
        Command::Alerts(command) => alerts::run(command),
        Command::Access(command) => access::run(command),
        Command::Rollout(command) => rollout::run(command),
        Command::History(command) => history::run(command),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Eve::command(), "eve", &mut script);
            out::raw(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => out::report(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Eve::command().debug_assert();
    }
}
