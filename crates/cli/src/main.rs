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
#[command(name = "eve", version, propagate_version = true)]
struct Eve {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build images: rootfs, slot, config, live, installer
    Build(Box<build::Args>),
    /// The images that packages became: list, import, export
    Cache(cache::Args),
    /// Compose a root file system tar from linuxkit yml files
    Compose(compose::Args),
    /// Convert a disk image into another format
    Convert(convert::Args),
    Describe(describe::Args),
    Matrix(describe::MatrixArgs),
    Version(describe::VersionArgs),
    /// Make a file system of a tar: squashfs, ext4, FAT
    Mkfs(mkfs::Args),
    /// Build and inspect packages, and their lock file
    Pkg(pkg::Args),
    /// Show or set which slot of a disk image boots
    Slot(slot::Args),
    /// List what an image is made of, as SPDX or CycloneDX
    Sbom(sbom::Args),
    /// List or collect the sources that an image was made of
    Sources(sources::Args),
    /// Say what two images differ in
    Compare(compare::Args),
    /// Say who put a path into an image
    Explain(explain::Args),
    /// Say what takes how much in an image
    Sizes(sizes::Args),
    /// Put a node onto a disk
    Install(install::Args),
    /// Boot an image in QEMU
    Run(run::Args),
    /// Build, boot, onboard and deploy the sample app, all on this machine
    Up(up::Args),
    /// Stop what `eve up` started, and nothing else
    Down(up::DownArgs),
    /// What `eve up` started, and how it is
    Status(up::StatusArgs),
    /// Serve the controller
    Controller(controller::Args),
    /// Write everything of a controller on this machine into one file, while it runs
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
    /// Print the completion script of a shell: `eve completion bash > …/completions/eve`
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> std::process::ExitCode {
    // Wrong use ends here, with exit code 2.
    let matches = examples::taught(Eve::command()).get_matches();
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
