//! Failing disks and power cuts, and what must be so at any time.

use super::{ORPHANS_MAX, World};
use crate::{
    disk::{Disk, Trouble},
    server::{Server, chunks as stored_chunks, open_group},
    violation::{Checker, Step, Violation},
};

impl World {
    pub(super) fn trouble(&mut self) -> Step {
        if !self.plan.disk_trouble {
            return Ok(());
        }
        let trouble = match (self.disk.trouble(), self.dice.below(8)) {
            (Trouble::None, 0) => Trouble::Full,
            (Trouble::None, 1) => Trouble::Flaky {
                one_in: 3 + self.dice.below(60),
            },
            (Trouble::None, 2) => Trouble::ReadOnly,
            (Trouble::None, _) => return Ok(()),
            (_, 0..=4) => Trouble::None,
            _ => return Ok(()),
        };
        self.note(format!("the disk: {trouble:?}"));
        self.disk.set_trouble(trouble);
        Ok(())
    }

    pub(super) fn power(&mut self) -> Step {
        if self.server.is_none() {
            return self.start();
        }
        match self.dice.below(12) {
            0 if self.plan.crashes => {
                self.crash();
                Ok(())
            }
            1..=3 => self.try_a_power_cut(),
            4 => self.check_orphans(),
            _ => Ok(()),
        }
    }

    /// The power goes: what was not fsynced may be lost, and so is everything in memory.
    pub(crate) fn crash(&mut self) {
        self.counts.crashes += 1;
        self.note("the power goes");
        self.disk.power_off();
        self.server = None;
        self.disk.power_on();
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id) {
                link.is_served = false;
                link.empty();
            }
            self.hang_up(id);
        }
        self.links.clear();
    }

    /// The machine starts on what its disk has.
    pub(crate) fn start(&mut self) -> Step {
        self.server = Server::start(&self.plan, &self.disk)?;
        let Some(server) = &self.server else {
            self.note("the server does not start: the disk says no");
            return Ok(());
        };
        // of which the book knows nothing there may be some too: a write that failed, and was found all the same
        for group in 0..self.plan.groups {
            for document in self.documents() {
                let chunks = server
                    .groups
                    .get(group)
                    .map(|it| it.chunks((group, document)));
                if let Some(Some(chunks)) = chunks {
                    self.book.reread((group, document), &chunks)?;
                }
            }
        }
        for session in 0..self.owner.sessions.len() {
            self.owner
                .ask(&server.account, session, self.now_ms + self.skew_ms)?;
        }
        self.note("the server starts");
        Ok(())
    }

    /// What if the power went now? Another disk is made as it would be found then.
    pub(crate) fn try_a_power_cut(&mut self) -> Step {
        self.counts.power_cuts_tried += 1;
        let seed = self.dice.roll();
        let name = format!("{}-cut", self.disk.path(""));
        let disk = self.disk.after_power_cut(name.replace('/', ""), seed);
        let outcome = self.check_after_power_cut(&disk);
        disk.unmount();
        outcome
    }

    pub(super) fn check_after_power_cut(&mut self, disk: &Disk) -> Step {
        let mut stores = vec![];
        for number in 0..self.plan.groups {
            let Some(store) = open_group(disk, number)? else {
                let what = format!("group {number} cannot be opened after a power cut");
                return Err(Violation::new(Checker::Durable, what));
            };
            stores.push(store);
        }
        for place in self.book.places() {
            let chunks = stores
                .get(place.0)
                .and_then(|store| stored_chunks(store, place.1));
            self.book
                .check_promises(place, &chunks.unwrap_or_default())?;
        }
        Ok(())
    }

    pub(super) fn check_bounds(&mut self, number: usize) -> Step {
        let Some(group) = self.group(number) else {
            return Ok(());
        };
        let jobs = group.jobs.len();
        if jobs > engine::limits::JOBS_MAX {
            let what = format!("group {number} has {jobs} jobs");
            return Err(Violation::new(Checker::Bounded, what));
        }
        if let Some(what) = group.engine.out_of_bounds() {
            let what = format!("in group {number}, {what}");
            return Err(Violation::new(Checker::Bounded, what));
        }
        let bytes = group.engine.graph_bytes();
        // those who lag behind keep their graphs, and what is on its way to the disk counts
        if bytes > 4 << 20 {
            let what = format!("group {number} holds {bytes} bytes of graphs");
            return Err(Violation::new(Checker::Bounded, what));
        }
        let connections = group.engine.connections();
        let links = self
            .links
            .values()
            .filter(|link| link.group == number && link.is_served)
            .count();
        if connections != links {
            let what = format!("group {number} knows {connections} connections, and has {links}");
            return Err(Violation::new(Checker::Bounded, what));
        }
        Ok(())
    }

    /// The queues of orphans are within their bounds, and none waits for what is there.
    pub(crate) fn check_orphans(&mut self) -> Step {
        for place in self.book.places() {
            let count = self.orphans(place).len();
            if count > 2 * ORPHANS_MAX {
                let what = format!("{} keeps {count} orphans", place.1);
                return Err(Violation::new(Checker::Bounded, what));
            }
        }
        Ok(())
    }

    pub(crate) fn orphans(&mut self, place: crate::book::Place) -> Vec<engine::storage::Orphan> {
        let read = engine::storage::Read {
            document: place.1,
            what: engine::storage::ReadWhat::Graph,
        };
        let answer = self.group(place.0).map(|group| group.store.read(&read));
        match answer {
            Some(Ok(engine::storage::Answer::Graph { orphans, .. })) => orphans,
            _ => vec![],
        }
    }
}
