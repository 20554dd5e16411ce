//! `groundmist-sync token`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;
use store::{AccountStore, Occasion, Session, SessionAccess, SessionKind};

use super::{
    DataFlags, UsageError,
    output::{print_whole, say},
    time::{parse_ttl, timestamp},
};
use crate::{
    door::{
        SessionId,
        by_hand::{self, Made},
        now_ms,
    },
    group::Group,
    run::{open_accounts, secret_key},
};

/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 200;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a token and print it, and nothing else
    Add {
        /// The group whose documents it opens, such as xyz.groundmist.library
        #[arg(long)]
        group: Group,
        /// Let it read only
        #[arg(long)]
        read_only: bool,
        /// How long it is good, such as 30m, 12h or 90d
        #[arg(long, value_name = "TIME", default_value = "12h", value_parser = parse_ttl)]
        ttl: Duration,
        /// What to call it in `token ls`
        #[arg(long, default_value = "", value_parser = parse_name)]
        name: String,
        #[command(flatten)]
        data: DataFlags,
    },
    /// List the sessions that tokens name
    Ls {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Those that were revoked or have expired too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Revoke a token; its sockets are closed within a second
    Rm {
        /// Its session's id, as `token ls` shows it
        // which may begin with a hyphen
        #[arg(allow_hyphen_values = true)]
        id: SessionId,
        #[command(flatten)]
        data: DataFlags,
    },
}

impl Command {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Add {
                group,
                read_only,
                ttl,
                name,
                data,
            } => {
                let settings = data.settings()?;
                let accounts = open_accounts(&settings)?;
                let keys = by_hand::token_keys(&accounts, &secret_key(&settings)?)?;
                let access = if read_only {
                    SessionAccess::Read
                } else {
                    SessionAccess::Write
                };
                let ttl_s = ttl.as_secs();
                let made = by_hand::open_session(&accounts, &keys, &group, access, &name, ttl_s)?;
                hand_over(&accounts, &made)
            }
            Self::Ls { json, all, data } => {
                let sessions = data.accounts()?.sessions()?;
                let rows = sessions
                    .iter()
                    .filter(|session| session.kind == SessionKind::Token)
                    .filter_map(Row::new)
                    .filter(|row| all || row.state == State::InForce);
                print(&rows.collect::<Vec<_>>(), json)
            }
            Self::Rm { id, data } => {
                let accounts = data.accounts()?;
                let revoked = accounts.revoke(id.as_str(), &Occasion::at(now_ms()))?;
                if !revoked {
                    bail!("no session {id} that could be revoked; `token ls` shows those that can");
                }
                say!("revoked {id}")?;
                Ok(())
            }
        }
    }
}

/// Prints a token. If nobody takes it, nobody has it, and its session is not to be in force for nothing.
fn hand_over(accounts: &AccountStore, made: &Made) -> Result<()> {
    let Err(untold) = print_whole(&format!("{}\n", made.token)) else {
        return Ok(());
    };
    let revoked = accounts.revoke(made.id.as_str(), &Occasion::at(now_ms()));
    Err(match revoked {
        Ok(_) => untold.context("the token that nobody got is revoked"),
        Err(problem) => untold.context(format!(
            "nobody got the token of session {id}, which is still in force ({problem}); `token rm {id}` ends it",
            id = made.id
        )),
    })
}

#[derive(Serialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum State {
    InForce,
    Expired,
    Revoked,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    group: &'a str,
    access: &'static str,
    state: State,
    created_at: String,
    expires_at: String,
    last_used_at: Option<String>,
}

impl<'a> Row<'a> {
    /// Nothing if the session is none that a token names.
    fn new(session: &'a Session) -> Option<Self> {
        let (group, access) = session.groups.first()?;
        Some(Self {
            id: &session.id,
            name: &session.name,
            group,
            access: access.as_str(),
            state: match session.revoked_at_ms {
                Some(_) => State::Revoked,
                None if session.is_in_force(now_ms()) => State::InForce,
                None => State::Expired,
            },
            created_at: timestamp(session.created_at_ms),
            expires_at: timestamp(session.expires_at_ms),
            last_used_at: session.last_used_at_ms.map(timestamp),
        })
    }
}

fn print(rows: &[Row<'_>], json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(rows)?)?;
        return Ok(());
    }
    if rows.is_empty() {
        say!("no tokens; `groundmist-sync token add --group ...` makes one")?;
    }
    for row in rows {
        let state = match row.state {
            State::InForce => String::new(),
            State::Expired => "  expired".into(),
            State::Revoked => "  revoked".into(),
        };
        let used = row.last_used_at.as_deref().unwrap_or("never");
        say!(
            "{}  {:5}  {}  until {}  last used {used}{state}  {}",
            row.id,
            row.access,
            row.group,
            row.expires_at,
            row.name
        )?;
    }
    Ok(())
}

/// What the owner calls something.
pub(super) fn parse_name(text: &str) -> Result<String, UsageError> {
    if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(UsageError(
            "at most 200 bytes, without control characters".into(),
        ));
    }
    Ok(text.into())
}
