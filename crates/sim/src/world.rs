//! What happens: one thing a step, chosen by the die.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use bytes::Bytes;
use engine::{
    Access, ConnectionId, DocumentId, Effect, Input, Refusal, WorkOutcome, storage::WriteAction,
};
use store::SessionAccess;

use crate::{
    book::Book,
    chunks,
    device::{Device, join},
    dice::Dice,
    disk::{Disk, Trouble},
    frames::{Received, describe},
    link::{CONGESTED_BYTES, Link, OUTBOX_BYTES_MAX, Packet, Who},
    owner::{Decision, Owner},
    plan::Plan,
    server::{Server, chunks as stored_chunks, open_group},
    stranger::Stranger,
    violation::{Checker, Step, Violation},
    work::work,
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
                    self.devices.push(Device::new(name, group, session));
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

    // --- the network -------------------------------------------------------------------------------------------

    pub(crate) fn deliver_up(&mut self) -> Step {
        let Some(id) = self.any_link(|link| link.is_served && !link.up.is_empty()) else {
            return Ok(());
        };
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let (group, access) = (link.group, link.access);
        let Some(packet) = link.up.pop_front() else {
            return Ok(());
        };
        self.counts.frames += 1;
        if let (Some(Access::Read), Some(document)) = (access, packet.document) {
            let brings = packet.brings.iter();
            link.unheard.extend(brings.map(|hash| (document, *hash)));
        }
        self.book.note_incoming(group, access, &packet);
        let length = packet.frame.len();
        self.note(format!("{id} -> a frame of {length} bytes"));
        let frame = packet.frame;
        self.input(
            group,
            Input::Frame {
                connection: id,
                frame,
            },
        )
    }

    /// The socket's task writes what it can.
    pub(crate) fn write_out(&mut self) -> Step {
        let Some(id) = self.any_link(|link| !link.outbox.is_empty()) else {
            return Ok(());
        };
        let frames = 1 + self.dice.below(4);
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let (group, drained) = (link.group, link.flush(frames) && link.is_served);
        if drained {
            self.note(format!("{id} has drained"));
            return self.input(group, Input::Drained { connection: id });
        }
        Ok(())
    }

    pub(crate) fn deliver_down(&mut self) -> Step {
        let Some(id) = self.any_link(|link| link.is_held && !link.down.is_empty()) else {
            return self.close_one();
        };
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let Some(frame) = link.take() else {
            return Ok(());
        };
        let says = match link.who {
            Who::Device(number) => match self.devices.get_mut(number) {
                Some(device) => device.receive(&frame)?,
                None => vec![],
            },
            Who::Stranger(number) => {
                let received = Received::parse(&frame);
                if let Some(stranger) = self.strangers.get_mut(number)
                    && received.kind == "sync"
                {
                    stranger.overhear(&received.data);
                }
                vec![]
            }
        };
        link.up.extend(says);
        self.note(format!("{id} takes a frame of {} bytes", frame.len()));
        Ok(())
    }

    /// Whoever was turned away finds out, once everything before that has been read.
    fn close_one(&mut self) -> Step {
        let over = |link: &Link| {
            link.is_held && !link.is_served && link.outbox.is_empty() && link.down.is_empty()
        };
        if let Some(id) = self.any_link(over) {
            self.hang_up(id);
        }
        Ok(())
    }

    /// The other end closes its connection, or loses it.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.cut();
        let (who, is_served) = (link.who, link.is_served);
        match who {
            Who::Device(number) => {
                if let Some(device) = self.devices.get_mut(number) {
                    device.disconnected();
                }
            }
            Who::Stranger(number) => {
                if let Some(stranger) = self.strangers.get_mut(number) {
                    stranger.link = None;
                }
            }
        }
        if !is_served {
            self.links.remove(&id);
        }
        self.note(format!("{id} is cut"));
    }

    /// The server finds out that a connection is dead.
    pub(crate) fn notice_the_dead(&mut self) -> Step {
        let Some(id) = self.any_link(|link| link.is_served && !link.is_held) else {
            return Ok(());
        };
        let Some(link) = self.links.remove(&id) else {
            return Ok(());
        };
        self.note(format!("{id} is found dead"));
        self.input(link.group, Input::Closed { connection: id })
    }

    // --- the engine and what it says ---------------------------------------------------------------------------

    pub(crate) fn input(&mut self, group: usize, input: Input) -> Step {
        let mut effects: VecDeque<Effect> = self.handle(group, input).into();
        while let Some(effect) = effects.pop_front() {
            let more = self.carry_out(group, effect)?;
            effects.extend(more);
        }
        self.check_bounds(group)
    }

    fn handle(&mut self, group: usize, input: Input) -> Vec<Effect> {
        let now_ms = self.now_ms;
        let group = self
            .server
            .as_mut()
            .and_then(|server| server.groups.get_mut(group));
        group.map_or(vec![], |group| group.handle(now_ms, input))
    }

    fn carry_out(&mut self, number: usize, effect: Effect) -> Result<Vec<Effect>, Violation> {
        match effect {
            Effect::Send { connection, frame } => return self.send(number, connection, frame),
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

    fn send(
        &mut self,
        group: usize,
        id: ConnectionId,
        frame: Bytes,
    ) -> Result<Vec<Effect>, Violation> {
        let received = Received::parse(&frame);
        let link = self.links.get(&id);
        let Some(link) = link.filter(|link| link.is_served && link.group == group) else {
            let what = format!("a {} frame for {id}, which is closed", received.kind);
            return Err(Violation::new(Checker::Private, what));
        };
        self.book.check_outgoing(group, link.access, &received)?;
        let event = if received.kind == "sync" {
            format!("{id} <- {}", describe(&received.sync_message()))
        } else {
            format!("{id} <- {}", received.kind)
        };
        self.note(event);
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(vec![]);
        };
        link.outbox_bytes += frame.len();
        link.outbox.push_back(frame);
        let bytes = link.outbox_bytes;
        if bytes > OUTBOX_BYTES_MAX {
            link.is_served = false;
            link.outbox.clear();
            link.outbox_bytes = 0;
            self.note(format!("{id} does not read; closed"));
            return Ok(self.handle(group, Input::Closed { connection: id }));
        }
        if bytes > CONGESTED_BYTES && !link.is_congested {
            link.is_congested = true;
            self.counts.congestions += 1;
            return Ok(self.handle(group, Input::Congested { connection: id }));
        }
        Ok(vec![])
    }

    fn close(&mut self, id: ConnectionId, refusal: Refusal) {
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

    // --- store and worker --------------------------------------------------------------------------------------

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
        group.answers.push_back(outcomes.clone());
        let stored = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .count();
        self.counts.commits += 1;
        self.counts.faults += (outcomes.len() - stored) as u64;
        self.note(format!("group {number} commits {stored} of {count} writes"));
        if stored > 0 && !disk.is_synced(&file) {
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

    fn stored(&mut self, number: usize, write: &engine::storage::Write) -> Step {
        self.book.note_stored(number, write)?;
        if matches!(write.action, WriteAction::Append { .. }) {
            return Ok(());
        }
        self.counts.snapshots += 1;
        let place = (number, write.document);
        let chunks = self.group(number).and_then(|group| group.chunks(place));
        match chunks {
            Some(chunks) => self.book.check_kept(place, &chunks),
            None => Ok(()),
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
            group.answers.push_back(answers);
            self.note(format!("group {number} has read {count}"));
        }
        Ok(())
    }

    /// The engine hears what the store has said.
    pub(crate) fn report(&mut self) -> Step {
        let number = self.any_group();
        let Some(answers) = self
            .group(number)
            .and_then(|group| group.answers.pop_front())
        else {
            return self.tick(number);
        };
        self.note(format!("group {number} hears {} answers", answers.len()));
        self.input(number, Input::Answered(answers))
    }

    pub(crate) fn work(&mut self) -> Step {
        let number = self.any_group();
        let dies = self.plan.worker_trouble && self.dice.one_in(40);
        let at = self.dice.below(4);
        let Some(group) = self.group(number).filter(|group| !group.jobs.is_empty()) else {
            return Ok(());
        };
        let (ticket, job) = group.jobs.swap_remove(at.min(group.jobs.len() - 1));
        let outcome = if dies {
            WorkOutcome::Indigestible {
                reason: "the worker died".into(),
            }
        } else {
            work(&job)
        };
        self.counts.jobs_lost += u64::from(dies);
        self.note(format!(
            "group {number}: the worker is done, or dead: {dies}"
        ));
        self.input(number, Input::Worked { ticket, outcome })
    }

    // --- time --------------------------------------------------------------------------------------------------

    fn pass_time(&mut self) -> Step {
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

    // --- people ------------------------------------------------------------------------------------------------

    fn device_acts(&mut self) -> Step {
        if self.devices.is_empty() {
            return Ok(());
        }
        let number = self.dice.below(self.devices.len());
        let document = self.any_document();
        let roll = self.dice.below(30);
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
            21 if self.plan.cuts && self.dice.one_in(2) => {
                if let Some(id) = link {
                    self.hang_up(id);
                }
                return Ok(());
            }
            22..=29 if link.is_none() => return self.connect(Who::Device(number)),
            _ => {}
        }
        if let (Some(packet), Some(id)) = (says, link) {
            self.push_up(id, packet);
        }
        self.note(format!("device {number} acts ({roll})"));
        Ok(())
    }

    fn push_up(&mut self, id: ConnectionId, packet: Packet) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.is_held) {
            link.up.push_back(packet);
        }
    }

    fn stranger_acts(&mut self) -> Step {
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
            stranger.change(self.step);
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

    fn owner_acts(&mut self) -> Step {
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

    fn any_access(&mut self) -> SessionAccess {
        if self.dice.one_in(3) {
            SessionAccess::Read
        } else {
            SessionAccess::Write
        }
    }

    /// Whoever had a session that was ended gets another one.
    fn admit_again(&mut self, number: usize) -> Step {
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

    // --- trouble -----------------------------------------------------------------------------------------------

    fn trouble(&mut self) -> Step {
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

    fn power(&mut self) -> Step {
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
                link.outbox.clear();
                link.outbox_bytes = 0;
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
        for place in self.book.places() {
            let chunks = server.groups.get(place.0).map(|group| group.chunks(place));
            if let Some(Some(chunks)) = chunks {
                self.book.reread(place, &chunks)?;
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

    fn check_after_power_cut(&mut self, disk: &Disk) -> Step {
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

    // --- what must be so at any time ---------------------------------------------------------------------------

    fn check_bounds(&mut self, number: usize) -> Step {
        let Some(group) = self.group(number) else {
            return Ok(());
        };
        let jobs = group.jobs.len();
        if jobs > engine::limits::JOBS_MAX {
            let what = format!("group {number} has {jobs} jobs");
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

    pub(crate) fn orphans(&mut self, place: crate::book::Place) -> Vec<engine::ChangeHash> {
        let read = engine::storage::Read {
            document: place.1,
            what: engine::storage::ReadWhat::Graph,
        };
        let answer = self.group(place.0).map(|group| group.store.read(&read));
        match answer {
            Some(Ok(engine::storage::Answer::Graph { orphans, .. })) => {
                orphans.into_iter().map(|orphan| orphan.hash).collect()
            }
            _ => vec![],
        }
    }
}

/// The beginning of a document's id.
fn short(document: &DocumentId) -> String {
    document.to_string().chars().take(4).collect()
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
                .and_then(|chunk| chunks::hashes(&chunk.bytes))
                .map_or(0, |hashes| hashes.len()),
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
