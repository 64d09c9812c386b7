//! Every device service, one process each: `eved <service>`.
//!
//! One file a service, all built alike: wait for a topic, a timer or a result; read all inputs; ask
//! `device` what to do; let `host` do it; publish what is. What they share stands in [`service`].

mod app;
mod chance;
mod clock;
mod config;
mod content;
mod debug;
mod dhcp;
mod exchange;
mod health;
mod install;
mod link;
mod log;
mod netinst;
mod network;
mod onboard;
mod service;
mod storage;
mod volume;

use std::process::ExitCode;

use model::services::Service;

use crate::service::Context;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    match Service::from_name(&name) {
        Some(service) => service::start(service, run),
        None => {
            let known: Vec<&str> =
                model::services::ALL.iter().map(|spec| spec.service.name()).collect();
            eprintln!("usage: eved SERVICE, one of: {}", known.join(" "));
            ExitCode::from(2)
        }
    }
}

async fn run(ctx: Context) -> anyhow::Result<()> {
    match ctx.service {
        Service::App => app::run(ctx).await,
        Service::Config => config::run(ctx).await,
        Service::Content => content::run(ctx).await,
        Service::Debug => debug::run(ctx).await,
        Service::Health => health::run(ctx).await,
        Service::Install => install::run(ctx).await,
        Service::Log => log::run(ctx).await,
        Service::Netinst => netinst::run(ctx).await,
        Service::Clock => clock::run(ctx).await,
        Service::Network => network::run(ctx).await,
        Service::Onboard => onboard::run(ctx).await,
        Service::Storage => storage::run(ctx).await,
        Service::Volume => volume::run(ctx).await,
    }
}
