//! `groundmist-sync audit`.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use store::{AuditEntry, AuditOrder, AuditRow};

use super::{
    DataFlags,
    output::{complain, print, print_json},
    outside::{identifier, words},
    time::{earlier, parse_since, timestamp},
};
use crate::door::now_ms;

/// Most lines that are shown; there are older ones then, which a shorter time does not hide.
const LINES_MAX: u32 = 100_000;

/// Show what was asked, allowed, refused and taken back; the newest comes last
#[derive(clap::Args)]
pub(super) struct Audit {
    /// How far back, such as 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_since)]
    since: Duration,
    /// For programs: one array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataFlags,
}

impl Audit {
    pub(super) fn run(self) -> Result<()> {
        let accounts = self.data.accounts()?;
        let since_ms = earlier(now_ms(), self.since);
        let mut rows = accounts.audit(since_ms, LINES_MAX, AuditOrder::NewestFirst)?;
        rows.reverse();
        if rows.len() >= LINES_MAX as usize {
            complain!("only the last {LINES_MAX} lines; a shorter --since shows all of its own");
        }
        if self.json {
            return print_json(&rows.iter().map(Row::new).collect::<Vec<_>>());
        }
        if rows.is_empty() {
            let since = humantime::format_duration(self.since);
            return print(&format!("nothing in the last {since}\n"));
        }
        let lines = rows.iter().map(|row| line(&row.entry) + "\n");
        print(&lines.collect::<String>())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    number: i64,
    at: String,
    until: Option<String>,
    event: &'a str,
    app: Option<&'a str>,
    device: Option<&'a str>,
    group: Option<&'a str>,
    session: Option<&'a str>,
    address: Option<&'a str>,
    detail: Option<String>,
    count: u32,
}

impl<'a> Row<'a> {
    fn new(AuditRow { number, entry }: &'a AuditRow) -> Self {
        Self {
            number: *number,
            at: timestamp(entry.at_ms),
            until: entry.until_ms.map(timestamp),
            event: &entry.event,
            app: entry.app.as_deref(),
            device: entry.device.as_deref(),
            group: entry.group.as_deref(),
            session: entry.session.as_deref(),
            address: entry.address.as_deref(),
            detail: entry.detail.as_deref().map(with_times),
            count: entry.count,
        }
    }
}

fn line(entry: &AuditEntry) -> String {
    let mut parts = vec![timestamp(entry.at_ms), identifier(&entry.event)];
    if entry.count > 1 {
        let until = entry.until_ms.map(timestamp);
        let until = until.map_or(String::new(), |until| format!(" until {until}"));
        parts.push(format!("{} times{until}", entry.count));
    }
    let named = [
        ("", &entry.app),
        ("device ", &entry.device),
        ("group ", &entry.group),
        ("session ", &entry.session),
        ("from ", &entry.address),
    ];
    for (label, value) in named {
        parts.extend(
            value
                .as_ref()
                .map(|value| format!("{label}{}", identifier(value))),
        );
    }
    let detail = entry
        .detail
        .as_deref()
        .map(|detail| words(&with_times(detail)));
    parts.extend(detail.map(|detail| format!("({detail})")));
    parts.join("  ")
}

/// The store writes times as it keeps them, `until 1795522322000`; this is how they are read.
fn with_times(detail: &str) -> String {
    const UNTIL: &str = "until ";
    let Some((before, rest)) = detail.split_once(UNTIL) else {
        return detail.into();
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = rest.split_at(digits);
    match number.parse() {
        // Unix seconds, or a number of anything else, have fewer
        Ok(ms) if digits >= 13 => format!("{before}{UNTIL}{}{after}", timestamp(ms)),
        _ => detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_details_can_be_read() {
        for (kept, read) in [
            (
                "write, until 1700000000000",
                "write, until 2023-11-14T22:13:20Z",
            ),
            (
                "until 1700000000000; asked",
                "until 2023-11-14T22:13:20Z; asked",
            ),
            ("until 5", "until 5"),
            ("until", "until"),
            ("until 99999999999999999999", "until 99999999999999999999"),
            ("a reason", "a reason"),
        ] {
            assert_eq!(with_times(kept), read);
        }
    }
}
