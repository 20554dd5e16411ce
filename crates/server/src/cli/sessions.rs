//! `groundmist-sync sessions`: all of them, those of tokens made by hand too.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;
use store::{AccountStore, Device, Occasion, Session, SessionAccess, SessionKind};

use super::{
    DataFlags,
    choose::{OneOrAll, Wanted, choose},
    output::{columns, count, print, print_json},
    outside::{called, identifier},
    time::{ago, timestamp},
};
use crate::door::now_ms;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the sessions of devices and tokens
    Ls {
        /// Those that were revoked or have expired too
        #[arg(long)]
        all: bool,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Revoke a session; its sockets are closed within a second. Its device may begin another
    Revoke {
        #[command(flatten)]
        which: OneOrAll,
        #[command(flatten)]
        data: DataFlags,
    },
}

impl Command {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ls { all, json, data } => ls(&data.accounts()?, all, json),
            Self::Revoke { which, data } => match which.id {
                Some(id) => revoke(&data.accounts()?, &id),
                None => revoke_all(&data.accounts()?),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'static str,
    device: Option<&'a str>,
    app: Option<&'a str>,
    groups: Vec<GroupRow<'a>>,
    state: &'static str,
    created_at: String,
    expires_at: String,
    ends_at: String,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

#[derive(Serialize)]
struct GroupRow<'a> {
    group: &'a str,
    access: &'static str,
    /// What it comes to now, with the device's approval and the app's grant.
    effective: Option<&'static str>,
}

impl<'a> Row<'a> {
    fn new(
        accounts: &AccountStore,
        session: &'a Session,
        app: Option<&'a str>,
        now_ms: i64,
    ) -> Result<Self> {
        let mut groups = vec![];
        for (group, access) in &session.groups {
            let effective = accounts.access(&session.id, group, now_ms)?;
            groups.push(GroupRow {
                group,
                access: access.as_str(),
                effective: effective.map(SessionAccess::as_str),
            });
        }
        Ok(Self {
            id: &session.id,
            name: &session.name,
            kind: session.kind.as_str(),
            device: session.device.as_deref(),
            app,
            groups,
            state: match session.revoked_at_ms {
                Some(_) => "revoked",
                None if session.is_in_force(now_ms) => "inForce",
                None => "expired",
            },
            created_at: timestamp(session.created_at_ms),
            expires_at: timestamp(session.expires_at_ms),
            ends_at: timestamp(session.ends_at_ms),
            last_used_at: session.last_used_at_ms.map(timestamp),
            revoked_at: session.revoked_at_ms.map(timestamp),
        })
    }
}

fn ls(accounts: &AccountStore, all: bool, json: bool) -> Result<()> {
    let now_ms = now_ms();
    let (mut sessions, devices) = (accounts.sessions()?, accounts.devices()?);
    sessions.retain(|session| all || session.is_in_force(now_ms));
    let devices: BTreeMap<&str, &Device> = devices
        .iter()
        .map(|device| (device.id.as_str(), device))
        .collect();
    let app_of = |session: &Session| {
        let device = devices.get(session.device.as_deref()?)?;
        Some(device.app.as_str())
    };
    let rows: Result<Vec<_>> = sessions
        .iter()
        .map(|session| Row::new(accounts, session, app_of(session), now_ms))
        .collect();
    let rows = rows?;
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("no sessions\n");
    }
    let texts: Vec<_> = sessions
        .iter()
        .zip(&rows)
        .map(|(session, row)| describe(session, row, now_ms))
        .collect();
    print(&texts.join("\n"))
}

fn describe(session: &Session, row: &Row<'_>, now_ms: i64) -> String {
    let whose = match (row.device, row.app) {
        (Some(device), Some(app)) => {
            format!("device {} of {}", identifier(device), identifier(app))
        }
        (Some(device), None) => format!("device {}", identifier(device)),
        (None, _) => "a token made by hand".into(),
    };
    let used = match session.last_used_at_ms {
        Some(used_ms) => format!("last used {}", ago(used_ms, now_ms)),
        None => "never used".into(),
    };
    let state = match row.state {
        "inForce" => String::new(),
        ended => format!("  {ended}"),
    };
    let slides = match session.kind {
        SessionKind::Token => "",
        SessionKind::Authenticate | SessionKind::Access => ", longer if it is used",
    };
    let groups = row.groups.iter().map(|group| {
        let now = match group.effective {
            _ if row.state != "inForce" => String::new(),
            Some(effective) if effective == group.access => String::new(),
            Some(effective) => format!("(now {effective}: its approval or grant gives no more)"),
            None => "(now nothing: its approval or grant has ended)".into(),
        };
        [
            "  ".into(),
            identifier(group.group),
            group.access.into(),
            now,
        ]
    });
    let groups: String = columns(&groups.collect::<Vec<_>>())
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    format!(
        "{}{}{state}\n    {whose}\n    until {}{slides}; {used}\n{groups}",
        identifier(row.id),
        called(row.name),
        row.expires_at
    )
}

fn revoke(accounts: &AccountStore, id: &str) -> Result<()> {
    let mut sessions = accounts.sessions()?;
    sessions.retain(|session| session.revoked_at_ms.is_none());
    let wanted = Wanted {
        what: "session that could be revoked with the id",
        shown_by: "`sessions ls` shows those that can",
    };
    let session = choose(id, &sessions, |session| &session.id, &wanted)?;
    if !accounts.revoke(&session.id, &Occasion::at(now_ms()))? {
        bail!("the session has just been revoked by somebody else");
    }
    let again = match session.device {
        Some(_) => " Its device may begin another; `devices revoke` ends that too.",
        None => "",
    };
    print(&format!("Revoked {}.{again}\n", identifier(&session.id)))
}

fn revoke_all(accounts: &AccountStore) -> Result<()> {
    let revoked = accounts.revoke_all(&Occasion::at(now_ms()))?;
    print(&format!(
        "Revoked {}. Devices may begin others; `devices revoke --all` ends that too.\n",
        count(revoked, "session")
    ))
}
