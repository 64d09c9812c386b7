//! Never panics, whatever servers say and whatever our clock shows; a request that nobody sent has no
//! answer.
#![no_main]

use device::clock::{Reply, Server, judge, step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, i64, u32, Vec<[u8; 48]>)| {
    let (chance, asked, took, answers) = input;
    let mut servers = Vec::new();
    for mut bytes in answers.into_iter().take(8) {
        assert!(Reply::read(&bytes, chance).is_err() || bytes[24..32] == chance.to_be_bytes());
        bytes[24..32].copy_from_slice(&chance.to_be_bytes());
        let mut server = Server::new("a");
        if let Ok(reply) = Reply::read(&bytes, chance) {
            server.answered(reply, asked, asked.saturating_add(i64::from(took)));
        }
        servers.push(server);
    }
    let _ = step(&judge(&servers));
});
