//! Ports of bridges that do not see each other (IFLA_BRPORT_ISOLATED, linux/if_link.h): what comes
//! in by one goes to the bridge itself and to ports that are not isolated.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use rtnetlink::LinkBridgePort;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoPortData, LinkAttribute, LinkInfo, LinkMessage,
};

use super::netlink::error;
use super::{NetError, Netlink};

impl Netlink {
    /// Isolates a port of a bridge from the other isolated ports.
    pub async fn isolate(&self, index: u32) -> Result<(), NetError> {
        let message = LinkBridgePort::new(index).isolated(true).build();
        let done = self.handle.link().set_port(message).execute().await;
        done.map_err(|e| error(&format!("isolate interface {index}"), e))
    }

    /// The numbers of all isolated ports.
    pub async fn isolated(&self) -> Result<BTreeSet<u32>, NetError> {
        let fail = |e| error("list ports of bridges", e);
        let all: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(fail)?;
        Ok(all.iter().filter(|m| is_isolated(m)).map(|m| m.header.index).collect())
    }
}

fn is_isolated(message: &LinkMessage) -> bool {
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(all)) => {
            all.contains(&InfoBridgePort::Isolated(true))
        }
        _ => false,
    })
}
