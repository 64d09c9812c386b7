//! `eve compose`.

/// Arguments of `eve compose`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`eve compose` is not in this build")
}
