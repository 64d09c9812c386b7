//! The commands that drive the operator API.

/// `eve device`, `eve app`, …
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Nodes: list, show, restart
    Device,
}

pub(crate) fn run(_command: Command) -> anyhow::Result<()> {
    anyhow::bail!("the operator commands are not in this build")
}
