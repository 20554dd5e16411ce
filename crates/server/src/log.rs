//! The log: lines on standard error, for which nobody waits.
//!
//! Whoever reads them may stop reading: a pager, or a terminal after Ctrl-S. So a thread of its own writes them. What
//! finds no room while it waits is left out, and the log says so.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write},
    mem,
    panic::{self, PanicHookInfo},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{Level, error};

use crate::settings::LogLevel;

/// Most bytes of lines that wait to be written: some thousand lines.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// How long the end of the process waits for the last lines to be written.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// How long whoever takes the log is left alone when it takes no more and does not let us wait.
const FULL_FOR: Duration = Duration::from_millis(20);

/// What this process logs; when it is dropped, the last lines are written.
#[must_use = "its last lines are lost"]
pub struct Log(Arc<Lines>);

impl Log {
    /// Has the process log to standard error from now on: standard output is for what was asked for.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(level: LogLevel) -> io::Result<Self> {
        let lines = Arc::new(Lines::default());
        let writer = Arc::clone(&lines);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.write_to(&mut io::stderr()))?;
        tracing_subscriber::fmt()
            .with_max_level(match level {
                LogLevel::Error => Level::ERROR,
                LogLevel::Warn => Level::WARN,
                LogLevel::Info => Level::INFO,
                LogLevel::Debug => Level::DEBUG,
                LogLevel::Trace => Level::TRACE,
            })
            .with_target(false)
            // a file is read by programs, and by people without their terminal
            .with_ansi(io::stderr().is_terminal())
            .with_writer(Arc::clone(&lines))
            // it would say so with `eprintln!`, which panics when standard error takes nothing
            .log_internal_errors(false)
            .init();
        // what Rust does by itself waits for standard error, in the thread that panics
        panic::set_hook(Box::new(log_panic));
        Ok(Self(lines))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.rest_within(LAST_LINES_WITHIN);
    }
}

/// Says where a thread has met a bug, and what it said, on one line.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let payload = panic.payload();
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for an unknown reason");
    error!(
        "a bug, please report it: panicked at {}: {what}",
        place.unwrap_or_default()
    );
}

/// Lines on their way to whoever writes them.
#[derive(Default)]
struct Lines {
    waiting: Mutex<Waiting>,
    /// There are lines to write.
    some: Condvar,
    /// All are written.
    none: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// How many found no room behind it.
    left_out: u64,
    /// Whether lines that were taken from here are not yet written.
    is_writing: bool,
}

impl Lines {
    /// Puts a line behind those that wait, if there is room for it.
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        // a line that is longer than that is one, too
        if !waiting.text.is_empty() && waiting.text.len() + line.len() > WAITING_BYTES_MAX {
            waiting.left_out += 1;
            return;
        }
        waiting.text.extend_from_slice(line);
        drop(waiting);
        self.some.notify_one();
    }

    /// Writes lines for as long as the process lives. What cannot be written is gone: there is nobody to be told.
    fn write_to(&self, out: &mut impl Write) {
        let mut text = vec![];
        loop {
            let left_out = self.take(&mut text);
            if left_out > 0 {
                // behind what has been taken, where they are missing, and while there is room
                error!("nobody took the log for a while: {left_out} lines were left out");
            }
            write_all(out, &text);
        }
    }

    /// Waits for lines, and moves them into `text`; the number of those that were left out behind them.
    fn take(&self, text: &mut Vec<u8>) -> u64 {
        // what a burst has left would be kept for ever
        *text = vec![];
        let mut waiting = self.lock();
        waiting.is_writing = false;
        if waiting.text.is_empty() {
            self.none.notify_all();
        }
        let mut waiting = self
            .some
            .wait_while(waiting, |waiting| waiting.text.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        waiting.is_writing = true;
        mem::swap(text, &mut waiting.text);
        mem::take(&mut waiting.left_out)
    }

    /// Waits until all lines are written, but not for longer than this.
    fn rest_within(&self, time: Duration) {
        let is_at_work = |waiting: &mut Waiting| waiting.is_writing || !waiting.text.is_empty();
        drop(self.none.wait_timeout_while(self.lock(), time, is_at_work));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes as much as can be written, also to a terminal or pipe that another process has told not to wait.
fn write_all(out: &mut impl Write, mut text: &[u8]) {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return,
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_FOR),
            Err(_) => return,
        }
    }
}

/// Each call brings a line, whole: so the formatter of `tracing_subscriber` writes.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Says what it is to write, and writes it once it may.
    struct Stuck {
        told: Sender<Vec<u8>>,
        may: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.told.send(text.to_vec()).ok();
            self.may.recv().map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_takes_keep_nobody_waiting_and_are_few() {
        let lines = Arc::new(Lines::default());
        let (told, texts) = channel();
        let (let_on, may) = channel();
        let mut out = Stuck { told, may };
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(Arc::clone(&lines))
            .finish();
        let writer = Arc::clone(&lines);
        thread::spawn(move || {
            tracing::subscriber::with_default(log, || writer.write_to(&mut out));
        });

        lines.push(b"first\n");
        assert_eq!(texts.recv().unwrap(), b"first\n");
        let line = [b'x'; 1 << 10];
        for _ in 0..300 {
            lines.push(&line);
        }
        lines.rest_within(Duration::ZERO);
        let_on.send(()).unwrap();
        assert_eq!(texts.recv().unwrap().len(), WAITING_BYTES_MAX);
        lines.push(b"behind them\n");
        let_on.send(()).unwrap();
        let last = String::from_utf8(texts.recv().unwrap()).unwrap();
        let [left_out, behind] = last.split_inclusive('\n').collect::<Vec<_>>()[..] else {
            panic!("{last}")
        };
        assert!(
            left_out.ends_with(" 44 lines were left out\n"),
            "{left_out}"
        );
        assert_eq!(behind, "behind them\n");

        let_on.send(()).unwrap();
        lines.rest_within(Duration::MAX);
        assert!(lines.lock().text.is_empty());
        assert!(texts.try_recv().is_err());
    }

    #[test]
    fn a_line_that_is_longer_than_what_may_wait_is_written() {
        let lines = Lines::default();
        let long = vec![b'x'; WAITING_BYTES_MAX + 1];
        lines.push(&long);
        lines.push(b"no room\n");
        let mut text = vec![];
        assert_eq!(lines.take(&mut text), 1);
        assert_eq!(text, long);
    }

    #[test]
    fn whoever_takes_no_more_for_now_is_asked_again() {
        struct Slow(Vec<u8>, bool);
        impl Write for Slow {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.0.extend_from_slice(&text[..1]);
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(vec![], false);
        write_all(&mut slow, b"line\n");
        assert_eq!(slow.0, b"line\n");
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let lines = Arc::new(Lines::default());
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(Arc::clone(&lines))
            .finish();
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(log, || {
            panic::catch_unwind(|| panic!("no such thing")).unwrap_err();
        });
        panic::set_hook(before);
        let text = String::from_utf8(lines.lock().text.clone()).unwrap();
        assert!(text.contains("src/log.rs:"), "{text}");
        assert!(text.ends_with(": no such thing\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
