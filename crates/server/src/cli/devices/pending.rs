//! `groundmist-sync devices pending`: what the owner sees of a request before approving it.

use anyhow::Result;
use serde::Serialize;
use store::{AccountStore, Grant, Pending, PendingDoor, SessionAccess};

use super::{approve::READ_ONLY, origin};
use crate::{
    cli::{
        DataFlags,
        output::{columns, print, print_json, shell_word},
        outside::{fingerprint, identifier, name},
        time::{ago, clock, timestamp},
    },
    door::now_ms,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    door: &'static str,
    app: &'a str,
    app_name: Option<&'a str>,
    device_name: &'a str,
    kind: &'static str,
    origin: Option<&'a str>,
    address: &'a str,
    fingerprint: &'a str,
    key_revoked_before: bool,
    /// The device with this key, if it is known and asks for more.
    known_device: Option<String>,
    groups: Vec<GroupRow<'a>>,
    state: &'static str,
    first_at: String,
    last_at: String,
    tries: u32,
    approve_command: String,
}

#[derive(Serialize)]
struct GroupRow<'a> {
    group: &'a str,
    access: &'static str,
}

/// Shows all requests.
pub(super) fn show(data: &DataFlags, json: bool) -> Result<()> {
    let accounts = data.accounts()?;
    let pending = accounts.pending()?;
    let rows: Result<Vec<_>> = pending
        .iter()
        .map(|one| Row::new(&accounts, one, data))
        .collect();
    let rows = rows?;
    if json {
        return print_json(&rows);
    }
    let now_ms = now_ms();
    let grants = accounts.grants()?;
    let waits = |one: &&(&Pending, Row<'_>)| one.0.denied_at_ms.is_none();
    let all: Vec<_> = pending.iter().zip(rows).collect();
    let mut text = String::new();
    for (one, row) in all.iter().filter(waits) {
        text += &describe(one, row, &grants, now_ms);
        text.push('\n');
    }
    let warning = match text.is_empty() {
        true => "No request waits.\n",
        false => {
            "Approve only what you have just started yourself: compare address and time. To turn one away:\n\
             groundmist-sync devices deny ID\n"
        }
    };
    text += warning;
    for (one, row) in all.iter().filter(|one| !waits(one)) {
        let (id, app) = (identifier(row.id), identifier(&one.app));
        text += &format!("Denied: {id} of {app}\n");
    }
    text += &window(&accounts, now_ms)?;
    print(&text)
}

fn window(accounts: &AccountStore, now_ms: i64) -> Result<String> {
    Ok(match accounts.window_open_until(now_ms)? {
        Some(until_ms) => format!("The pairing window is open until {}.\n", clock(until_ms)),
        None => "The pairing window is closed; groundmist-sync devices open\n".into(),
    })
}

impl<'a> Row<'a> {
    fn new(accounts: &AccountStore, one: &'a Pending, data: &DataFlags) -> Result<Self> {
        let groups = one.groups.iter().map(|(group, access)| GroupRow {
            group,
            access: access.as_str(),
        });
        Ok(Self {
            id: &one.id,
            door: match one.door {
                PendingDoor::Authenticate => "authenticate",
                PendingDoor::RequestAccess => "requestAccess",
            },
            app: &one.app,
            app_name: one.app_name.as_deref(),
            device_name: &one.name,
            kind: one.kind.as_str(),
            origin: one.origin.as_deref(),
            address: &one.address,
            fingerprint: &one.jkt,
            key_revoked_before: accounts.was_revoked(&one.jkt)?,
            known_device: accounts.device_by_jkt(&one.jkt)?.map(|device| device.id),
            groups: groups.collect(),
            state: match one.denied_at_ms {
                None => "waiting",
                Some(_) => "denied",
            },
            first_at: timestamp(one.first_at_ms),
            last_at: timestamp(one.last_at_ms),
            tries: one.tries,
            approve_command: approve_command(one, data),
        })
    }
}

/// Names the groups and what is asked there: before the owner has typed this, the request may gather more, which was
/// not seen.
fn approve_command(one: &Pending, data: &DataFlags) -> String {
    let mut words = vec![
        "groundmist-sync devices approve".into(),
        shell_word(&identifier(&one.id)),
    ];
    for (group, access) in &one.groups {
        let only = match access {
            SessionAccess::Read => READ_ONLY,
            SessionAccess::Write => "",
        };
        let choice = format!("{}{only}", identifier(group));
        words.extend(["--group".into(), shell_word(&choice)]);
    }
    words.extend(data.again());
    words.join(" ")
}

fn describe(one: &Pending, row: &Row<'_>, grants: &[Grant], now_ms: i64) -> String {
    let door = match one.door {
        PendingDoor::Authenticate => "nothing but its key is proven",
        PendingDoor::RequestAccess => "it acts for your account; which app it is, is not proven",
    };
    let claim =
        |label: &str, claimed: &str| [label.into(), format!("{} (its own claim)", name(claimed))];
    let at = |ms: i64, text: &str| format!("{text} ({})", ago(ms, now_ms));
    let mut lines = vec![["request".into(), identifier(row.id)]];
    if row.key_revoked_before {
        let warning = "this key was revoked before; approve it only to take that back";
        lines.push(["WARNING".into(), warning.into()]);
    }
    lines.push(["app".into(), identifier(row.app)]);
    lines.extend(row.app_name.map(|name| claim("calls itself", name)));
    if !row.device_name.is_empty() {
        lines.push(claim("device", row.device_name));
    }
    lines.push(["comes from".into(), origin(one.kind, row.origin)]);
    for (group, access) in &one.groups {
        lines.push([
            "asks for".into(),
            asked(row.app, group, *access, grants, now_ms),
        ]);
    }
    lines.extend([
        ["address".into(), identifier(row.address)],
        ["first".into(), at(one.first_at_ms, &row.first_at)],
        ["last".into(), at(one.last_at_ms, &row.last_at)],
        ["tries".into(), row.tries.to_string()],
        ["key".into(), fingerprint(row.fingerprint)],
        ["proof".into(), door.into()],
    ]);
    if let Some(device) = &row.known_device {
        lines.push([
            "known".into(),
            format!("as your device {}", identifier(device)),
        ]);
    }
    lines.push(["to approve".into(), row.approve_command.clone()]);
    super::lines(&columns(&lines))
}

/// A group that is asked for, and whether the app could do that already on other devices.
fn asked(app: &str, group: &str, access: SessionAccess, grants: &[Grant], now_ms: i64) -> String {
    let granted = grants
        .iter()
        .any(|grant| grant.app == app && grant.group == group && grant.expires_at_ms > now_ms);
    let new = if granted { "" } else { "  (new to this app)" };
    format!("{}  {}{new}", identifier(group), access.as_str())
}
