//! `groundmist-sync devices`: where the owner decides which devices get in.

mod approve;
mod pending;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;
use store::{AccountStore, AppKind, Device, DeviceProof, Occasion, SessionAccess};

use super::{
    DataFlags,
    choose::{OneOrAll, Wanted, choose},
    output::{columns, count, print, print_json},
    outside::{called, identifier},
    time::{ago, clock, later, parse_window, timestamp},
};
use crate::door::now_ms;

const A_DEVICE: Wanted = Wanted {
    what: "device that could be revoked with the id",
    shown_by: "`devices ls` shows those that can",
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Open the pairing window: for some minutes, devices that are not known may leave a request
    Open {
        /// How long, up to 1h; it closes by itself
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = parse_window)]
        time: Duration,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Close the pairing window
    Close {
        #[command(flatten)]
        data: DataFlags,
    },
    /// Show the requests that wait for you
    Pending {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Let a device in that has left a request, or allow one that is known more, or less
    Approve(approve::Approve),
    /// Turn a request away; its device is not heard again before the pairing window is opened anew
    Deny {
        /// The request's id, or the beginning of it: 4 characters or more
        #[arg(allow_hyphen_values = true)]
        id: String,
        #[command(flatten)]
        data: DataFlags,
    },
    /// List the devices and what they may do
    Ls {
        /// Those that were revoked too
        #[arg(long)]
        all: bool,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Revoke a device with its sessions, for good; its sockets are closed within a second
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
            Self::Open { time, data } => open(&data.accounts()?, time),
            Self::Close { data } => close(&data.accounts()?),
            Self::Pending { json, data } => pending::show(&data, json),
            Self::Approve(approve) => approve.run(),
            Self::Deny { id, data } => deny(&data.accounts()?, &id),
            Self::Ls { all, json, data } => ls(&data.accounts()?, all, json),
            Self::Revoke { which, data } => match which.id {
                Some(id) => revoke(&data.accounts()?, &id),
                None => revoke_all(&data.accounts()?),
            },
        }
    }
}

fn open(accounts: &AccountStore, time: Duration) -> Result<()> {
    let now_ms = now_ms();
    let until_ms = later(now_ms, time);
    accounts.open_window(until_ms, &Occasion::at(now_ms))?;
    print(&format!(
        "The pairing window is open until {} ({} from now).\n\
         Until then any device that reaches the server may leave a request; none gets in before you approve it.\n\
         Start the app now, then look: groundmist-sync devices pending\n\
         Approve only what you have just started yourself, and compare address and time: a program that is no browser\n\
         can claim to be any app.\n",
        clock(until_ms),
        humantime::format_duration(time),
    ))
}

fn close(accounts: &AccountStore) -> Result<()> {
    let was_open = accounts.close_window(&Occasion::at(now_ms()))?;
    let was = if was_open { "" } else { "was and " };
    let waiting = accounts.pending()?;
    let waiting = waiting.iter().filter(|one| one.denied_at_ms.is_none());
    let waiting = match waiting.count() {
        0 => "",
        _ => "; the requests that wait can still be approved",
    };
    print(&format!("The pairing window {was}is closed{waiting}.\n"))
}

fn deny(accounts: &AccountStore, id: &str) -> Result<()> {
    let mut waiting = accounts.pending()?;
    waiting.retain(|one| one.denied_at_ms.is_none());
    let wanted = Wanted {
        what: "request that waits with the id",
        shown_by: "`devices pending` shows those that do",
    };
    let one = choose(id, &waiting, |one| &one.id, &wanted)?;
    if !accounts.deny(&one.id, &Occasion::at(now_ms()))? {
        bail!("the request is gone; `devices pending` shows those that wait");
    }
    print(&format!(
        "Denied {} of {}.\n",
        identifier(&one.id),
        identifier(&one.app)
    ))
}

fn revoke(accounts: &AccountStore, id: &str) -> Result<()> {
    let mut devices = accounts.devices()?;
    devices.retain(|device| device.revoked_at_ms.is_none());
    let device = choose(id, &devices, |device| &device.id, &A_DEVICE)?;
    let Some(sessions) = accounts.revoke_device(&device.id, &Occasion::at(now_ms()))? else {
        bail!("the device has just been revoked by somebody else");
    };
    print(&format!(
        "Revoked {} of {}, with {}. Open sockets are closed within a second.\n",
        identifier(&device.id),
        identifier(&device.app),
        count(sessions, "session")
    ))
}

fn revoke_all(accounts: &AccountStore) -> Result<()> {
    let devices = accounts.revoke_all_devices(&Occasion::at(now_ms()))?;
    print(&format!(
        "Revoked {} with all sessions of theirs. Tokens that were made by hand stay; \
         `sessions revoke --all` ends those too.\n",
        count(devices, "device")
    ))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    name: String,
    app: String,
    kind: &'static str,
    origin: Option<String>,
    proof: &'static str,
    fingerprint: String,
    address: String,
    state: &'static str,
    approvals: Vec<ApprovalRow>,
    created_at: String,
    last_seen_at: Option<String>,
    revoked_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApprovalRow {
    group: String,
    access: &'static str,
    /// What it comes to now, with the app's grant.
    effective: Option<&'static str>,
    created_at: String,
    expires_at: String,
}

impl Row {
    fn new(accounts: &AccountStore, device: &Device, now_ms: i64) -> Result<Self> {
        let mut approvals = vec![];
        for approval in accounts.approvals(&device.id)? {
            let effective = accounts.device_access(&device.id, &approval.group, now_ms)?;
            approvals.push(ApprovalRow {
                group: approval.group,
                access: approval.access.as_str(),
                effective: effective.map(SessionAccess::as_str),
                created_at: timestamp(approval.created_at_ms),
                expires_at: timestamp(approval.expires_at_ms),
            });
        }
        Ok(Self {
            id: device.id.clone(),
            name: device.name.clone(),
            app: device.app.clone(),
            kind: device.kind.as_str(),
            origin: device.origin.clone(),
            proof: device.proof.as_str(),
            fingerprint: device.jkt.clone(),
            address: device.address.clone(),
            state: match device.revoked_at_ms {
                None => "inForce",
                Some(_) => "revoked",
            },
            approvals,
            created_at: timestamp(device.created_at_ms),
            last_seen_at: device.last_seen_at_ms.map(timestamp),
            revoked_at: device.revoked_at_ms.map(timestamp),
        })
    }
}

fn ls(accounts: &AccountStore, all: bool, json: bool) -> Result<()> {
    let now_ms = now_ms();
    let mut devices = accounts.devices()?;
    devices.retain(|device| all || device.revoked_at_ms.is_none());
    let rows: Result<Vec<_>> = devices
        .iter()
        .map(|device| Row::new(accounts, device, now_ms))
        .collect();
    let rows = rows?;
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("no devices; `groundmist-sync devices open` lets them ask\n");
    }
    let texts: Vec<_> = devices
        .iter()
        .zip(&rows)
        .map(|(device, row)| describe(device, row, now_ms))
        .collect();
    print(&texts.join("\n"))
}

fn describe(device: &Device, row: &Row, now_ms: i64) -> String {
    let proof = match device.proof {
        DeviceProof::Owner => "approved by you",
        DeviceProof::Attested => "let in by its app's proof and your grant",
    };
    let seen = match device.last_seen_at_ms {
        Some(seen_ms) => format!("last seen {}", ago(seen_ms, now_ms)),
        None => "not seen since".into(),
    };
    let revoked = match &row.revoked_at {
        Some(at) => format!("  REVOKED {at}"),
        None => String::new(),
    };
    let approvals = row.approvals.iter().map(|approval| {
        [
            "  ".into(),
            identifier(&approval.group),
            approval.access.into(),
            format!("until {}", approval.expires_at),
            approval.limits(device),
        ]
    });
    let approvals = columns(&approvals.collect::<Vec<_>>());
    format!(
        "{}{}{revoked}\n    app   {}\n    from  {}\n    {proof} {}, from {}; {seen}\n{}",
        identifier(&device.id),
        called(&device.name),
        identifier(&device.app),
        origin(device.kind, device.origin.as_deref()),
        row.created_at,
        identifier(&device.address),
        lines(&approvals),
    )
}

impl ApprovalRow {
    /// Why it is less than it says, if it is.
    fn limits(&self, device: &Device) -> String {
        match self.effective {
            _ if device.revoked_at_ms.is_some() => String::new(),
            Some(effective) if effective == self.access => String::new(),
            Some(effective) => format!("(now {effective}: its app is granted no more)"),
            None => "(now nothing: ended, or its app has no grant)".into(),
        }
    }
}

/// What the owner is to think of where a request comes from.
fn origin(kind: AppKind, origin: Option<&str>) -> String {
    let unverified = "unverified app (runs on the device itself)";
    let no_browser = "not a browser: what it says of itself cannot be checked";
    match (kind, origin.map(identifier)) {
        (AppKind::Web, Some(origin)) => origin,
        (AppKind::Native | AppKind::Web, None) => no_browser.into(),
        (AppKind::Native, Some(origin)) => format!("{no_browser}; it says {origin}"),
        (AppKind::Unverified, Some(origin)) => format!("{unverified}, at {origin}"),
        (AppKind::Unverified, None) => format!("{unverified}; {no_browser}"),
    }
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
