//! Fuzzes the reading of chunks, Bloom filters and indexes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz::chunk(data));
