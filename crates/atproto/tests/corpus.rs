//! Runs what fuzzing found worth keeping through the fuzz targets, so that no nightly compiler is needed for it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod targets;

use std::{fs, path::Path};

fn corpus() -> impl AsRef<Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn every_input_that_was_kept_is_survived() {
    for (name, run) in targets::ALL {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus().as_ref().join(name)).unwrap() {
            run(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 3, "{name} has {inputs} inputs");
    }
}

#[test]
fn every_target_is_fuzzed() {
    for (name, _) in targets::ALL {
        let target = corpus().as_ref().join(format!("../fuzz_targets/{name}.rs"));
        assert!(target.exists(), "{}", target.display());
    }
}
