//! Runs what fuzzing found worth keeping through the target for the whole engine, without a fuzzer.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod targets;

use std::{fs, path::Path};

use proptest::prelude::*;

#[test]
fn every_script_that_was_kept_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, run) in targets::ALL {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            run(&fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 3, "{name} has {inputs} inputs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scripts_of_any_kind_are_survived(script in "([A-Z][0-9a-z]{1,8}){0,60}") {
        targets::engine(script.as_bytes());
    }
}
