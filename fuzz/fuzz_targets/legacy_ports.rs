//! Never panics; what is taken of EVE's old file of ports is a table that a node can live with.
#![no_main]

use std::collections::BTreeSet;

use api::convert::legacy;
use libfuzzer_sys::fuzz_target;
use model::desired::Addressing;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(said)) = legacy::ports(bytes) else { return };
    assert!(said.ports.values().any(|port| port.management));
    let mut interfaces = BTreeSet::new();
    for (name, port) in &said.ports {
        assert_eq!(*name, port.name);
        assert!(interfaces.insert(&port.interface), "two ports on {}", port.interface);
        assert!(!port.management || port.addressing != Addressing::None);
    }
    assert!(said.refused.iter().all(|refused| refused.text.starts_with("Ports[")));
});
