//! What happens: one thing a step, chosen by the die.

mod machine;
mod network;
mod people;
mod trouble;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use engine::{ConnectionId, DocumentId};
use store::SessionAccess;

use crate::{
    book::Book,
    device::Device,
    dice::Dice,
    disk::Disk,
    link::Link,
    owner::Owner,
    plan::Plan,
    server::Server,
    stranger::Stranger,
    violation::{Checker, Step, Violation},
};

/// How many of the last events are kept in words.
const DIARY_EVENTS: usize = 60;
/// When the world begins, Unix time in milliseconds.
const BEGIN_MS: i64 = 1_800_000_000_000;
/// What a stored document may hold at most of what waits for its dependencies.
const ORPHANS_MAX: usize = engine::limits::ORPHANS_MAX;

/// What a run did, to see whether it meant anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub edits: u64,
    pub frames: u64,
    pub commits: u64,
    pub faults: u64,
    pub crashes: u64,
    pub snapshots: u64,
    pub jobs_lost: u64,
    pub refusals: u64,
    pub mischief: u64,
    pub decisions: u64,
    pub power_cuts_tried: u64,
    pub calms: u64,
    pub congestions: u64,
    pub replays_refused: u64,
}

/// The last events, and a hash of all.
#[derive(Default)]
pub(crate) struct Diary {
    pub(crate) last: VecDeque<String>,
    hasher: DefaultHasher,
    /// Every event is printed as it happens.
    pub(crate) aloud: bool,
}

impl Diary {
    fn note(&mut self, step: u64, event: &str) {
        (step, event).hash(&mut self.hasher);
        let line = format!("{step:>7}  {event}");
        if self.aloud {
            println!("{line}");
        }
        if self.last.len() == DIARY_EVENTS {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(crate) fn trace(&self) -> u64 {
        self.hasher.finish()
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) step: u64,
    /// The machine's time that never goes back, Unix time in milliseconds.
    pub(crate) now_ms: i64,
    /// How wrong the wall's clock is.
    skew_ms: i64,
    pub(crate) disk: Disk,
    /// Nothing while the machine is off.
    pub(crate) server: Option<Server>,
    pub(crate) links: BTreeMap<ConnectionId, Link>,
    pub(crate) devices: Vec<Device>,
    pub(crate) strangers: Vec<Stranger>,
    pub(crate) owner: Owner,
    pub(crate) book: Book,
    pub(crate) diary: Diary,
    pub(crate) counts: Counts,
    next_connection: u64,
    next_ticket: u64,
}

impl World {
    /// The world of a plan at its beginning: a server that has just been set up, and nobody connected.
    ///
    /// # Errors
    /// A violation if the server does not start on an empty disk.
    pub(crate) fn new(plan: Plan, run: u64) -> Result<Self, Violation> {
        let disk = Disk::mount(format!("run-{run}"), plan.seed ^ 0x6469_736b);
        let Some(server) = Server::start(&plan, &disk)? else {
            return Err(Violation::new(Checker::Sound, "an empty disk is refused"));
        };
        let mut world = Self {
            dice: Dice(plan.seed),
            step: 0,
            now_ms: BEGIN_MS,
            skew_ms: 0,
            disk,
            server: Some(server),
            links: BTreeMap::new(),
            devices: vec![],
            strangers: vec![],
            owner: Owner::default(),
            book: Book::default(),
            diary: Diary::default(),
            counts: Counts::default(),
            next_connection: 1,
            next_ticket: 1,
            plan,
        };
        world.people();
        Ok(world)
    }

    fn people(&mut self) {
        for group in 0..self.plan.groups {
            for number in 0..self.plan.devices {
                let access = if number > 0 && self.dice.one_in(4) {
                    SessionAccess::Read
                } else {
                    SessionAccess::Write
                };
                if let Some(session) = self.admit(group, access) {
                    let name = format!("device {number}");
                    let is_watching = self.dice.one_in(2);
                    self.devices
                        .push(Device::new(name, group, session, is_watching));
                }
            }
            for number in 0..self.plan.strangers {
                let access = if self.dice.one_in(3) {
                    SessionAccess::Read
                } else {
                    SessionAccess::Write
                };
                let document = self.any_document();
                if let Some(session) = self.admit(group, access) {
                    let name = format!("stranger {number}");
                    self.strangers
                        .push(Stranger::new(name, group, session, document));
                }
            }
        }
    }

    fn admit(&mut self, group: usize, access: SessionAccess) -> Option<usize> {
        let account = &self.server.as_ref()?.account;
        self.owner.admit(account, &group.to_string(), access).ok()
    }

    pub(crate) fn note(&mut self, event: impl AsRef<str>) {
        self.diary.note(self.step, event.as_ref());
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        self.now_ms + self.skew_ms
    }

    pub(crate) fn documents(&self) -> Vec<DocumentId> {
        let ids = 1..=self.plan.documents;
        ids.map(|id| DocumentId::from_bytes([id; 16])).collect()
    }

    fn any_document(&mut self) -> DocumentId {
        let documents = self.documents();
        let at = self.dice.below(documents.len());
        documents
            .get(at)
            .copied()
            .unwrap_or(DocumentId::from_bytes([1; 16]))
    }

    fn any_group(&mut self) -> usize {
        self.dice.below(self.plan.groups)
    }

    fn any_link(&mut self, fits: impl Fn(&Link) -> bool) -> Option<ConnectionId> {
        let fitting: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| fits(link))
            .map(|(id, _)| *id)
            .collect();
        let at = self.dice.below(fitting.len().max(1));
        fitting.get(at).copied()
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Step {
        self.step += 1;
        self.now_ms += i64::try_from(self.dice.below(3)).unwrap_or(0);
        match self.dice.below(100) {
            0..=21 => self.deliver_up(),
            22..=33 => self.write_out(),
            34..=47 => self.deliver_down(),
            48..=57 => self.commit(),
            58..=66 => self.answer_reads(),
            67..=74 => self.report(),
            75..=78 => self.work(),
            79..=80 => self.pass_time(),
            81..=90 => self.device_acts(),
            91..=94 => self.stranger_acts(),
            95 => self.owner_acts(),
            96 => self.watch(),
            97 => self.notice_the_dead(),
            98 => self.trouble(),
            _ => self.power(),
        }
    }
}

/// The beginning of a document's id.
fn short(document: &DocumentId) -> String {
    document.to_string().chars().take(4).collect()
}
