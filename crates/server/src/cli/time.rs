//! Times, as the owner writes and reads them. All that are shown are UTC: what a browser or a phone says elsewhere can
//! be compared with nothing else on every machine.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::UsageError;

const SECOND: Duration = Duration::from_secs(1);
/// Ten years, leap days included.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// A time as RFC 3339 has it, from Unix milliseconds.
pub(super) fn timestamp(ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let time: SystemTime = UNIX_EPOCH + since_epoch;
    humantime::format_rfc3339_seconds(time).to_string()
}

/// How long a token is good.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, UsageError> {
    let allowed = "a time from 1s to 10 years, such as 30m, 12h or 90d";
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
