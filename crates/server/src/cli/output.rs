//! What the commands print: words for the owner, JSON for programs.

use std::{
    io::{self, ErrorKind, Write as _, stderr, stdout},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use store::Obstacle;

use super::outside;

/// How long the last words of the process may take.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);
const CANNOT_PRINT: &str = "cannot write to standard output";

/// Prints lines to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Prints what need not be text to standard output.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<()> {
    printed(write(bytes))
}

/// Prints what is worth nothing to whoever has not read all of it.
pub(super) fn print_whole(text: &str) -> Result<()> {
    write(text.as_bytes()).context(CANNOT_PRINT)
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// What came of printing. Whoever reads no further, as `head` does, has got what was asked for.
pub(super) fn printed(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context(CANNOT_PRINT),
    }
}

/// Prints lines to standard error as the last thing that the process does, which does not wait for ever until somebody
/// takes them.
pub(super) fn print_last(text: String) {
    let (printed, wait) = mpsc::channel();
    let print = move || {
        print_problem(&text);
        printed.send(()).ok();
    };
    if thread::Builder::new().spawn(print).is_ok() {
        wait.recv_timeout(LAST_WORDS_WITHIN).ok();
    }
}

/// Prints lines to standard error, if it takes them.
pub(super) fn print_problem(text: &str) {
    stderr().write_all(text.as_bytes()).ok();
}

/// Prints one line, in the words of `format!`. Not `println!`, which panics when standard output has no room.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::output::print(&format!("{}\n", format_args!($($words)*)))
    };
}
pub(super) use say;

/// Says one line on standard error, in the words of `format!`. Not `eprintln!`, which panics when standard error takes
/// nothing: there is nobody to be told then.
macro_rules! complain {
    ($($words:tt)*) => {
        $crate::cli::output::print_problem(&format!("{}\n", format_args!($($words)*)))
    };
}
pub(super) use complain;

/// Why a file could not be written, in words for the owner.
pub(super) fn cannot_write(path: &Path, error: io::Error) -> anyhow::Error {
    let error = match Obstacle::of_io(&error) {
        Some(obstacle) => anyhow::Error::from(obstacle),
        None => error.into(),
    };
    error.context(format!("cannot write {}", path.display()))
}

/// Prints a value as JSON.
pub(super) fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    let text = outside::json(&serde_json::to_string_pretty(value)?);
    print(&format!("{text}\n"))
}

/// Lines with what belongs together below each other, and nothing at their ends.
pub(super) fn columns<const COUNT: usize>(rows: &[[String; COUNT]]) -> Vec<String> {
    let width = |column: &dyn Fn(&[String; COUNT]) -> usize| rows.iter().map(column).max();
    let widths: [usize; COUNT] = std::array::from_fn(|at| {
        width(&|row| row.get(at).map_or(0, |cell| cell.chars().count())).unwrap_or(0)
    });
    let line = |row: &[String; COUNT]| {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// How many of something there are: `1 session`, `2 sessions`.
pub(super) fn count(count: u32, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A word that a shell takes as it is.
pub(super) fn shell_word(text: &str) -> String {
    let is_safe = |char: char| char.is_ascii_alphanumeric() || "-_./:@=+,%".contains(char);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["ä", "1", ""], ["bcd", "22", "x"]].map(|row| row.map(String::from));
        assert_eq!(columns(&rows), ["ä    1", "bcd  22  x"]);
        assert!(columns::<2>(&[]).is_empty());
    }

    #[test]
    fn a_shell_takes_a_word_as_one() {
        for (text, word) in [
            ("dev.example", "dev.example"),
            ("", "''"),
            ("my data", "'my data'"),
            ("it's; $(rm)", r"'it'\''s; $(rm)'"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
