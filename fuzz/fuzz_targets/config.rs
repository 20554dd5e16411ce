//! Fuzzes the reader of the settings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::config(data));
