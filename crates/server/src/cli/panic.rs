//! `groundmist-sync panic`.

use std::{
    fmt::Write as _,
    io::{BufRead as _, IsTerminal as _, Read as _, stdin},
};

use anyhow::{Result, bail};
use store::{Occasion, RevokedCounts};

use super::{
    DataFlags, UsageError,
    output::{count, print, print_problem},
};
use crate::door::now_ms;

/// What the owner types to go on.
const CONSENT: &str = "panic";
/// No answer that is typed has more bytes.
const ANSWER_BYTES_MAX: u64 = 1_000;
/// What names the epoch of tokens: as many random bytes.
const EPOCH_BYTES: usize = 16;

/// Take everything back at once: all devices, sessions, approvals and grants; no token that was ever made works again
#[derive(clap::Args)]
pub(super) struct Panic {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    data: DataFlags,
}

impl Panic {
    pub(super) fn run(self) -> Result<()> {
        if !self.yes {
            ask()?;
        }
        let accounts = self.data.accounts()?;
        let counts = accounts.revoke_everything(&new_epoch()?, &Occasion::at(now_ms()))?;
        print(&describe(&counts))
    }
}

fn ask() -> Result<()> {
    if !stdin().is_terminal() {
        let problem =
            "panic asks before it does anything, and there is no terminal to ask at; add --yes";
        return Err(UsageError(problem.into()).into());
    }
    let question = format!(
        "This ends all devices, sessions, approvals and grants, and every token. Documents stay.\n\
         Type {CONSENT} to go on: "
    );
    print_problem(&question);
    let mut answer = String::new();
    stdin()
        .lock()
        .take(ANSWER_BYTES_MAX)
        .read_line(&mut answer)?;
    if answer.trim() != CONSENT {
        bail!("nothing was changed");
    }
    Ok(())
}

fn new_epoch() -> Result<String> {
    let mut bytes = [0; EPOCH_BYTES];
    getrandom::fill(&mut bytes)?;
    let mut epoch = String::new();
    for byte in bytes {
        write!(epoch, "{byte:02x}")?;
    }
    Ok(epoch)
}

fn describe(counts: &RevokedCounts) -> String {
    format!(
        "Taken back: {}, {}, {}, {}, {}.\n\
         Every token is void, and open sockets are closed within a second. Documents and root documents stay.\n\
         Next:\n    \
         groundmist-sync devices open       then start an app that you trust\n    \
         groundmist-sync devices pending    and approve its device anew\n    \
         groundmist-sync token add          for what used a token made by hand\n    \
         groundmist-sync audit              shows what has happened\n",
        count(counts.devices, "device"),
        count(counts.sessions, "session"),
        count(counts.approvals, "approval"),
        count(counts.grants, "grant"),
        count(counts.pending, "pending request"),
    )
}
