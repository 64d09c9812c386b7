//! `eve build`.

/// Arguments of `eve build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`eve build` is not in this build")
}
