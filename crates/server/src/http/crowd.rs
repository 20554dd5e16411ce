//! How many connections strangers may hold open that are nothing yet.
//!
//! A connection costs memory and a file before it has said a word. Once it is a WebSocket, whoever opened it is known, and
//! it counts no more. This machine and the proxies that the owner trusts are not counted: they speak for many.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::door::Place;

/// Most connections of one address, or network of IPv6, that are nothing yet.
const OF_PLACE_MAX: usize = 128;
/// Most of them in all.
const IN_ALL_MAX: usize = 4_096;

/// Those who have come in and are nothing yet.
#[derive(Default)]
pub(super) struct Crowd(Mutex<HashMap<Place, usize>>);

/// A place in the crowd, until the connection ends or is something.
pub(super) struct Guest {
    crowd: Arc<Crowd>,
    place: Place,
}

impl Crowd {
    /// A place for one more connection from this address; nothing if there are too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let place = Place::from(address);
        let mut counts = self.counts();
        let in_all: usize = counts.values().sum();
        let of_place = counts.get(&place).copied().unwrap_or(0);
        if in_all >= IN_ALL_MAX || of_place >= OF_PLACE_MAX {
            return None;
        }
        counts.insert(place, of_place + 1);
        Some(Guest {
            crowd: Arc::clone(self),
            place,
        })
    }

    /// A panic while the lock was held leaves a map that is whole all the same.
    fn counts(&self) -> MutexGuard<'_, HashMap<Place, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_keep_the_others_out_by_connections_that_say_nothing() {
        let crowd = Arc::new(Crowd::default());
        let enter = |address: &str| crowd.enter(address.parse().unwrap());
        let mut guests: Vec<_> = (0..OF_PLACE_MAX).map(|_| enter("192.0.2.1")).collect();
        assert!(guests.iter().all(Option::is_some));
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("::ffff:192.0.2.1").is_none(), "the same in IPv6");
        assert!(enter("192.0.2.2").is_some());
        guests.pop();
        assert!(enter("192.0.2.1").is_some(), "one has gone");
    }

    #[test]
    fn a_network_of_ipv6_cannot_keep_the_others_out_with_its_many_addresses() {
        let crowd = Arc::new(Crowd::default());
        let enter = |number: usize| {
            let address: std::net::Ipv6Addr = format!("2001:db8::{number:x}").parse().unwrap();
            crowd.enter(address.into())
        };
        let guests: Vec<_> = (0..IN_ALL_MAX).filter_map(enter).collect();
        assert_eq!(guests.len(), OF_PLACE_MAX);
        assert!(crowd.enter("2001:db8:0:1::1".parse().unwrap()).is_some());
    }

    #[test]
    fn a_crowd_from_everywhere_has_an_end_and_leaves_nothing_behind() {
        let crowd = Arc::new(Crowd::default());
        let guests: Vec<_> = (0..10_000u32)
            .filter_map(|number| crowd.enter(IpAddr::V4(number.into())))
            .collect();
        assert_eq!(guests.len(), IN_ALL_MAX);
        drop(guests);
        assert!(crowd.counts().is_empty());
    }
}
