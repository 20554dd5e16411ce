//! What the owner allows, and for how long.

use std::time::Duration;

use store::SessionAccess;

use super::time::{later, parse_expiry};

/// The flags of commands that allow something.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct Allowance {
    /// Let it read only
    #[arg(long)]
    read_only: bool,
    /// How long it holds, such as 12h, 90d or 1y
    #[arg(long, value_name = "TIME", default_value = "1y", value_parser = parse_expiry)]
    expires: Duration,
}

impl Allowance {
    /// The most that is allowed.
    pub(super) fn access(self) -> SessionAccess {
        if self.read_only {
            SessionAccess::Read
        } else {
            SessionAccess::Write
        }
    }

    /// When it ends, in Unix milliseconds.
    pub(super) fn until_ms(self, now_ms: i64) -> i64 {
        later(now_ms, self.expires)
    }
}
