//! The audit log's other half: what happens often, added up before it is written.
//!
//! Whoever is refused does not write to our disk, or a flood would fill it. Refusals and logins are counted in memory,
//! and written as rows of their own, each for a span of time. The first of a kind is written at once; while more come,
//! the spans double, up to an hour. A span holds a bounded number of rows, and what does not fit goes into one: of
//! refusals and of logins each, so that nobody who is refused can hide who got in.

use std::{collections::BTreeMap, net::IpAddr};

use store::AuditEntry;

/// Shortest span, in milliseconds.
const SPAN_MS_MIN: i64 = 1_000;
/// Longest span, in milliseconds.
const SPAN_MS_MAX: i64 = 3_600_000;
/// Most rows of a span, of refusals and of logins each.
const ROWS_MAX: usize = 32;
/// Most rows that are kept while the database takes none; what does not fit is added up.
const KEPT_MAX: usize = 1_024;
/// How long they are kept before they are tried again, in milliseconds.
const AGAIN_MS: i64 = 2_000;
/// What is said of those that were added up.
const OTHERS: &str = "others";

/// Something that happens often.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// What it was: `refused` or `login`.
    pub event: &'static str,
    /// Why, or how, in words.
    pub detail: String,
    /// The app, if that is known for sure.
    pub app: Option<String>,
    /// The device, if it is known.
    pub device: Option<String>,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

struct Span {
    first_ms: i64,
    count: u32,
}

/// What has not been written yet.
#[derive(Default)]
pub(super) struct Journal {
    spans: BTreeMap<&'static str, BTreeMap<Event, Span>>,
    /// What the database did not take.
    kept: Vec<AuditEntry>,
    due_ms: i64,
    span_ms: i64,
}

impl Journal {
    /// Counts an event.
    pub(super) fn note(&mut self, event: Event, now_ms: i64) {
        let alike = self.spans.entry(event.event).or_default();
        let event = if alike.len() < ROWS_MAX || alike.contains_key(&event) {
            event
        } else {
            Event {
                event: event.event,
                detail: OTHERS.into(),
                app: None,
                device: None,
                address: None,
            }
        };
        let span = alike.entry(event).or_insert(Span {
            first_ms: now_ms,
            count: 0,
        });
        span.count = span.count.saturating_add(1);
    }

    /// What is to be written now, if it is time.
    pub(super) fn due(&mut self, now_ms: i64) -> Vec<AuditEntry> {
        // a clock that was set back does not make it wait longer than a span
        let wait_ms = self.due_ms.saturating_sub(now_ms);
        if (1..=SPAN_MS_MAX).contains(&wait_ms) {
            return vec![];
        }
        // a span in which nothing happened ends the waiting
        self.span_ms = if self.spans.is_empty() && self.kept.is_empty() {
            0
        } else {
            (self.span_ms * 2).clamp(SPAN_MS_MIN, SPAN_MS_MAX)
        };
        self.due_ms = now_ms.saturating_add(self.span_ms);
        self.rest(now_ms)
    }

    /// All that has not been written.
    pub(super) fn rest(&mut self, now_ms: i64) -> Vec<AuditEntry> {
        let spans = std::mem::take(&mut self.spans);
        let new = spans
            .into_values()
            .flatten()
            .map(|(event, span)| AuditEntry {
                until_ms: (span.count > 1).then_some(now_ms),
                count: span.count,
                app: event.app,
                device: event.device,
                address: event.address.map(|address| address.to_string()),
                detail: Some(event.detail),
                ..AuditEntry::new(span.first_ms, event.event)
            });
        let mut rows = std::mem::take(&mut self.kept);
        rows.extend(new);
        rows
    }

    /// Takes back rows that could not be written, until the next time, which is soon.
    pub(super) fn keep(&mut self, mut rows: Vec<AuditEntry>, now_ms: i64) {
        let surplus = rows.split_off(rows.len().min(KEPT_MAX));
        self.kept = rows;
        for row in surplus {
            self.add_up(row);
        }
        self.due_ms = now_ms.saturating_add(AGAIN_MS);
    }

    /// There are but two events, so this adds two rows to those that are kept.
    fn add_up(&mut self, row: AuditEntry) {
        let is_alike = |kept: &&mut AuditEntry| {
            kept.event == row.event && kept.detail.as_deref() == Some(OTHERS)
        };
        let until_ms = Some(row.until_ms.unwrap_or(row.at_ms));
        match self.kept.iter_mut().find(is_alike) {
            Some(alike) => {
                alike.count = alike.count.saturating_add(row.count);
                alike.until_ms = alike.until_ms.max(until_ms);
            }
            None => self.kept.push(AuditEntry {
                until_ms,
                count: row.count,
                detail: Some(OTHERS.into()),
                ..AuditEntry::new(row.at_ms, row.event)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: u32) -> Event {
        Event {
            event: "refused",
            detail: "the proof is for another address".into(),
            app: None,
            device: None,
            address: Some(IpAddr::V4(address.into())),
        }
    }

    #[test]
    fn the_first_refusal_is_written_at_once_and_the_next_ones_together() {
        let mut journal = Journal::default();
        journal.note(refusal(1), 10);
        assert_eq!(journal.due(10).len(), 1);
        for at_ms in 11..100 {
            journal.note(refusal(1), at_ms);
        }
        assert_eq!(journal.due(100), []);
        let rows = journal.due(10 + SPAN_MS_MIN);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].at_ms, rows[0].count), (11, 89));
    }

    #[test]
    fn a_flood_from_everywhere_writes_few_rows_and_loses_no_count() {
        let (mut journal, mut rows) = (Journal::default(), vec![]);
        // a day of 100 refusals a second, each from another address
        for tick in 0..86_400i64 {
            for number in 0..100 {
                let address = u32::try_from(tick * 100 + number).unwrap();
                journal.note(refusal(address), tick * 1_000);
            }
            rows.extend(journal.due(tick * 1_000));
        }
        rows.extend(journal.rest(86_400_000));
        assert!(rows.len() < 40 * (ROWS_MAX + 1), "{}", rows.len());
        assert_eq!(
            rows.iter().map(|row| u64::from(row.count)).sum::<u64>(),
            8_640_000
        );
    }

    #[test]
    fn a_flood_of_refusals_does_not_hide_who_got_in() {
        let mut journal = Journal::default();
        for address in 0..1_000 {
            journal.note(refusal(address), 10);
        }
        let login = Event {
            event: "login",
            detail: "requestAccess".into(),
            app: Some("https://app.example.dev/client.json".into()),
            device: Some("abc".into()),
            address: Some(IpAddr::V4(7.into())),
        };
        journal.note(login, 20);
        let rows = journal.rest(30);
        let login = rows.iter().find(|row| row.event == "login").unwrap();
        assert_eq!(login.device.as_deref(), Some("abc"));
        assert_eq!(login.address.as_deref(), Some("0.0.0.7"));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_silence_the_audit() {
        let mut journal = Journal::default();
        let later_ms = 1_000 * SPAN_MS_MAX;
        journal.note(refusal(1), later_ms);
        assert_eq!(journal.due(later_ms).len(), 1);
        journal.note(refusal(1), 10);
        assert_eq!(journal.due(10).len(), 1);
    }

    #[test]
    fn what_could_not_be_written_is_kept_within_bounds_and_loses_no_count() {
        let mut journal = Journal::default();
        let mut now_ms = 0;
        for number in 0..10_000 {
            now_ms += AGAIN_MS;
            journal.note(refusal(number), now_ms);
            let rows = journal.due(now_ms);
            assert!(rows.len() <= KEPT_MAX + 3, "{}", rows.len());
            journal.keep(rows, now_ms);
        }
        let rows = journal.rest(now_ms);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u32>(), 10_000);
        assert_eq!(rows[0].at_ms, AGAIN_MS, "the first of them is still told");
    }

    #[test]
    fn after_a_quiet_span_the_next_refusal_is_written_at_once_again() {
        let mut journal = Journal::default();
        for second in 0..20 {
            journal.note(refusal(1), second * 1_000);
            journal.due(second * 1_000);
        }
        let mut now_ms = 20_000;
        while journal.span_ms > 0 {
            now_ms += SPAN_MS_MIN;
            journal.due(now_ms);
        }
        journal.note(refusal(1), now_ms);
        assert_eq!(journal.due(now_ms).len(), 1);
    }
}
