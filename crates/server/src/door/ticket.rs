//! Tickets: one-use admissions for one WebSocket.
//!
//! A browser cannot set headers on a WebSocket, so what opens one stands in an address. A ticket is worth nothing half
//! a minute later, or once it has been used, and so nothing in a log either. They are kept in memory alone: a restart
//! makes them invalid, and whoever held one gets another.

use std::collections::{BTreeMap, VecDeque};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::SessionId;
use crate::group::Group;

/// How long a ticket is good, in milliseconds.
pub const TICKET_MS: i64 = 30_000;
/// Most tickets of one session that are not used; the oldest makes room.
const OF_SESSION_MAX: usize = 16;
/// Most tickets in all.
const TICKETS_MAX: usize = 20_000;

/// A ticket, in words that can stand in an address. It cannot be printed by accident.
pub struct Ticket(String);

impl Ticket {
    /// The text to hand out.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

type Mark = [u8; 32];

struct Issued {
    session: SessionId,
    group: Group,
    expires_at_ms: i64,
}

/// The tickets that may still be used.
#[derive(Default)]
pub(super) struct Tickets {
    // by hash, so that how long a look-up takes says nothing of the tickets there are
    issued: BTreeMap<Mark, Issued>,
    // in the order in which they end
    order: VecDeque<Mark>,
}

impl Tickets {
    /// A ticket for one socket of a session in a group; nothing if there are too many.
    ///
    /// # Errors
    /// What the operating system says if it has no randomness.
    pub(super) fn issue(
        &mut self,
        session: &SessionId,
        group: &Group,
        now_ms: i64,
    ) -> Result<Option<Ticket>, getrandom::Error> {
        self.forget_ended(now_ms);
        self.make_room(session);
        if self.issued.len() >= TICKETS_MAX {
            return Ok(None);
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let ticket = Ticket(BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let mark = mark(&ticket.0);
        let issued = Issued {
            session: session.clone(),
            group: group.clone(),
            expires_at_ms: now_ms.saturating_add(TICKET_MS),
        };
        self.issued.insert(mark, issued);
        self.order.push_back(mark);
        Ok(Some(ticket))
    }

    /// Takes a ticket: whom it admits, if it is good. It is not good a second time.
    pub(super) fn redeem(&mut self, ticket: &str, now_ms: i64) -> Option<(SessionId, Group)> {
        let issued = self.issued.remove(&mark(ticket))?;
        (now_ms < issued.expires_at_ms).then_some((issued.session, issued.group))
    }

    fn forget_ended(&mut self, now_ms: i64) {
        while let Some(first) = self.order.front() {
            let is_over = |issued: &Issued| issued.expires_at_ms <= now_ms;
            // those that were used are gone already
            if !self.issued.get(first).is_none_or(is_over) {
                break;
            }
            self.issued.remove(first);
            self.order.pop_front();
        }
        // what was used stays in line behind one that was not: half of it may, so that tidying up costs little
        if self.order.len() > 2 * self.issued.len() + OF_SESSION_MAX {
            let issued = &self.issued;
            self.order.retain(|mark| issued.contains_key(mark));
        }
    }

    fn make_room(&mut self, session: &SessionId) {
        let of_session = |mark: &&Mark| {
            self.issued
                .get(*mark)
                .is_some_and(|issued| issued.session == *session)
        };
        let oldest = self
            .order
            .iter()
            .rev()
            .filter(of_session)
            .nth(OF_SESSION_MAX - 1);
        if let Some(oldest) = oldest.copied() {
            self.issued.remove(&oldest);
        }
    }
}

fn mark(ticket: &str) -> Mark {
    Sha256::digest(ticket).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (SessionId, Group) {
        (
            SessionId::random().unwrap(),
            "com.example.notes".parse().unwrap(),
        )
    }

    #[test]
    fn a_ticket_is_good_once_and_for_half_a_minute() {
        let ((session, group), mut tickets) = (session(), Tickets::default());
        let issue = |tickets: &mut Tickets| tickets.issue(&session, &group, 0).unwrap().unwrap();
        let ticket = issue(&mut tickets);
        let admitted = tickets.redeem(ticket.reveal(), TICKET_MS - 1);
        assert_eq!(admitted, Some((session.clone(), group.clone())));
        assert_eq!(tickets.redeem(ticket.reveal(), 0), None, "a second time");
        let late = issue(&mut tickets);
        assert_eq!(tickets.redeem(late.reveal(), TICKET_MS), None);
        assert_eq!(tickets.redeem("", 0), None);
    }

    #[test]
    fn a_session_has_few_tickets_and_the_oldest_makes_room() {
        let ((session, group), mut tickets) = (session(), Tickets::default());
        let all: Vec<_> = (0..=OF_SESSION_MAX)
            .map(|_| tickets.issue(&session, &group, 0).unwrap().unwrap())
            .collect();
        assert_eq!(tickets.redeem(all[0].reveal(), 1), None);
        assert!(tickets.redeem(all[1].reveal(), 1).is_some());
    }

    #[test]
    fn tickets_that_were_used_take_no_memory() {
        let ((session, group), mut tickets) = (session(), Tickets::default());
        // one that nobody uses stands before all others
        tickets.issue(&session, &group, 0).unwrap();
        for _ in 0..1_000 {
            let ticket = tickets.issue(&session, &group, 1).unwrap().unwrap();
            assert!(tickets.redeem(ticket.reveal(), 1).is_some());
        }
        assert!(tickets.order.len() <= 32, "{}", tickets.order.len());
    }

    #[test]
    fn tickets_that_ended_take_no_memory() {
        let ((session, group), mut tickets) = (session(), Tickets::default());
        for second in 0..1_000 {
            tickets.issue(&session, &group, second * 1_000).unwrap();
        }
        assert!(tickets.issued.len() <= 31, "{}", tickets.issued.len());
        assert!(tickets.order.len() <= 31, "{}", tickets.order.len());
    }
}
