//! Times, as the owner writes and reads them. All that are shown are UTC: what a browser or a phone says elsewhere can
//! be compared with nothing else on every machine.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use store::WINDOW_MS_MAX;

use super::UsageError;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// Ten years, leap days included.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// A time as RFC 3339 has it, from Unix milliseconds.
pub(super) fn timestamp(ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let time: SystemTime = UNIX_EPOCH + since_epoch;
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Hours and minutes of a time: `14:05 UTC`.
pub(super) fn clock(ms: i64) -> String {
    let timestamp = timestamp(ms);
    format!("{} UTC", timestamp.get(11..16).unwrap_or(&timestamp))
}

/// How long ago a time was, in its largest unit: `3 minutes ago`.
pub(super) fn ago(ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(ms) / 1_000;
    let (count, unit) = match seconds {
        ..=0 => return "just now".into(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// This much later than a time, in Unix milliseconds.
pub(super) fn later(ms: i64, time: Duration) -> i64 {
    ms.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// This much earlier than a time, in Unix milliseconds.
pub(super) fn earlier(ms: i64, time: Duration) -> i64 {
    ms.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// How long a token is good.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, UsageError> {
    let allowed = "a time from 1s to 10 years, such as 30m, 12h or 90d";
    parse(text, SECOND..=LONGEST, allowed)
}

/// How long an approval or a grant holds.
pub(super) fn parse_expiry(text: &str) -> Result<Duration, UsageError> {
    let allowed = "a time from 1h to 10 years, such as 12h, 90d or 1y";
    parse(text, HOUR..=LONGEST, allowed)
}

/// How long the pairing window stays open. While it is, anybody may leave a request: an hour is much already.
pub(super) fn parse_window(text: &str) -> Result<Duration, UsageError> {
    let longest = Duration::from_millis(WINDOW_MS_MAX.unsigned_abs());
    parse(text, SECOND..=longest, "a time from 1s to 1h, such as 10m")
}

/// How far back to look.
pub(super) fn parse_since(text: &str) -> Result<Duration, UsageError> {
    let allowed = "a time from 1s to 10 years, such as 30m, 24h or 7d";
    parse(text, SECOND..=LONGEST, allowed)
}

fn parse(
    text: &str,
    range: RangeInclusive<Duration>,
    allowed: &str,
) -> Result<Duration, UsageError> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| range.contains(time))
        .ok_or_else(|| UsageError(allowed.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_of_their_bounds_are_refused() {
        for (good, bad) in [("1h", "59m"), ("10y", "11y"), ("90d", "soon"), ("1y", "")] {
            assert!(parse_expiry(good).is_ok(), "{good}");
            assert!(parse_expiry(bad).is_err(), "{bad}");
        }
        assert!(parse_window("10m").is_ok() && parse_window("61m").is_err());
        assert!(parse_ttl("1s").is_ok() && parse_ttl("0s").is_err());
        assert!(parse_since("24h").is_ok() && parse_since("-1h").is_err());
    }

    #[test]
    fn times_are_told_in_their_largest_unit() {
        for (ms, told) in [
            (0, "just now"),
            (1_000, "1 second ago"),
            (59_999, "59 seconds ago"),
            (61_000, "1 minute ago"),
            (7_200_000, "2 hours ago"),
            (200_000_000, "2 days ago"),
        ] {
            assert_eq!(ago(1_000, 1_000 + ms), told);
        }
        assert_eq!(ago(2_000, 1_000), "just now", "the clock was set back");
        assert_eq!(clock(1_700_000_000_000), "22:13 UTC");
    }
}
