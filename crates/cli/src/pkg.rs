//! `eve pkg`.

/// Arguments of `eve pkg`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`eve pkg` is not in this build")
}
