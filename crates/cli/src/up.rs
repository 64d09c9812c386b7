//! `eve up`, `eve down`, `eve status`: the whole line on this machine.

/// Arguments of `eve up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Arguments of `eve down`.
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {}

/// Arguments of `eve status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {}

pub(crate) fn up(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`eve up` is not in this build")
}

pub(crate) fn down(_args: DownArgs) -> anyhow::Result<()> {
    anyhow::bail!("`eve down` is not in this build")
}

pub(crate) fn status(_args: StatusArgs) -> anyhow::Result<()> {
    anyhow::bail!("`eve status` is not in this build")
}
