//! `eve controller`.

/// Arguments of `eve controller`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`eve controller` is not in this build")
}
