//! `groundmist-sync grants`: what apps may do, on whichever device.

use anyhow::{Result, bail};
use atproto::ClientId;
use clap::Subcommand;
use serde::Serialize;
use store::{AccountStore, Grant, Occasion};

use super::{
    DataFlags,
    allowance::Allowance,
    docs,
    output::{columns, count, print, print_json},
    outside::identifier,
    time::timestamp,
};
use crate::{door::now_ms, group::Group};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List what apps are granted
    Ls {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Grant an app a group, in place of what it is granted there; more than this no device of it can do
    Add {
        /// The app: its client_id
        app: ClientId,
        /// The group
        #[arg(long)]
        group: Group,
        #[command(flatten)]
        allowance: Allowance,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Take from an app what it is granted, and from its devices what they were approved for with it
    Rm {
        /// The app: its client_id
        app: String,
        /// This group only
        #[arg(long)]
        group: Option<Group>,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Show which documents an app can see now
    Preview {
        /// The app: its client_id
        app: String,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
}

impl Command {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ls { json, data } => ls(&data.accounts()?, json),
            Self::Add {
                app,
                group,
                allowance,
                data,
            } => add(&data.accounts()?, &app, &group, allowance),
            Self::Rm { app, group, data } => rm(&data.accounts()?, &app, group.as_ref()),
            Self::Preview { app, json, data } => preview(data, &app, json),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    app: &'a str,
    group: &'a str,
    access: &'static str,
    state: &'static str,
    created_at: String,
    expires_at: String,
    /// What devices get now that the app vouches for by itself, and until when.
    vouches_for: Option<Vouching>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Vouching {
    access: &'static str,
    expires_at: String,
}

impl Vouching {
    fn of(grant: &Grant, now_ms: i64) -> Option<Self> {
        let (access, until_ms) = grant.attested.zip(grant.attested_until_ms)?;
        let until_ms = until_ms.min(grant.expires_at_ms);
        (now_ms < until_ms).then(|| Self {
            access: access.min(grant.access).as_str(),
            expires_at: timestamp(until_ms),
        })
    }
}

impl<'a> Row<'a> {
    fn new(grant: &'a Grant, now_ms: i64) -> Self {
        Self {
            app: &grant.app,
            group: &grant.group,
            access: grant.access.as_str(),
            state: match now_ms < grant.expires_at_ms {
                true => "inForce",
                false => "expired",
            },
            created_at: timestamp(grant.created_at_ms),
            expires_at: timestamp(grant.expires_at_ms),
            vouches_for: Vouching::of(grant, now_ms),
        }
    }
}

fn ls(accounts: &AccountStore, json: bool) -> Result<()> {
    let (grants, now_ms) = (accounts.grants()?, now_ms());
    let rows: Vec<_> = grants.iter().map(|grant| Row::new(grant, now_ms)).collect();
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("no grants; approving a device grants its app what that needs\n");
    }
    let cells = rows.iter().map(|row| {
        let also = match (&row.vouches_for, row.state) {
            (Some(Vouching { access, expires_at }), _) => {
                format!("devices that it vouches for: {access} until {expires_at}")
            }
            (None, "inForce") => "devices that you approve".into(),
            (None, ended) => ended.into(),
        };
        [
            identifier(row.app),
            identifier(row.group),
            row.access.into(),
            format!("until {}", row.expires_at),
            also,
        ]
    });
    print(&(columns(&cells.collect::<Vec<_>>()).join("\n") + "\n"))
}

fn add(accounts: &AccountStore, app: &ClientId, group: &Group, allowance: Allowance) -> Result<()> {
    let now_ms = now_ms();
    let (access, until_ms) = (allowance.access(), allowance.until_ms(now_ms));
    let before = accounts.grant(app.as_str(), group.as_str())?;
    let occasion = Occasion::at(now_ms);
    accounts.put_grant(app.as_str(), group.as_str(), access, until_ms, &occasion)?;
    let (access, until) = (access.as_str(), timestamp(until_ms));
    let app = identifier(app.as_str());
    let instead = match before.filter(|before| before.expires_at_ms > now_ms) {
        Some(before) => format!(
            " (before: {} until {})",
            before.access.as_str(),
            timestamp(before.expires_at_ms)
        ),
        None => String::new(),
    };
    print(&format!(
        "Granted {app}: {access} {group} until {until}{instead}.\n\
         Its devices that can prove to be this app get in by this; any other needs your approval as before.\n"
    ))
}

fn rm(accounts: &AccountStore, app: &str, group: Option<&Group>) -> Result<()> {
    let occasion = Occasion::at(now_ms());
    let removed = accounts.remove_grant(app, group.map(Group::as_str), &occasion)?;
    let app = identifier(app);
    if removed == 0 {
        let there = group.map_or(String::new(), |group| format!(" for {group}"));
        bail!("{app} has no grant{there}; `grants ls` shows those that there are");
    }
    print(&format!(
        "Took {} from {app}, and what its devices were approved for with that. Open sockets are closed within a \
         second.\n",
        count(removed, "grant")
    ))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    group: String,
    access: &'static str,
    expires_at: String,
    documents: Vec<docs::Row>,
}

fn preview(data: DataFlags, app: &str, json: bool) -> Result<()> {
    let accounts = data.accounts()?;
    let settings = data.settings()?;
    let now_ms = now_ms();
    let mut seen = vec![];
    for grant in accounts.grants()? {
        if grant.app != app || grant.expires_at_ms <= now_ms {
            continue;
        }
        // a group of another form has no file
        let documents = match grant.group.parse() {
            Ok(group) => docs::documents(&settings, &group)?,
            Err(_) => vec![],
        };
        seen.push(Seen {
            group: grant.group,
            access: grant.access.as_str(),
            expires_at: timestamp(grant.expires_at_ms),
            documents,
        });
    }
    if json {
        return print_json(&seen);
    }
    let app = identifier(app);
    if seen.is_empty() {
        return print(&format!(
            "{app} can see nothing: it has no grant in force\n"
        ));
    }
    let texts: Vec<_> = seen.iter().map(|seen| seen.describe(&app)).collect();
    print(&texts.concat())
}

impl Seen {
    fn describe(&self, app: &str) -> String {
        let documents = self.documents.iter().map(docs::Row::line);
        let documents: String = documents.map(|line| format!("    {line}\n")).collect();
        let none = if documents.is_empty() {
            ", which has no documents yet"
        } else {
            ""
        };
        format!(
            "{app} may {} in {} until {}{none}\n{documents}",
            self.access,
            identifier(&self.group),
            self.expires_at
        )
    }
}
