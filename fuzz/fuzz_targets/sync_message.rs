//! Fuzzes the reading of sync messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz::sync_message(data));
