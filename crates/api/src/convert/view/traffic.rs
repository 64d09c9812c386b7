//! What apps talked to: the flow log.

use model::{Bytes, DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{ViewError, at, whose};
use crate::limits;
use crate::pb::flowlog::{AclAction, FlowMessage, FlowRecord};
use crate::wire;

/// Flows and names of one interface of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Whose it says it is: compare it with who signed.
    pub device: DeviceId,
    /// The app's id.
    pub app: String,
    /// The interface of the app.
    pub interface: String,
    /// The network instance's id.
    pub network: String,
    /// Connections.
    pub flows: Vec<FlowView>,
    /// Names that were asked for.
    pub names: Vec<DnsView>,
}

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// `tcp`, `udp`, `icmp`, or the number of the protocol.
    pub protocol: String,
    /// Address and port of who began.
    pub source: (String, i32),
    /// Address and port of the other.
    pub destination: (String, i32),
    /// Whether it came from outside.
    pub inbound: bool,
    /// `accept`, `drop`, or empty.
    pub action: String,
    /// The number of the rule that decided.
    pub rule: i32,
    /// From when.
    pub started: Option<UnixMillis>,
    /// To when.
    pub ended: Option<UnixMillis>,
    /// What the app sent.
    pub sent: Bytes,
    /// What it received.
    pub received: Bytes,
}

/// A name that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsView {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub addresses: Vec<String>,
    /// When.
    pub at: Option<UnixMillis>,
}

/// Reads the payload of a flow log message.
pub fn flowlog(payload: &[u8]) -> Result<Flows, ViewError> {
    let message: FlowMessage = wire::decode(payload, limits::INFO)?;
    let scope = message.scope.unwrap_or_default();
    let name = |dns: crate::pb::flowlog::DnsRequest| DnsView {
        name: dns.host_name,
        addresses: dns.addrs,
        at: at(dns.request_time),
    };
    Ok(Flows {
        device: whose(&message.dev_id)?,
        app: scope.uuid,
        interface: scope.intf,
        network: scope.net_inst_uuid,
        flows: message.flows.into_iter().map(flow).collect(),
        names: message.dns_reqs.into_iter().map(name).collect(),
    })
}

fn flow(record: FlowRecord) -> FlowView {
    let flow = record.flow.unwrap_or_default();
    // A negative count is nonsense, and nothing was moved.
    let bytes = |n: i64| Bytes(u64::try_from(n).unwrap_or(0));
    FlowView {
        protocol: match flow.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        },
        source: (flow.src, flow.src_port),
        destination: (flow.dest, flow.dest_port),
        inbound: record.inbound,
        action: match AclAction::try_from(record.action) {
            Ok(AclAction::ActionUnknown) => String::new(),
            Ok(AclAction::ActionDrop) => "drop".to_owned(),
            Ok(AclAction::ActionAccept) => "accept".to_owned(),
            Err(_) => record.action.to_string(),
        },
        rule: record.acl_id,
        started: at(record.start_time),
        ended: at(record.end_time),
        sent: bytes(record.tx_bytes),
        received: bytes(record.rx_bytes),
    }
}
