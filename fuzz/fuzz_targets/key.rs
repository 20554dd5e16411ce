//! Fuzzes the reading of public keys.
#![no_main]

#[path = "../../crates/atproto/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::key(data));
