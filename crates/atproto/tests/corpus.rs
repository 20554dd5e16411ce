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
fn every_target_is_fuzzed_and_has_a_corpus() {
    let mut expected: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    let targets = corpus().as_ref().join("../fuzz_targets");
    for folder in [corpus().as_ref(), &targets] {
        let mut found: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{}", folder.display());
    }
}
