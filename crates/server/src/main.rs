//! `groundmist-sync`, the binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    groundmist_sync::cli::main(std::env::args_os())
}
