//! Runs what fuzzing found worth keeping through the fuzz targets, so that no nightly compiler is needed for it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod targets;

use std::{collections::BTreeSet, fs, path::Path};

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

/// Those of other crates too: this is where they are listed in one place.
#[test]
fn every_fuzz_target_has_a_corpus_and_every_corpus_a_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let names = |folder| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let built = manifest.lines().filter_map(|line| {
        line.strip_prefix("path = \"fuzz_targets/")?
            .strip_suffix(".rs\"")
            .map(str::to_owned)
    });
    let built: BTreeSet<_> = built.collect();
    assert!(!built.is_empty());
    assert_eq!(names("fuzz_targets"), built);
    assert_eq!(names("corpus"), built);
}
