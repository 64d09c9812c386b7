//! A controller as a process of its own that tests may kill: `controller-alone DATA ADDRESS:PORT
//! [DATABASE]`. It serves until then.

use std::path::PathBuf;

use anyhow::Context;
use controller::{Location, Settings};

fn main() -> anyhow::Result<()> {
    let usage = "usage: controller-alone DATA ADDRESS:PORT [DATABASE]";
    let mut args = std::env::args().skip(1);
    let (Some(data), Some(listen)) = (args.next(), args.next()) else { anyhow::bail!(usage) };
    let database = args.next().map(Location::Postgres);
    let listen = listen.parse().context(usage)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let settings =
            Settings { listen, database, ..Settings::new(PathBuf::from(data), host::clock::now) };
        let mut running = controller::serve(settings).await?;
        running.ended().await;
        anyhow::bail!("the controller ended by itself")
    })
}
