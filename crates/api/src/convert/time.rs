//! Time servers as a node tells of them (info type 16).

use std::net::IpAddr;

use model::reported::{TimeSource, TimeSourceState, TimeState};
use model::{DeviceId, UnixMillis};

use super::to_timestamp;
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{
    NtpSource, NtpSourceMode, NtpSourceState, ZInfoMsg, ZInfoNtpSources, ZInfoTypes,
};
use crate::wire;

/// UDP.
const PORT: u32 = 123;

/// The payload of an info of time servers, as of `at`. Times of the wire are seconds.
pub fn sources(own: DeviceId, at: UnixMillis, state: &TimeState) -> Vec<u8> {
    let sources = state.sources.iter().map(source).collect();
    wire::encode(&ZInfoMsg {
        ztype: ZInfoTypes::ZiNtpSources.into(),
        dev_id: own.to_string(),
        info_content: Some(InfoContent::NtpSources(ZInfoNtpSources { sources })),
        at_time_stamp: Some(to_timestamp(at)),
    })
}

fn source(source: &TimeSource) -> NtpSource {
    let state = match source.state {
        TimeSourceState::Unreachable => NtpSourceState::Unreach,
        TimeSourceState::Wrong => NtpSourceState::Falseticker,
        TimeSourceState::Candidate => NtpSourceState::Candidate,
        TimeSourceState::Followed => NtpSourceState::Sync,
    };
    let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    NtpSource {
        reachable: source.reach != 0,
        reachability: source.reach.into(),
        state: state.into(),
        mode: NtpSourceMode::Client.into(),
        hostname: source.name.clone(),
        src_addr: text(source.own),
        dst_addr: text(source.address),
        dst_port: PORT,
        leap: source.leap.into(),
        stratum: source.stratum.into(),
        ref_id: source.reference.clone(),
        ref_time: source.reference_set.map(to_timestamp),
        poll: source.poll.into(),
        offset: seconds(source.offset_ns),
        delay: seconds(source.delay_ns),
        jitter: seconds(source.jitter_ns),
        root_delay: seconds(source.root_delay_ns),
        root_disp: seconds(source.root_dispersion_ns),
        ..NtpSource::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "of a second a part of 2^-22 is enough")]
fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_with_what_is_thought_of_it() {
        let told = TimeSource {
            name: "ntp.example".to_owned(),
            address: Some([192, 0, 2, 1].into()),
            own: Some([192, 0, 2, 9].into()),
            state: TimeSourceState::Followed,
            reach: 0b111,
            stratum: 2,
            leap: 0,
            reference: "10.0.0.1".to_owned(),
            reference_set: Some(UnixMillis(5_000)),
            poll: 6,
            offset_ns: -1_500_000_000,
            delay_ns: 20_000_000,
            jitter_ns: 1_000_000,
            root_delay_ns: 0,
            root_dispersion_ns: 500_000_000,
        };
        let own = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
        let state = TimeState { in_step: None, sources: vec![told] };
        let payload = sources(own, UnixMillis(9_000), &state);
        let message: ZInfoMsg = wire::decode(&payload, crate::limits::INFO).unwrap();
        let Some(InfoContent::NtpSources(list)) = message.info_content else { panic!() };
        let [source] = &list.sources[..] else { panic!() };
        assert_eq!(
            (source.hostname.as_str(), source.dst_addr.as_str()),
            ("ntp.example", "192.0.2.1")
        );
        assert_eq!((source.state(), source.reachable), (NtpSourceState::Sync, true));
        assert!((source.offset + 1.5).abs() < 1e-9 && (source.delay - 0.02).abs() < 1e-9);
        assert_eq!((source.reachability, source.poll), (7, 6));
    }
}
