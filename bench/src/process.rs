//! What processes have used, from /proc: CPU time and memory. Linux only, as the server is.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The kernel's unit of time in /proc, USER_HZ: 100 to the second on every architecture Rust runs on here.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A process and all its children.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, children that have ended included.
    pub(crate) cpu: Duration,
    /// Resident memory, all processes together.
    pub(crate) rss_kib: u64,
    /// The most that was ever resident: that of the process itself, whose children come and go.
    pub(crate) peak_kib: u64,
}

/// # Errors
/// If there is no such process.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let mut total = Usage {
        cpu: own_cpu(pid, Ended::Counted)?,
        ..Usage::default()
    };
    (total.rss_kib, total.peak_kib) = memory(pid)?;
    for child in children(pid) {
        // A child may end between the list and the look at it; its time is then its parent's.
        if let Ok(used) = usage(child) {
            total.cpu += used.cpu;
            total.rss_kib += used.rss_kib;
        }
    }
    Ok(total)
}

/// The CPU time of this process alone: the generator's.
pub(crate) fn generator_cpu() -> Result<Duration> {
    own_cpu(std::process::id(), Ended::Left)
}

#[derive(Clone, Copy)]
enum Ended {
    Counted,
    Left,
}

fn own_cpu(pid: u32, children: Ended) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The second field is the name in parentheses, and may hold spaces; the third is number 0 here.
    let (_, fields) = stat
        .rsplit_once(") ")
        .context("an unknown form of /proc/PID/stat")?;
    let count = match children {
        Ended::Counted => 4,
        Ended::Left => 2,
    };
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(count)
        .map(str::parse::<u32>)
        .sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("no {name}"))
    };
    Ok((kib("VmRSS:")?, kib("VmHWM:")?))
}

/// Resident memory of this process alone.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    Ok(memory(pid)?.0)
}

/// The most that any of its children of now has ever had resident.
pub(crate) fn children_peak_kib(pid: u32) -> u64 {
    let peaks = children(pid).into_iter().map(memory);
    // a child may end between the list and the look at it
    peaks.flatten().map(|(_, peak)| peak).max().unwrap_or(0)
}

/// How many there are in one of the process's folders in /proc: `fd` or `task`.
pub(crate) fn entries(pid: u32, folder: &str) -> Result<usize> {
    let path = format!("/proc/{pid}/{folder}");
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(entries.count())
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let of_thread = |thread: fs::DirEntry| {
        fs::read_to_string(thread.path().join("children")).unwrap_or_default()
    };
    threads
        .flatten()
        .flat_map(|thread| {
            of_thread(thread)
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_peak_above_it() {
        let used = usage(std::process::id()).unwrap();
        assert!(used.rss_kib > 0);
        assert!(used.peak_kib > 0);
    }

    #[test]
    fn work_shows_as_cpu_time() {
        let before = generator_cpu().unwrap();
        let mut sum = 0_u64;
        while generator_cpu().unwrap() < before + 3 * TICK {
            sum = (0..10_000).fold(sum, u64::wrapping_add);
            std::hint::black_box(sum);
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(usage(u32::MAX).is_err());
    }
}
