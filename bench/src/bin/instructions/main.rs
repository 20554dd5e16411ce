//! How many instructions the engine and the store take for fixed work. `tools/bench-compare` runs this under callgrind
//! for two commits; `bench/README.md` says what is counted.
//!
//! `prepare DIR` writes the scripts: every frame that clients send, made beforehand, so that nothing of a client is run
//! while instructions are counted, and both commits get the same bytes. `run SCRIPT` carries one out. Nothing here has
//! a clock, a socket or randomness.
#![allow(
    unreachable_pub,
    reason = "the modules are shared with the benchmark, which is another program"
)]

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

// The generator's messages and documents, of which this program needs a part.
#[allow(dead_code, reason = "a part of it is the benchmark's alone")]
#[path = "../../history.rs"]
mod history;
#[allow(dead_code, reason = "a part of it is the benchmark's alone")]
#[path = "../../sync.rs"]
mod sync;
#[allow(dead_code, reason = "a part of it is the benchmark's alone")]
#[path = "../../wire.rs"]
mod wire;

mod group_store;
mod memory;
mod script;
mod workloads;
mod world;

/// Fixed work for the engine and the store, to be counted in instructions
#[derive(Parser)]
#[command(name = "instructions")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a script for each workload
    Prepare {
        /// The directory for them
        dir: PathBuf,
    },
    /// Carry out a script; what is counted happens inside the function `measured`
    Run {
        /// The script
        script: PathBuf,
    },
    /// Write to a group's file; all of the process is counted
    Store {
        /// A directory for the file, which is to be empty
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    let messages = match Options::parse().command {
        Command::Prepare { dir } => return prepare(&dir),
        Command::Run { script } => world::run(&script::read(&script)?)?,
        Command::Store { dir } => group_store::run(&dir)?,
    };
    println!("messages {messages}");
    Ok(())
}

fn prepare(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, script) in workloads::all()? {
        script::write(&dir.join(name).with_extension("script"), &script)?;
    }
    Ok(())
}
