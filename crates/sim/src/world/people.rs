//! Devices, strangers and the owner: what they do of their own accord.

use engine::{Access, ConnectionId, Input};
use store::SessionAccess;

use super::World;
use crate::{
    device::{join, plain},
    link::{Link, Packet, Who},
    owner::Decision,
    violation::Step,
};

impl World {
    pub(super) fn device_acts(&mut self) -> Step {
        if self.devices.is_empty() {
            return Ok(());
        }
        let number = self.dice.below(self.devices.len());
        let document = self.any_document();
        let roll = self.dice.below(32);
        let Some(device) = self.devices.get_mut(number) else {
            return Ok(());
        };
        let (link, session) = (device.link, device.session);
        let may_write = self.owner.access(session, self.now_ms + self.skew_ms)
            == Some(SessionAccess::Write)
            && self.owner.sessions.get(session).is_some();
        let mut says = None;
        match roll {
            0..=13 if may_write => {
                for _ in 0..if roll == 0 {
                    1 + self.dice.below(25)
                } else {
                    1
                } {
                    if device.edit(document, &mut self.dice, self.step).is_some() {
                        self.counts.edits += 1;
                    }
                }
                if !self.dice.one_in(3) {
                    says = device.say(document);
                }
            }
            14..=16 => says = device.open(document),
            17 => says = device.wave(document),
            18 if self.dice.one_in(4) => device.back_up(),
            19 if link.is_none() && self.dice.one_in(4) => device.restore(),
            20 if link.is_none() => device.forget_states(),
            20 if self.dice.one_in(3) => {
                device.forget_states();
                let leave = [("type", "leave"), ("senderId", &*device.name)];
                let leave = plain(crate::frames::frame(&leave, None));
                let documents: Vec<_> = device.copies.keys().copied().collect();
                let says = documents
                    .into_iter()
                    .filter_map(|document| device.say(document));
                let packets: Vec<_> = std::iter::once(leave).chain(says).collect();
                if let Some(id) = link {
                    packets
                        .into_iter()
                        .for_each(|packet| self.push_up(id, packet));
                }
                self.note(format!(
                    "device {number} leaves, and comes back on its connection"
                ));
                return Ok(());
            }
            21 if self.plan.cuts && self.dice.one_in(2) => {
                if let Some(id) = link {
                    self.hang_up(id);
                }
                return Ok(());
            }
            22 => says = device.turn(),
            23 => says = device.tell(document),
            24..=31 if link.is_none() => return self.connect(Who::Device(number)),
            _ => {}
        }
        if let (Some(packet), Some(id)) = (says, link) {
            self.push_up(id, packet);
        }
        self.note(format!("device {number} acts ({roll})"));
        Ok(())
    }

    pub(super) fn push_up(&mut self, id: ConnectionId, packet: Packet) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.is_held) {
            link.up.push_back(packet);
        }
    }

    pub(super) fn stranger_acts(&mut self) -> Step {
        if self.strangers.is_empty() {
            return Ok(());
        }
        let number = self.dice.below(self.strangers.len());
        let documents = self.documents();
        let Some(stranger) = self.strangers.get_mut(number) else {
            return Ok(());
        };
        let Some(id) = stranger.link else {
            return self.connect(Who::Stranger(number));
        };
        if self.dice.one_in(3) {
            stranger.change(&mut self.dice, self.step);
        }
        let packet = stranger.mischief(&mut self.dice, &documents);
        self.counts.mischief += 1;
        self.push_up(id, packet);
        if self.dice.one_in(12) {
            self.hang_up(id);
        }
        self.note(format!("stranger {number} is up to something"));
        Ok(())
    }

    /// Somebody knocks, by a ticket that a server's door has given out to their session.
    pub(crate) fn connect(&mut self, who: Who) -> Step {
        let (group, session, used_ticket, name) = match who {
            Who::Device(number) => match self.devices.get(number) {
                Some(device) => (device.group, device.session, None, device.name.clone()),
                None => return Ok(()),
            },
            Who::Stranger(number) => match self.strangers.get(number) {
                Some(it) => (it.group, it.session, it.used_ticket, it.name.clone()),
                None => return Ok(()),
            },
        };
        let wall_ms = self.wall_ms();
        let Some(account) = self.server.as_ref().map(|server| &server.account) else {
            return Ok(());
        };
        let fresh = self.next_ticket;
        let ticket = used_ticket.filter(|_| self.dice.one_in(3)).unwrap_or(fresh);
        self.next_ticket += u64::from(ticket == fresh);
        if !self.owner.use_ticket(account, ticket, wall_ms)? {
            self.counts.replays_refused += u64::from(ticket != fresh);
            return Ok(());
        }
        let Some(Some(access)) = self.owner.ask(account, session, wall_ms)? else {
            return Ok(());
        };
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let mut link = Link::new(group, who, session, access);
        match who {
            Who::Device(number) => {
                link.up.push_back(join(&name));
                if let Some(device) = self.devices.get_mut(number) {
                    device.connected(id);
                }
            }
            Who::Stranger(number) => {
                if !self.dice.one_in(6) {
                    link.up.push_back(join(&name));
                }
                if let Some(stranger) = self.strangers.get_mut(number) {
                    stranger.link = Some(id);
                    stranger.used_ticket = Some(ticket);
                }
            }
        }
        self.links.insert(id, link);
        self.note(format!("{who:?} connects as {id}"));
        self.input(
            group,
            Input::Opened {
                connection: id,
                access,
            },
        )
    }

    pub(super) fn owner_acts(&mut self) -> Step {
        if !self.plan.access_changes || self.owner.sessions.is_empty() {
            return Ok(());
        }
        let number = self.dice.below(self.owner.sessions.len());
        let wall_ms = self.wall_ms();
        let until_ms = wall_ms + 20_000 + i64::try_from(self.dice.below(200_000)).unwrap_or(0);
        let (access, granted) = (self.any_access(), self.any_access());
        let revoked = self.dice.one_in(6);
        let withdrawn = self.dice.one_in(6);
        let for_ever = self.dice.one_in(2);
        let Some(account) = self.server.as_ref().map(|server| &server.account) else {
            return Ok(());
        };
        let is_revoked = |session: &crate::owner::Session| session.now.revoked;
        if self.owner.sessions.get(number).is_some_and(is_revoked) {
            return self.admit_again(number);
        }
        let decision = Decision {
            approved: access,
            approved_until_ms: if for_ever { i64::MAX / 4 } else { until_ms },
            granted: (!withdrawn).then_some(granted),
            revoked,
        };
        let event = format!("the owner decides about session {number}: {decision:?}");
        let done = self.owner.decide(account, number, decision);
        self.counts.decisions += u64::from(done);
        self.note(format!("{event}, written down: {done}"));
        Ok(())
    }

    pub(super) fn any_access(&mut self) -> SessionAccess {
        if self.dice.one_in(3) {
            SessionAccess::Read
        } else {
            SessionAccess::Write
        }
    }

    /// Whoever had a session that was ended gets another one.
    pub(super) fn admit_again(&mut self, number: usize) -> Step {
        let of = |session: usize| session == number;
        let (device, stranger) = (
            self.devices.iter().position(|it| of(it.session)),
            self.strangers.iter().position(|it| of(it.session)),
        );
        let group = device
            .and_then(|at| self.devices.get(at).map(|it| it.group))
            .or_else(|| stranger.and_then(|at| self.strangers.get(at).map(|it| it.group)));
        let Some(session) = group.and_then(|group| self.admit(group, SessionAccess::Write)) else {
            return Ok(());
        };
        if let Some(device) = device.and_then(|at| self.devices.get_mut(at)) {
            device.session = session;
        }
        if let Some(stranger) = stranger.and_then(|at| self.strangers.get_mut(at)) {
            stranger.session = session;
        }
        self.note(format!("session {session} in the place of {number}"));
        Ok(())
    }

    /// The server looks what the sessions of its sockets may do now.
    pub(crate) fn watch(&mut self) -> Step {
        let wall_ms = self.wall_ms();
        let served: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_served)
            .map(|(id, link)| (*id, link.group, link.session, link.access))
            .collect();
        for (id, group, session, before) in served {
            let Some(account) = self.server.as_ref().map(|server| &server.account) else {
                return Ok(());
            };
            let Some(access) = self.owner.ask(account, session, wall_ms)? else {
                continue;
            };
            if access == before {
                continue;
            }
            if let Some(link) = self.links.get_mut(&id) {
                link.access = access;
                if access == Some(Access::Write) {
                    let unheard = std::mem::take(&mut link.unheard);
                    self.book.note_may_write(group, unheard);
                }
            }
            self.note(format!("{id} may now {access:?}"));
            self.input(
                group,
                Input::AccessChanged {
                    connection: id,
                    access,
                },
            )?;
        }
        Ok(())
    }
}
