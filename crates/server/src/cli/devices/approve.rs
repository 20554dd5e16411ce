//! `groundmist-sync devices approve`.

use std::str::FromStr;

use anyhow::{Result, bail};
use store::{AccountStore, Approved, Device, Grant, NewApproval, Occasion, Pending, SessionAccess};

use super::lines;
use crate::{
    cli::{
        DataFlags,
        allowance::Allowance,
        choose::{Wanted, choose},
        output::{columns, print},
        outside::{called, identifier},
        time::timestamp,
        token::parse_name,
    },
    door::now_ms,
    group::{Group, InvalidGroup},
};

/// Behind the name of a group that is approved for reading only.
pub(super) const READ_ONLY: &str = "=read";

#[derive(clap::Args)]
pub(in crate::cli) struct Approve {
    /// The id of a request or of a device, or the beginning of it: 4 characters or more
    #[arg(allow_hyphen_values = true)]
    id: String,
    /// Only this group of those that are asked for; for a device, a group that it is to have. With =read behind it, to
    /// read only. May be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<Choice>,
    #[command(flatten)]
    allowance: Allowance,
    /// What to call the device
    #[arg(long, value_parser = parse_name)]
    name: Option<String>,
    #[command(flatten)]
    data: DataFlags,
}

/// A group that the owner names, and the most that is allowed there.
#[derive(Clone)]
struct Choice {
    group: String,
    most: SessionAccess,
}

impl FromStr for Choice {
    type Err = InvalidGroup;

    fn from_str(text: &str) -> Result<Self, InvalidGroup> {
        let (group, most) = match text.strip_suffix(READ_ONLY) {
            Some(group) => (group, SessionAccess::Read),
            None => (text, SessionAccess::Write),
        };
        let group: Group = group.parse()?;
        Ok(Self {
            group: group.to_string(),
            most,
        })
    }
}

/// What an approval is for.
#[derive(Clone)]
enum Target {
    Request(Pending),
    Device(Device),
}

impl Target {
    fn id(&self) -> &str {
        match self {
            Self::Request(request) => &request.id,
            Self::Device(device) => &device.id,
        }
    }

    fn app(&self) -> &str {
        match self {
            Self::Request(request) => &request.app,
            Self::Device(device) => &device.app,
        }
    }
}

impl Approve {
    pub(in crate::cli) fn run(self) -> Result<()> {
        let accounts = self.data.accounts()?;
        let now_ms = now_ms();
        let target = find(&accounts, &self.id)?;
        let approval = NewApproval {
            id: target.id().into(),
            groups: self.groups(&target)?,
            name: self.name.clone(),
            expires_at_ms: self.allowance.until_ms(now_ms),
        };
        let before = grants(&accounts, target.app(), &approval)?;
        match accounts.approve(&approval, &Occasion::at(now_ms))? {
            Approved::Device(device) => {
                let after = grants(&accounts, target.app(), &approval)?;
                let widened = widened(&before, &after, now_ms);
                let mut text = describe(&device, &approval, &widened);
                text += &left_out(&target, &approval);
                print(&(text + "It gets in the next time it asks.\n"))
            }
            Approved::Unknown => {
                bail!("it has just been revoked or forgotten; `devices pending` shows what waits")
            }
            Approved::OtherApp => {
                bail!("its key has become that of a device of another app; deny it")
            }
        }
    }

    /// What is approved: of a request never more than what was asked.
    fn groups(&self, target: &Target) -> Result<Vec<(String, SessionAccess)>> {
        let groups = match target {
            Target::Request(request) => of_request(request, &self.group)?,
            Target::Device(device) => of_device(device, &self.group)?,
        };
        let most = self.allowance.access();
        let groups = groups.into_iter();
        Ok(groups
            .map(|(group, access)| (group, access.min(most)))
            .collect())
    }
}

fn of_request(request: &Pending, choices: &[Choice]) -> Result<Vec<(String, SessionAccess)>> {
    if choices.is_empty() {
        return Ok(request.groups.clone());
    }
    let mut groups = vec![];
    for Choice { group, most } in choices {
        let asked = request.groups.iter().find(|(asked, _)| asked == group);
        let Some((_, asked)) = asked else {
            let all = request.groups.iter().map(|(group, _)| identifier(group));
            let all: Vec<_> = all.collect();
            bail!("{group} is not asked for, but {}", all.join(", "));
        };
        groups.push((group.clone(), *most.min(asked)));
    }
    Ok(groups)
}

fn of_device(device: &Device, choices: &[Choice]) -> Result<Vec<(String, SessionAccess)>> {
    if choices.is_empty() {
        let id = identifier(&device.id);
        bail!("{id} is a device already; say with --group what it is to have");
    }
    let choices = choices.iter();
    Ok(choices
        .map(|choice| (choice.group.clone(), choice.most))
        .collect())
}

fn find(accounts: &AccountStore, id: &str) -> Result<Target> {
    let requests = accounts.pending()?.into_iter().map(Target::Request);
    let devices = accounts.devices()?.into_iter();
    let devices = devices.filter(|device| device.revoked_at_ms.is_none());
    let targets: Vec<_> = requests.chain(devices.map(Target::Device)).collect();
    let wanted = Wanted {
        what: "request, and no device that is not revoked, with the id",
        shown_by: "`devices pending` and `devices ls` show them",
    };
    choose(id, &targets, Target::id, &wanted).cloned()
}

/// The app's grants for the groups of an approval.
fn grants(
    accounts: &AccountStore,
    app: &str,
    approval: &NewApproval,
) -> Result<Vec<Option<Grant>>> {
    let mut grants = vec![];
    for (group, _) in &approval.groups {
        grants.push(accounts.grant(app, group)?);
    }
    Ok(grants)
}

/// What the app may do more than before, on whichever device.
fn widened(before: &[Option<Grant>], after: &[Option<Grant>], now_ms: i64) -> Vec<[String; 4]> {
    let mut rows = vec![];
    for (before, after) in before.iter().zip(after) {
        let before = before.as_ref().filter(|grant| grant.expires_at_ms > now_ms);
        let Some(after) = after.as_ref().filter(|after| Some(*after) != before) else {
            continue;
        };
        let [_, access, until] = row(&after.group, after.access, after.expires_at_ms);
        let was = match before {
            None => "(it had none)".into(),
            Some(before) => {
                let until = timestamp(before.expires_at_ms);
                format!("(before: {} until {until})", before.access.as_str())
            }
        };
        rows.push([
            format!("    {}", identifier(&after.group)),
            access,
            until,
            was,
        ]);
    }
    rows
}

fn row(group: &str, access: SessionAccess, until_ms: i64) -> [String; 3] {
    let until = format!("until {}", timestamp(until_ms));
    [
        format!("    {}", identifier(group)),
        access.as_str().into(),
        until,
    ]
}

fn describe(device: &Device, approval: &NewApproval, widened: &[[String; 4]]) -> String {
    let (id, app) = (identifier(&device.id), identifier(&device.app));
    let groups = approval.groups.iter();
    let groups: Vec<_> = groups
        .map(|(group, access)| row(group, *access, approval.expires_at_ms))
        .collect();
    let mut text = format!(
        "Approved device {id}{} of {app} for:\n",
        called(&device.name)
    );
    text += &lines(&columns(&groups));
    if !widened.is_empty() {
        text += &format!(
            "This widens what {app} is granted, on all devices that you approve for it:\n"
        );
        text += &lines(&columns(widened));
    }
    text
}

/// What of a request was not approved: it has to ask for that again.
fn left_out(target: &Target, approval: &NewApproval) -> String {
    let Target::Request(request) = target else {
        return String::new();
    };
    let is_approved = |asked: &str| approval.groups.iter().any(|(group, _)| group == asked);
    let left: Vec<_> = request
        .groups
        .iter()
        .filter(|(group, _)| !is_approved(group))
        .map(|(group, _)| identifier(group))
        .collect();
    match left.as_slice() {
        [] => String::new(),
        left => format!("Not approved: {}\n", left.join(", ")),
    }
}
