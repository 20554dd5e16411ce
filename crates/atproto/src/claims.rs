//! What the claims of several kinds of tokens have in common: an id that is used once, and a life that is short.

use serde::{Deserialize, Deserializer, de::Error as _};

/// Longest id of a token, in bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 256;
/// How far a clock may be off, in seconds.
pub const CLOCK_SKEW_S: i64 = 60;
/// Longest life of a token that is signed for one request, in seconds.
pub const LIFETIME_S_MAX: i64 = 300;

/// A time at which a token is not valid, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// Its end has come.
    #[error("it has expired")]
    Expired,
    /// It was made, or begins, in the future, by more than [`CLOCK_SKEW_S`].
    #[error("it is from the future")]
    Future,
    /// It was made longer ago than [`CLOCK_SKEW_S`]. Said of what is made anew for each request.
    #[error("it is too old")]
    Old,
    /// It would live longer than [`LIFETIME_S_MAX`].
    #[error("it lives for too long")]
    LongLived,
}

/// The `jti` of a token: 1 to [`TOKEN_ID_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenId(pub(crate) String);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if (1..=TOKEN_ID_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom("an id of 1 to 256 bytes"))
        }
    }
}

/// Checks that a token for one request is alive, and lives for at most [`LIFETIME_S_MAX`] from when it was made; from
/// now, if it does not say when that was.
pub(crate) fn check_lifetime(
    issued_at_s: Option<i64>,
    expires_at_s: i64,
    now_s: i64,
) -> Result<(), Untimely> {
    let issued_at_s = issued_at_s.unwrap_or(now_s);
    if expires_at_s <= now_s {
        return Err(Untimely::Expired);
    }
    if issued_at_s > now_s.saturating_add(CLOCK_SKEW_S) {
        return Err(Untimely::Future);
    }
    if expires_at_s.saturating_sub(issued_at_s) > LIFETIME_S_MAX {
        return Err(Untimely::LongLived);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_from_a_minute_before_it_was_made_until_its_end() {
        for (issued_at_s, expires_at_s, now_s, expected) in [
            (Some(1000), 1060, 1000, Ok(())),
            (Some(1000), 1300, 1299, Ok(())),
            (Some(1000), 1300, 1300, Err(Untimely::Expired)),
            (Some(1000), 1301, 1000, Err(Untimely::LongLived)),
            (Some(1060), 1300, 1000, Ok(())),
            (Some(1061), 1300, 1000, Err(Untimely::Future)),
            (None, 1300, 1000, Ok(())),
            (None, 1301, 1000, Err(Untimely::LongLived)),
            (Some(i64::MIN), i64::MAX, 0, Err(Untimely::LongLived)),
            (Some(i64::MAX), i64::MAX, 0, Err(Untimely::Future)),
            (Some(0), i64::MIN, i64::MAX, Err(Untimely::Expired)),
        ] {
            assert_eq!(
                check_lifetime(issued_at_s, expires_at_s, now_s),
                expected,
                "{issued_at_s:?} {expires_at_s} {now_s}"
            );
        }
    }
}
