//! Fuzzes the reading of service auth.
#![no_main]

#[path = "../../crates/atproto/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::service_auth(data));
