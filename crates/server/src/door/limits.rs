//! How often somebody who is nobody yet may ask.
//!
//! Two things are counted, for each address and in all: questions that anybody may ask, and refusals. Whoever is known,
//! by a key that the owner has approved or a token in force, is counted in neither: a flood does not lock the owner's
//! devices out, and a thousand of them may come back at once.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// Addresses that are kept at most; those that have been quiet are forgotten before.
const ADDRESSES_MAX: usize = 20_000;

/// Whom a limit is for: an IPv4 address, or the network of 64 bits that one subscriber has of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(IpAddr);

impl From<IpAddr> for Place {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & !u128::from(u64::MAX);
                Self(Ipv6Addr::from_bits(network).into())
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// Too often: how long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; try again in {} s", after.as_secs().max(1))]
pub struct TooMany {
    /// How long.
    pub after: Duration,
}

impl TooMany {
    /// When what is kept of the current time slot is full.
    pub(super) const fn for_a_slot() -> Self {
        Self {
            after: Duration::from_secs(30),
        }
    }
}

/// A number of events at once, and then so many a second.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    a_second: u32,
}

impl Rate {
    fn quota(self) -> Quota {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Quota::per_second(number(self.a_second)).allow_burst(number(self.burst))
    }
}

const QUESTIONS: Rate = Rate {
    burst: 200,
    a_second: 20,
};
const QUESTIONS_IN_ALL: Rate = Rate {
    burst: 2_000,
    a_second: 500,
};
const REFUSALS: Rate = Rate {
    burst: 60,
    a_second: 2,
};
const REFUSALS_IN_ALL: Rate = Rate {
    burst: 1_000,
    a_second: 200,
};

/// How many sessions a device may begin at once, and how long it takes until it may begin another: each is rows in the
/// database, and lines in the audit log, which nothing removes.
const SESSIONS_BURST: u32 = 32;
const SESSION_EVERY: Duration = Duration::from_secs(10);

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// One thing that is counted, for each address and in all.
struct Limit {
    of_place: Keyed<Place>,
    in_all: governor::DefaultDirectRateLimiter,
}

impl Limit {
    fn new(of_place: Rate, in_all: Rate) -> Self {
        Self {
            of_place: RateLimiter::hashmap(of_place.quota()),
            in_all: RateLimiter::direct(in_all.quota()),
        }
    }

    fn count(&self, address: IpAddr) -> Result<(), TooMany> {
        if self.of_place.len() >= ADDRESSES_MAX {
            self.of_place.retain_recent();
            if self.of_place.len() >= ADDRESSES_MAX {
                let after = Duration::from_secs(10);
                return Err(TooMany { after });
            }
        }
        // the address first: one that is over its own limit takes nothing from the others
        let now = DefaultClock::default().now();
        let wait = |not_until: governor::NotUntil<_>| TooMany {
            after: not_until.wait_time_from(now),
        };
        self.of_place.check_key(&address.into()).map_err(wait)?;
        self.in_all.check().map_err(wait)
    }
}

/// The limits of those who are not known.
pub struct Limits {
    questions: Limit,
    refusals: Limit,
    /// By device: there are no more of them than the owner and the apps that the owner trusts have let in.
    sessions: Keyed<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            questions: Limit::new(QUESTIONS, QUESTIONS_IN_ALL),
            refusals: Limit::new(REFUSALS, REFUSALS_IN_ALL),
            sessions: RateLimiter::hashmap(sessions_quota()),
        }
    }
}

fn sessions_quota() -> Quota {
    let burst = NonZeroU32::new(SESSIONS_BURST).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(SESSION_EVERY);
    quota
        .unwrap_or(Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

impl Limits {
    /// Counts a session that a device begins.
    ///
    /// # Errors
    /// [`TooMany`]; it begins none then.
    pub fn begin(&self, device: &str) -> Result<(), TooMany> {
        let now = DefaultClock::default().now();
        let counted = self.sessions.check_key(&device.to_owned());
        counted.map_err(|not_until| TooMany {
            after: not_until.wait_time_from(now),
        })
    }

    /// Counts a question that anybody may ask.
    ///
    /// # Errors
    /// [`TooMany`]; it is not to be answered then.
    pub fn ask(&self, address: IpAddr) -> Result<(), TooMany> {
        self.questions.count(address)
    }

    /// Counts a try that will be refused, or may be.
    ///
    /// # Errors
    /// [`TooMany`]; nothing more is to be done for it then.
    pub fn refuse(&self, address: IpAddr) -> Result<(), TooMany> {
        self.refusals.count(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_is_refused_too_often_is_not_listened_to_and_others_are() {
        let limits = Limits::default();
        for _ in 0..REFUSALS.burst {
            assert_eq!(limits.refuse(address("192.0.2.1")), Ok(()));
        }
        assert!(limits.refuse(address("192.0.2.1")).is_err());
        assert!(
            limits.refuse(address("::ffff:192.0.2.1")).is_err(),
            "the same in IPv6"
        );
        assert_eq!(limits.refuse(address("192.0.2.2")), Ok(()));
        assert_eq!(limits.ask(address("192.0.2.1")), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let limits = Limits::default();
        for number in 0..REFUSALS.burst {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + u128::from(number));
            assert_eq!(limits.refuse(address.into()), Ok(()));
        }
        assert!(limits.refuse(address("2001:db8::ffff")).is_err());
        assert_eq!(limits.refuse(address("2001:db8:0:1::")), Ok(()));
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_in_all_and_in_memory() {
        let limits = Limits::default();
        let refused = (0..100_000u32)
            .filter(|number| limits.refuse(IpAddr::V4((*number).into())).is_err())
            .count();
        assert!(refused > 90_000, "{refused}");
        assert!(limits.refusals.of_place.len() <= ADDRESSES_MAX);
    }
}
