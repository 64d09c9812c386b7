//! `eved app`: not there yet.

use crate::service::Context;

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    anyhow::bail!("{} is not built in", ctx.service.name())
}
