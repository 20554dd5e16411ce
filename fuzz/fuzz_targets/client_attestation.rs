//! Fuzzes the reading of client attestations.
#![no_main]

#[path = "../../crates/atproto/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::client_attestation(data));
