//! Fuzzes the reader of WebSocket frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::frame(data));
