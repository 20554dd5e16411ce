//! Fuzzes what handlers take out of requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::http_bodies(data));
