//! `eve run`.

/// Arguments of `eve run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`eve run` is not in this build")
}
