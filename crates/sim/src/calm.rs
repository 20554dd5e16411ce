//! The calm between storms: all faults are over. Whoever is connected must come into step; then everybody comes back, as
//! that heals much, and all must come into step, and then be still.

use automerge::{Change, ReadDoc};
use engine::{
    ChangeHash, Effect, Input,
    limits::HEADS_MAX,
    storage::{Answer, Read, ReadWhat},
};
use store::SessionAccess;

use crate::{
    book::Place,
    frames::ours,
    link::{Link, Who},
    violation::{Checker, Step, Violation},
    world::World,
};

/// How many things may happen until all are in step.
const TALK_MAX: usize = 60_000;
/// How long a time may pass that the server waits for, in milliseconds, and how often.
const WAIT_MS: i64 = 40_000;
const WAITS: usize = 4;
/// How long nothing may happen, in seconds, and how often an engine may look at the clock in each.
const SILENCE_SECONDS: usize = 120;
const TICKS_A_SECOND: usize = 20;

impl World {
    /// Ends all trouble, and sees that all documents end up the same everywhere.
    pub(crate) fn calm(&mut self) -> Step {
        self.counts.calms += 1;
        self.note("calm");
        self.disk.set_trouble(crate::disk::Trouble::None);
        self.mend()?;
        self.everybody_says_what_they_have()?;
        self.let_time_pass(|link| link.is_served)?;
        self.check_in_step(|link| link.is_none_or(|link| !link.is_served || !link.is_held))?;
        self.everybody_leaves()?;
        self.everybody_returns()?;
        self.let_time_pass(|_| true)?;
        self.check_in_step(|_| false)?;
        self.check_orphans()?;
        self.check_orphans_found_home()?;
        self.try_a_power_cut()?;
        self.check_silence()
    }

    /// Starts the server if it is off, or if its storage has given up until a restart.
    fn mend(&mut self) -> Step {
        let given_up = self.server.as_mut().is_some_and(|server| {
            server.groups.iter_mut().any(|group| {
                group.store.probe();
                group.store.health() != store::Health::Good
            })
        });
        if given_up {
            self.crash();
        }
        if self.server.is_none() {
            self.start()?;
        }
        let Some(server) = &self.server else {
            let what = "the server does not start although nothing is wrong with the disk";
            return Err(Violation::new(Checker::Convergent, what));
        };
        if self.owner.make_sure(&server.account) {
            return Ok(());
        }
        let what = "a decision cannot be written down although nothing is wrong with the disk";
        Err(Violation::new(Checker::Convergent, what))
    }

    /// Those whose connection is alive, on it.
    fn everybody_says_what_they_have(&mut self) -> Step {
        while self
            .links
            .values()
            .any(|link| link.is_served && !link.is_held)
        {
            self.notice_the_dead()?;
        }
        self.watch()?;
        for device in &mut self.devices {
            let link = device.link.and_then(|id| self.links.get_mut(&id));
            let Some(link) = link.filter(|link| link.is_held) else {
                continue;
            };
            let documents: Vec<_> = device.copies.keys().copied().collect();
            let says = documents
                .into_iter()
                .filter_map(|document| device.say(document));
            link.up.extend(says);
        }
        Ok(())
    }

    fn everybody_leaves(&mut self) -> Step {
        let all: Vec<_> = self.links.keys().copied().collect();
        all.into_iter().for_each(|id| self.hang_up(id));
        while !self.links.is_empty() {
            self.notice_the_dead()?;
        }
        Ok(())
    }

    fn everybody_returns(&mut self) -> Step {
        for number in 0..self.devices.len() {
            self.connect(Who::Device(number))?;
        }
        Ok(())
    }

    /// Lets time pass that the server may wait for, and those talk who are on such connections.
    fn let_time_pass(&mut self, is_heard: fn(&Link) -> bool) -> Step {
        for _ in 0..WAITS {
            self.settle(is_heard)?;
            self.now_ms += WAIT_MS;
            for group in 0..self.plan.groups {
                self.tick(group)?;
            }
        }
        self.settle(is_heard)
    }

    /// Lets them talk until nobody has anything to say.
    fn settle(&mut self, is_heard: fn(&Link) -> bool) -> Step {
        for _ in 0..TALK_MAX {
            if self.is_settled(is_heard) {
                return Ok(());
            }
            self.deliver_up()?;
            self.commit()?;
            self.answer_reads()?;
            self.report()?;
            self.write_out()?;
            self.deliver_down()?;
            self.finish_jobs()?;
        }
        let what = format!("they talk for ever: {}", self.what_is_left());
        Err(Violation::new(Checker::Convergent, what))
    }

    /// The worker has a good day.
    fn finish_jobs(&mut self) -> Step {
        let trouble = std::mem::replace(&mut self.plan.worker_trouble, false);
        let outcome = self.work();
        self.plan.worker_trouble = trouble;
        outcome
    }

    fn is_settled(&self, is_heard: fn(&Link) -> bool) -> bool {
        let is_still = |link: &Link| {
            link.up.is_empty() && link.outbox.is_empty() && link.down.is_empty() && link.is_served
        };
        let is_idle = |group: &crate::server::Group| {
            group.writes.is_empty()
                && group.reads.is_empty()
                && group.committed.is_empty()
                && group.read.is_empty()
                && group.jobs.is_empty()
        };
        let groups = self.server.iter().flat_map(|server| &server.groups);
        let mut heard = self.links.values().filter(|link| is_heard(link));
        heard.all(is_still) && groups.into_iter().all(is_idle)
    }

    fn what_is_left(&self) -> String {
        let mut left = String::new();
        for (id, link) in &self.links {
            let counts = (link.up.len(), link.outbox.len(), link.down.len());
            left += &format!("{id} {:?} {counts:?} served {}; ", link.who, link.is_served);
        }
        for group in self.server.iter().flat_map(|server| &server.groups) {
            left += &format!(
                "{}: {} writes, {} reads, {} answers, {} jobs; ",
                group.file,
                group.writes.len(),
                group.reads.len(),
                group.committed.len() + group.read.len(),
                group.jobs.len()
            );
        }
        left
    }

    /// Every device that may write has exactly what is on disk; one that may only read has at least that. Those with such
    /// a connection are excused.
    fn check_in_step(&mut self, is_excused: fn(Option<&Link>) -> bool) -> Step {
        for number in 0..self.devices.len() {
            let Some(device) = self.devices.get(number) else {
                continue;
            };
            let Some(id) = device.link else { continue };
            let link = self.links.get(&id);
            if is_excused(link) {
                continue;
            }
            let access = self.owner.access(device.session, self.wall_ms());
            let (name, group) = (device.name.clone(), device.group);
            if !link.is_some_and(|link| link.is_served) {
                let what = format!("{name} of group {group} is turned away for nothing");
                return Err(Violation::new(Checker::Convergent, what));
            }
            let documents: Vec<_> = device.copies.keys().copied().collect();
            for document in documents {
                self.check_one(number, (group, document), access)?;
            }
        }
        Ok(())
    }

    fn check_one(&mut self, number: usize, place: Place, access: Option<SessionAccess>) -> Step {
        if access.is_none() || self.is_beyond_help(place) {
            return Ok(());
        }
        let stored = self.book.heads(place);
        let copy = self
            .devices
            .get(number)
            .and_then(|device| device.copies.get(&place.1));
        let Some(copy) = copy else { return Ok(()) };
        let has = |head| {
            copy.doc
                .get_change_by_hash(&crate::frames::theirs(head))
                .is_some()
        };
        let in_step = copy.heads() == stored
            || (access == Some(SessionAccess::Read) && stored.iter().all(has));
        if in_step {
            return self.check_heard(number, place, stored);
        }
        let what = format!(
            "device {number} has {:?} of {} in group {}, the disk {stored:?}",
            copy.heads(),
            place.1,
            place.0
        );
        Err(Violation::new(Checker::Convergent, what))
    }

    /// A device that watches the server's storage has heard which heads lie there.
    fn check_heard(&self, number: usize, place: Place, stored: Vec<ChangeHash>) -> Step {
        let device = self.devices.get(number).filter(|device| device.hears());
        let Some(device) = device else { return Ok(()) };
        let mut heard = device.heard.get(&place.1).cloned().unwrap_or_default();
        heard.sort_unstable();
        if heard == stored {
            return Ok(());
        }
        let what = format!(
            "device {number} has heard that {heard:?} of {} in group {} are stored, the disk has {stored:?}",
            place.1, place.0
        );
        Err(Violation::new(Checker::Convergent, what))
    }

    /// A pushed chunk that the worker died of: whoever has it is left with what they have.
    fn is_beyond_help(&mut self, (group, document): Place) -> bool {
        let read = Read {
            document,
            what: ReadWhat::Meta,
        };
        let answer = self.group(group).map(|group| group.store.read(&read));
        matches!(answer, Some(Ok(Answer::Meta(Some(meta)))) if meta.quarantine.is_some() && meta.has_pushed)
    }

    /// No orphan waits that is there itself, or for which all is there and room, in a document that somebody has opened.
    fn check_orphans_found_home(&mut self) -> Step {
        let is_opened = |(group, document): &Place| {
            self.devices.iter().any(|device| {
                let link = device.link.and_then(|id| self.links.get(&id));
                let is_served = link.is_some_and(|link| link.is_served);
                is_served && device.group == *group && device.copies.contains_key(document)
            })
        };
        let places: Vec<_> = self.book.places().into_iter().filter(is_opened).collect();
        for place in places {
            let has_room = self.book.heads(place).len() < HEADS_MAX;
            for orphan in self.orphans(place) {
                let deps = Change::try_from(&*orphan.bytes);
                let deps = deps.map_or(vec![], |change| change.deps().to_vec());
                let is_there = |dep| self.book.is_stored(place, &ours(dep));
                let what = if self.book.is_stored(place, &orphan.hash) {
                    "has its place"
                } else if has_room && deps.iter().all(is_there) {
                    "lacks nothing"
                } else {
                    continue;
                };
                let what = format!("{}: orphan {} {what} and still waits", place.1, orphan.hash);
                return Err(Violation::new(Checker::Convergent, what));
            }
        }
        Ok(())
    }

    /// Time alone makes nobody say or write anything.
    fn check_silence(&mut self) -> Step {
        for _ in 0..SILENCE_SECONDS {
            self.now_ms += 1_000;
            for number in 0..self.plan.groups {
                self.check_silent_second(number)?;
            }
        }
        self.check_graphs()
    }

    /// What is used no more has gone, as far as there is too much of it.
    fn check_graphs(&mut self) -> Step {
        let graph_bytes_max = self.plan.engine_settings().graph_bytes_max;
        for group in self.server.iter().flat_map(|server| &server.groups) {
            let bytes = group.engine.graph_bytes();
            if bytes > graph_bytes_max {
                let what = format!("{}: {bytes} bytes of graphs in silence", group.file);
                return Err(Violation::new(Checker::Bounded, what));
            }
        }
        Ok(())
    }

    fn check_silent_second(&mut self, number: usize) -> Step {
        let now_ms = self.now_ms;
        let until = u64::try_from(now_ms).unwrap_or_default();
        let Some(group) = self.group(number) else {
            return Ok(());
        };
        for _ in 0..TICKS_A_SECOND {
            if group.engine.next_tick().is_none_or(|due| due > until) {
                return Ok(());
            }
            let effects: Vec<Effect> = group.handle(now_ms, Input::Tick);
            if let Some(effect) = effects.first() {
                let what = format!("group {number} does not rest: {effect:?}");
                return Err(Violation::new(Checker::Quiet, what));
            }
        }
        let what = format!("group {number} looks at the clock without end");
        Err(Violation::new(Checker::Quiet, what))
    }
}
