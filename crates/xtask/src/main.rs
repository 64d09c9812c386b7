//! What CI does, by name: `cargo xtask <task>`.
//!
//! It depends on little, so that `setup` is there before anything can be built. It decides nothing
//! about the product.

mod bench;
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
        /// What images for this processor take: arm64, riscv64 (repeatable)
        #[arg(long)]
        arch: Vec<setup::Arch>,
    },
    /// Everything that must hold before a change goes in
    Ci,
    /// Check that crates use only what layers.toml lets them
    Layers,
    /// Check licences, sources and bans of outside crates against deny.toml
    Licences,
    /// Build the image that the lab boots: the debug profile, in target/lab/image
    LabImage {
        /// The processor
        #[arg(long, default_value = "amd64")]
        arch: setup::Arch,
    },
    /// Build images for other processors and boot them, emulated; installs what that takes
    Machines {
        /// The processors [default: arm64 and riscv64]
        #[arg(default_values = ["arm64", "riscv64"], hide_default_value = true)]
        arch: Vec<setup::Arch>,
    },
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Memory of the node's services and the times of a boot, in QEMU
    Node,
    /// Squashfs images side by side with mksquashfs, and the whole way to a disk beside other tools'
    Image,
    /// Only the whole way, from packages to a disk
    Disk,
    /// A controller under a simulated fleet: times, processor, memory, and what is durable
    Controller(bench::controller::Options),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().task {
        Task::Setup { for_tests, arch } => setup::run(for_tests, &arch),
        Task::Ci => ci::run(),
        Task::Layers => layers::run(),
        Task::Licences => licences::run(),
        Task::LabImage { arch } => ci::lab_image(arch),
        Task::Machines { arch } => ci::machines(&arch),
        Task::Bench(Bench::Node) => ci::bench_node(),
        Task::Bench(Bench::Image) => bench::image::run(),
        Task::Bench(Bench::Disk) => bench::image::disk(),
        Task::Bench(Bench::Controller(options)) => bench::controller::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
