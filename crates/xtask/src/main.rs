//! What CI does, by name: `cargo xtask <task>`.
//!
//! It depends on little, so that `setup` is there before anything can be built. It decides nothing
//! about the product.

mod ci;
mod layers;
mod licences;
mod setup;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What CI does, by name
#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Xtask {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks, after saying what
    Setup {
        /// What the tests need, too
        #[arg(long)]
        for_tests: bool,
    },
    /// Everything that must hold before a change goes in
    Ci,
    /// Check that crates use only what layers.toml lets them
    Layers,
    /// Check licences, sources and bans of outside crates against deny.toml
    Licences,
    /// Build the image that the lab boots: the debug profile, in target/lab/image
    LabImage,
    /// Measure
    Bench {
        /// What to measure
        what: Bench,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Bench {
    /// Memory of the node's services and the times of a boot, in QEMU
    Node,
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().task {
        Task::Setup { for_tests } => setup::run(for_tests),
        Task::Ci => ci::run(),
        Task::Layers => layers::run(),
        Task::Licences => licences::run(),
        Task::LabImage => ci::lab_image(),
        Task::Bench { what: Bench::Node } => ci::bench_node(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
