//! What is fuzzed of the server: all that it reads of strangers and of its owner before it asks a store or anybody.
//!
//! Only for `fuzz/`, where `fuzz/server` is made of the modules that this needs and of no others, and for the tests,
//! which run what was found worth keeping. Each target stands by what it is about.

/// A target: its name, which is that of its corpus, and what runs one input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 3] = [
    ("frame", frame),
    ("config", config),
    ("http_bodies", http_bodies),
];

/// What a client sends over its WebSocket.
pub fn frame(data: &[u8]) {
    crate::sync::fuzz_frame(data);
}

/// What the owner has written into files and environment.
pub fn config(data: &[u8]) {
    crate::settings::fuzz::config(data);
}

/// What anybody sends over HTTP.
pub fn http_bodies(data: &[u8]) {
    crate::http::fuzz::http_bodies(data);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn every_input_that_was_kept_is_survived() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, run) in super::ALL {
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
}
