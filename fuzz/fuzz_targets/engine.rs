//! Fuzzes the engine with sequences of inputs.
#![no_main]

#[path = "../../crates/engine/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::engine(data));
