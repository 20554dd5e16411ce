//! Fuzzes the reading of frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz::wire(data));
