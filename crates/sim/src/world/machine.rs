//! The machine: what the engine says is done, the store commits, the worker works, time passes.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::{ConnectionId, Effect, Input, Refusal, WorkOutcome, storage::WriteAction};

use super::{World, short};
use crate::{
    chunks,
    disk::Trouble,
    frames::{Received, describe},
    link::CONGESTED_BYTES,
    violation::{Checker, Step, Violation},
    work::work,
};

impl World {
    pub(crate) fn input(&mut self, group: usize, input: Input) -> Step {
        let mut effects: VecDeque<Effect> = self.handle(group, input).into();
        while let Some(effect) = effects.pop_front() {
            let more = self.carry_out(group, effect)?;
            effects.extend(more);
        }
        self.check_bounds(group)
    }

    pub(super) fn handle(&mut self, group: usize, input: Input) -> Vec<Effect> {
        let now_ms = self.now_ms;
        let group = self
            .server
            .as_mut()
            .and_then(|server| server.groups.get_mut(group));
        group.map_or(vec![], |group| group.handle(now_ms, input))
    }

    pub(super) fn carry_out(
        &mut self,
        number: usize,
        effect: Effect,
    ) -> Result<Vec<Effect>, Violation> {
        match effect {
            Effect::Send { connection, frame } => {
                return self.send(number, connection, frame.to_bytes());
            }
            Effect::Close {
                connection,
                refusal,
            } => self.close(connection, refusal),
            Effect::Read { ticket, read } => {
                self.note(format!(
                    "group {number} reads of {}: {:?}",
                    short(&read.document),
                    read.what
                ));
                if let Some(group) = self.group(number) {
                    group.reads.push_back((ticket, read));
                }
            }
            Effect::Write { ticket, write } => {
                self.note(format!(
                    "group {number} writes of {}: {}",
                    short(&write.document),
                    in_words(&write.action)
                ));
                if let Some(group) = self.group(number) {
                    group.writes.push_back((ticket, write));
                }
            }
            Effect::Work { ticket, job } => {
                self.note(format!("group {number} has work: {:?}", job.kind));
                if let Some(group) = self.group(number) {
                    group.jobs.push((ticket, job));
                }
            }
        }
        Ok(vec![])
    }

    pub(crate) fn group(&mut self, number: usize) -> Option<&mut crate::server::Group> {
        self.server.as_mut()?.groups.get_mut(number)
    }

    pub(super) fn send(
        &mut self,
        group: usize,
        id: ConnectionId,
        frame: Bytes,
    ) -> Result<Vec<Effect>, Violation> {
        let received = Received::parse(&frame);
        let link = self.links.get(&id);
        if link.is_some_and(|link| link.is_given_up) {
            return Ok(vec![]);
        }
        let Some(link) = link.filter(|link| link.is_served && link.group == group) else {
            let what = format!("a {} frame for {id}, which is closed", received.kind);
            return Err(Violation::new(Checker::Private, what));
        };
        self.book.check_outgoing(group, link.access, &received)?;
        let event = if received.kind == "sync" {
            let document: String = received.document.chars().take(4).collect();
            format!(
                "{id} <- of {document}: {}",
                describe(&received.sync_message())
            )
        } else {
            format!("{id} <- {}", received.kind)
        };
        self.note(event);
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(vec![]);
        };
        if link.put(frame) {
            link.is_served = false;
            link.is_given_up = true;
            link.empty();
            self.note(format!("{id} does not read; closed"));
            return Ok(self.handle(group, Input::Closed { connection: id }));
        }
        if link.outbox_bytes > CONGESTED_BYTES && !link.is_congested {
            link.is_congested = true;
            self.counts.congestions += 1;
            return Ok(self.handle(group, Input::Congested { connection: id }));
        }
        Ok(vec![])
    }

    pub(super) fn close(&mut self, id: ConnectionId, refusal: Refusal) {
        self.counts.refusals += 1;
        self.note(format!("{id} is closed: {refusal}"));
        if let Some(link) = self.links.get_mut(&id) {
            link.is_served = false;
            link.access = None;
            if !link.is_held {
                self.links.remove(&id);
            }
        }
    }

    /// A group's writer carries out some of what waits, as one commit.
    pub(crate) fn commit(&mut self) -> Step {
        let number = self.any_group();
        let count = 1 + self.dice.below(6);
        let disk = self.disk.clone();
        let Some(group) = self.group(number) else {
            return Ok(());
        };
        if group.writes.is_empty() {
            return Ok(());
        }
        let count = count.min(group.writes.len());
        let writes: Vec<_> = group.writes.drain(..count).collect();
        let outcomes: Vec<_> = group
            .store
            .commit(&writes)
            .into_iter()
            .map(|completion| (completion.ticket, completion.outcome))
            .collect();
        let file = group.file.clone();
        group.committed.push_back(outcomes.clone());
        let stored = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .count();
        self.counts.commits += 1;
        self.counts.faults += (outcomes.len() - stored) as u64;
        self.note(format!("group {number} commits {stored} of {count} writes"));
        // a write that failed may leave bytes behind that nobody waited for
        if stored == count && !disk.is_synced(&file) {
            let what = format!("{file}: said to be stored, and not fsynced");
            return Err(Violation::new(Checker::Durable, what));
        }
        for ((_, write), (_, outcome)) in writes.iter().zip(&outcomes) {
            if outcome.is_ok() {
                self.stored(number, write)?;
            }
        }
        Ok(())
    }

    pub(super) fn stored(&mut self, number: usize, write: &engine::storage::Write) -> Step {
        self.book.note_stored(number, write)?;
        if matches!(write.action, WriteAction::Append { .. }) {
            return Ok(());
        }
        self.counts.snapshots += 1;
        let place = (number, write.document);
        // the checkers read whatever is wrong with the disk
        let trouble = self.disk.trouble();
        self.disk.set_trouble(Trouble::None);
        let chunks = self.group(number).and_then(|group| {
            // a connection that was given up comes back with what is asked of it next
            group.chunks(place).or_else(|| {
                group.store.probe();
                group.chunks(place)
            })
        });
        self.disk.set_trouble(trouble);
        match chunks {
            Some(chunks) => self.book.check_kept(place, &chunks),
            None => {
                let what = format!("{} is stored, and cannot be read", write.document);
                Err(Violation::new(Checker::Durable, what))
            }
        }
    }

    pub(crate) fn answer_reads(&mut self) -> Step {
        let number = self.any_group();
        let count = 1 + self.dice.below(4);
        let Some(group) = self.group(number) else {
            return Ok(());
        };
        let count = count.min(group.reads.len());
        let answers: Vec<_> = group
            .reads
            .drain(..count)
            .map(|(ticket, read)| (ticket, group.store.read(&read)))
            .collect();
        if !answers.is_empty() {
            group.read.push_back(answers);
            self.note(format!("group {number} has read {count}"));
        }
        Ok(())
    }

    /// The engine hears what the store has said.
    pub(crate) fn report(&mut self) -> Step {
        let number = self.any_group();
        let reads_first = self.dice.one_in(2);
        let heard = self.group(number).and_then(|group| {
            let mut queues = [&mut group.committed, &mut group.read];
            if reads_first {
                queues.reverse();
            }
            queues.into_iter().find_map(VecDeque::pop_front)
        });
        let Some(answers) = heard else {
            return self.tick(number);
        };
        self.note(format!("group {number} hears {} answers", answers.len()));
        self.input(number, Input::Answered(answers))?;
        if self
            .group(number)
            .is_some_and(|group| group.committed.is_empty())
        {
            self.book.note_heard(number);
        }
        Ok(())
    }

    pub(crate) fn work(&mut self) -> Step {
        let number = self.any_group();
        let is_lost = self.plan.worker_trouble && self.dice.one_in(20);
        let was_there = self.dice.one_in(2);
        let at = self.dice.below(4);
        let Some(group) = self.group(number).filter(|group| !group.jobs.is_empty()) else {
            return Ok(());
        };
        let (ticket, job) = group.jobs.swap_remove(at.min(group.jobs.len() - 1));
        let outcome = match (is_lost, was_there) {
            (true, true) => WorkOutcome::Indigestible {
                reason: "the worker died".into(),
            },
            (true, false) => WorkOutcome::Unavailable,
            (false, _) => work(&job),
        };
        self.counts.jobs_lost += u64::from(is_lost);
        self.note(format!(
            "group {number}: the worker is done, or there is none: {is_lost}"
        ));
        self.input(number, Input::Worked { ticket, outcome })
    }

    pub(super) fn pass_time(&mut self) -> Step {
        let ms = if self.dice.one_in(4) { 6_000 } else { 400 };
        self.now_ms += i64::try_from(self.dice.below(ms)).unwrap_or(0);
        if self.plan.clock_steps && self.dice.one_in(50) {
            let hours = i64::try_from(self.dice.below(5)).unwrap_or(0) - 2;
            self.skew_ms = hours * 3_600_000;
            self.note(format!("the clock on the wall is {hours} hours wrong"));
        }
        for number in 0..self.plan.groups {
            if let Some(group) = self.group(number)
                && group.store.health() != store::Health::Good
            {
                group.store.probe();
            }
            self.tick(number)?;
        }
        Ok(())
    }

    /// Lets the engine look at the clock, if it wants to.
    pub(crate) fn tick(&mut self, number: usize) -> Step {
        let now_ms = u64::try_from(self.now_ms).unwrap_or_default();
        let due = self
            .group(number)
            .and_then(|group| group.engine.next_tick());
        if due.is_some_and(|due| due <= now_ms) {
            return self.input(number, Input::Tick);
        }
        Ok(())
    }
}

fn in_words(action: &WriteAction) -> String {
    match action {
        WriteAction::Append {
            chunk,
            orphans,
            adopted,
            ..
        } => format!(
            "append chunk {:?} with {} changes, {} orphans, {} adopted",
            chunk.as_ref().map(|chunk| chunk.number),
            chunk
                .as_ref()
                .map_or(0, |chunk| chunks::hashes(&chunk.bytes).len()),
            orphans.len(),
            adopted.len()
        ),
        WriteAction::Replace { covers_through, .. } => {
            format!("a snapshot in the place of all up to chunk {covers_through}")
        }
        WriteAction::Quarantine { reason } => format!("quarantine: {reason}"),
        WriteAction::DropPushed { number } => format!("drop pushed chunk {number}"),
    }
}
