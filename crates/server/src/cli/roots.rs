//! `groundmist-sync roots`.

use anyhow::{Result, bail};
use atproto::ClientId;
use clap::Subcommand;
use engine::DocumentId;
use serde::Serialize;
use store::{AccountStore, Occasion, Root};

use super::{
    DataFlags, UsageError,
    output::{columns, print, print_json},
    outside::identifier,
    time::timestamp,
};
use crate::{door::now_ms, group::Group};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the root documents, from which apps find their others
    Ls {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Set the root document that an app's devices are given from now on
    Set {
        /// The app: its client_id
        app: ClientId,
        /// The group
        group: Group,
        /// The document: automerge: and its id
        #[arg(value_parser = parse_url)]
        url: String,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Forget an app's root document; the next device sets another
    Rm {
        /// The app: its client_id
        app: String,
        /// The group
        group: Group,
        #[command(flatten)]
        data: DataFlags,
    },
}

impl Command {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ls { json, data } => ls(&data.accounts()?, json),
            Self::Set {
                app,
                group,
                url,
                data,
            } => set(&data.accounts()?, &app, &group, &url),
            Self::Rm { app, group, data } => rm(&data.accounts()?, &app, &group),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    app: &'a str,
    group: &'a str,
    url: &'a str,
    set_at: String,
    /// The device that set it; none if the owner did.
    device: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn new(root: &'a Root) -> Self {
        Self {
            app: &root.app,
            group: &root.group,
            url: &root.url,
            set_at: timestamp(root.set_at_ms),
            device: root.device.as_deref(),
        }
    }
}

fn ls(accounts: &AccountStore, json: bool) -> Result<()> {
    let roots = accounts.roots()?;
    let rows: Vec<_> = roots.iter().map(Row::new).collect();
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("no root documents; the first device of an app sets one\n");
    }
    let cells = rows.iter().map(|row| {
        let by = match row.device {
            Some(device) => format!("by device {}", identifier(device)),
            None => "by you".into(),
        };
        let url = identifier(row.url);
        [
            identifier(row.app),
            identifier(row.group),
            url,
            format!("set {} {by}", row.set_at),
        ]
    });
    print(&(columns(&cells.collect::<Vec<_>>()).join("\n") + "\n"))
}

fn set(accounts: &AccountStore, app: &ClientId, group: &Group, url: &str) -> Result<()> {
    let before = accounts.root(app.as_str(), group.as_str())?;
    accounts.set_root(app.as_str(), group.as_str(), url, &Occasion::at(now_ms()))?;
    let instead = match before {
        Some(before) if before != url => format!(", in place of {}", identifier(&before)),
        _ => String::new(),
    };
    print(&format!(
        "{} now starts from {url} in {group}{instead}. Devices that have signed in keep what they were given.\n",
        identifier(app.as_str())
    ))
}

fn rm(accounts: &AccountStore, app: &str, group: &Group) -> Result<()> {
    if !accounts.remove_root(app, group.as_str(), &Occasion::at(now_ms()))? {
        bail!(
            "{} has no root document in {group}; `roots ls` shows those that there are",
            identifier(app)
        );
    }
    print(&format!(
        "Forgot the root document of {} in {group}; the document itself stays.\n",
        identifier(app)
    ))
}

/// A document, not a version of one: `automerge:` and its id.
fn parse_url(text: &str) -> Result<String, UsageError> {
    let id = text
        .strip_prefix("automerge:")
        .map(str::parse::<DocumentId>);
    match id {
        Some(Ok(id)) => Ok(format!("automerge:{id}")),
        _ => Err(UsageError("not automerge: and a document id".into())),
    }
}
