//! Devices as people have them: they come and go, hold real Automerge documents, type while they are online and while
//! they are not, and come back behind the others.
//!
//! The devices of a household share its documents. A document is used for a few minutes and then left for a new one:
//! so as many are in use at any time, while ever more are stored.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ChangeHash, ObjType, ROOT, ReadDoc as _};
use tokio::time::{Instant as Deadline, interval, sleep, sleep_until, timeout};

use crate::client::{ANSWER_WAIT_MAX, Client};
use crate::held::Held;
use crate::history::{Noise, document_id};
use crate::wire::Incoming;

pub(crate) const HOUSEHOLDS: u64 = 12;
pub(crate) const DEVICES_EACH: u64 = 4;
pub(crate) const DOCUMENTS_EACH: u64 = 4;
/// How long a household uses its documents, before it begins new ones.
const USED_FOR: Duration = Duration::from_secs(300);
/// What a device does, it does this often while it is online.
const ACT_EVERY: Duration = Duration::from_secs(5);
/// What is pasted now and then, so that documents are worth compacting.
const PASTE_BYTES: usize = 4_000;
/// Numbers of documents that no two households, and no two of their times, have in common.
const TIMES_MAX: u64 = 1 << 20;

/// What all devices share.
pub(crate) struct World {
    url: String,
    started: Instant,
    is_over: AtomicBool,
    record: Mutex<Record>,
}

/// What has happened.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) visits: usize,
    /// Visits with something that was typed while the device was away.
    pub(crate) returns: usize,
    /// Visits to documents that nobody uses any more.
    pub(crate) recalls: usize,
    pub(crate) edits: usize,
    pub(crate) ephemeral_sent: usize,
    pub(crate) ephemeral_seen: usize,
    /// From an edit until the server had said that it holds all that the device holds.
    pub(crate) in_step: Vec<Duration>,
    pub(crate) failures: Vec<String>,
    /// For each document and device the heads that the server has acknowledged to it last.
    acknowledged: BTreeMap<(String, u64), Vec<ChangeHash>>,
}

impl World {
    pub(crate) fn new(url: &str) -> Arc<Self> {
        Arc::new(Self {
            url: url.to_owned(),
            started: Instant::now(),
            is_over: AtomicBool::new(false),
            record: Mutex::default(),
        })
    }

    /// Has all devices leave when they next look.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The documents that a household uses now. Households change theirs one after the other.
    fn in_use(&self, household: u64) -> Vec<String> {
        let shift = USED_FOR.as_secs() * household / HOUSEHOLDS;
        let time = (self.started.elapsed().as_secs() + shift) / USED_FOR.as_secs();
        let first = (household * TIMES_MAX + time) * DOCUMENTS_EACH;
        (first..first + DOCUMENTS_EACH).map(document_id).collect()
    }

    /// Pulls every document, and counts acknowledged heads that are not in it.
    pub(crate) async fn lost(&self) -> Result<usize> {
        let mut expected: BTreeMap<String, Vec<ChangeHash>> = BTreeMap::new();
        for ((id, _), heads) in &self.record().acknowledged {
            expected.entry(id.clone()).or_default().extend(heads);
        }
        let mut client = Client::join(&self.url, "checker").await?;
        let mut lost = 0;
        for (id, heads) in expected {
            let mut held = Held::default();
            held.pull(&mut client, &id).await?;
            lost += held.missing(&heads);
        }
        Ok(lost)
    }
}

/// A document of a household in a device's memory.
struct Shared {
    held: Held,
    /// When the first edit was made that the server has not acknowledged.
    edited: Option<Instant>,
}

impl Shared {
    fn begin(actor: &str) -> Result<Self> {
        let mut document = Automerge::new();
        // the same first change on every device, so that they can begin a document without asking each other
        document.set_actor(ActorId::from(b"begin".as_slice()));
        let mut change = document.transaction();
        change.put_object(ROOT, "text", ObjType::Text)?;
        change.commit();
        document.set_actor(ActorId::from(actor.as_bytes()));
        Ok(Self {
            held: Held::new(document),
            edited: None,
        })
    }
}

fn type_one(document: &mut Automerge) -> Result<()> {
    let (_, text) = document.get(ROOT, "text")?.context("no text")?;
    let at = document.length(&text);
    let mut change = document.transaction();
    change.splice_text(text, at, 0, "m")?;
    change.commit();
    Ok(())
}

fn paste(document: &mut Automerge, noise: &mut Noise) -> Result<()> {
    let place = format!("picture-{}", noise.below(4));
    let bytes: Vec<u8> = noise.by_ref().take(PASTE_BYTES).collect();
    let mut change = document.transaction();
    change.put(ROOT, place, bytes)?;
    change.commit();
    Ok(())
}

/// One device and what it holds.
pub(crate) struct Device {
    world: Arc<World>,
    household: u64,
    number: u64,
    noise: Noise,
    documents: BTreeMap<String, Shared>,
    said: u64,
}

impl Device {
    pub(crate) fn new(world: &Arc<World>, number: u64) -> Self {
        Self {
            world: Arc::clone(world),
            household: number / DEVICES_EACH,
            number,
            noise: Noise::new(number),
            documents: BTreeMap::new(),
            said: 0,
        }
    }

    /// Comes and goes until the world is over.
    pub(crate) async fn live(mut self) {
        while !self.world.is_over() {
            if let Err(error) = self.come_and_go().await {
                let failure = format!("device {}: {error:#}", self.number);
                self.world.record().failures.push(failure);
                // what has failed may fail again at once
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn come_and_go(&mut self) -> Result<()> {
        let away = Duration::from_secs(3 + self.noise.below(30));
        sleep(away).await;
        let typed_while_away = self.noise.below(3) == 0 && self.edit()?;
        self.turn_to_what_is_in_use()?;
        let name = format!("device-{}", self.number);
        let mut client = Client::join(&self.world.url, &name).await?;
        for (id, shared) in &mut self.documents {
            shared.held.reconnected();
            shared.held.tell(&mut client, id).await?;
        }
        self.stay(&mut client).await?;
        let finished = timeout(ANSWER_WAIT_MAX, self.until_in_step(&mut client)).await;
        finished.context("not in step in time")??;
        let mut record = self.world.record();
        record.visits += 1;
        record.returns += usize::from(typed_while_away);
        for (id, shared) in &self.documents {
            let heads = shared.held.document.get_heads();
            record.acknowledged.insert((id.clone(), self.number), heads);
        }
        Ok(())
    }

    fn turn_to_what_is_in_use(&mut self) -> Result<()> {
        let in_use = self.world.in_use(self.household);
        self.documents.retain(|id, _| in_use.contains(id));
        for id in in_use {
            if !self.documents.contains_key(&id) {
                let actor = format!("device-{}", self.number);
                self.documents.insert(id, Shared::begin(&actor)?);
            }
        }
        Ok(())
    }

    async fn stay(&mut self, client: &mut Client) -> Result<()> {
        let until = Deadline::now() + Duration::from_secs(15 + self.noise.below(60));
        let mut ticks = interval(ACT_EVERY);
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                _ = ticks.tick() => self.act(client).await?,
                message = client.next() => self.hear(client, message?).await?,
            }
            if self.world.is_over() {
                return Ok(());
            }
        }
    }

    async fn act(&mut self, client: &mut Client) -> Result<()> {
        if self.noise.below(5) == 0 {
            let id = self.choose().context("nothing to look at")?;
            self.said += 1;
            client
                .send(client.ephemeral_frame(&id, self.said, &[0x43, 1, 2, 3])?)
                .await?;
            self.world.record().ephemeral_sent += 1;
            return Ok(());
        }
        self.edit()?;
        for (id, shared) in &mut self.documents {
            if shared.edited.is_some() {
                shared.held.tell(client, id).await?;
            }
        }
        Ok(())
    }

    fn choose(&mut self) -> Option<String> {
        let at = self.noise.below(DOCUMENTS_EACH);
        self.documents
            .keys()
            .nth(usize::try_from(at).ok()?)
            .cloned()
    }

    /// Types into one of its documents, or pastes something; whether it has any.
    fn edit(&mut self) -> Result<bool> {
        let is_paste = self.noise.below(4) == 0;
        let Some(id) = self.choose() else {
            return Ok(false);
        };
        let shared = self.documents.get_mut(&id).context("it was chosen")?;
        if is_paste {
            paste(&mut shared.held.document, &mut self.noise)?;
        } else {
            type_one(&mut shared.held.document)?;
        }
        shared.edited.get_or_insert_with(Instant::now);
        self.world.record().edits += 1;
        Ok(true)
    }

    async fn hear(&mut self, client: &mut Client, message: Incoming) -> Result<()> {
        match message {
            Incoming::Sync { document, data } => {
                let Some(shared) = self.documents.get_mut(&document) else {
                    return Ok(());
                };
                shared.held.hear(&data)?;
                shared.held.tell(client, &document).await?;
                if shared.held.is_in_step()
                    && let Some(since) = shared.edited.take()
                {
                    self.world.record().in_step.push(since.elapsed());
                }
                Ok(())
            }
            Incoming::Ephemeral(_) => {
                self.world.record().ephemeral_seen += 1;
                Ok(())
            }
            Incoming::Unavailable(document) => bail!("document {document} is unavailable"),
            Incoming::Error(message) => bail!("the server's error: {message}"),
            Incoming::Peer(_) | Incoming::Other => Ok(()),
        }
    }

    async fn until_in_step(&mut self, client: &mut Client) -> Result<()> {
        while !self
            .documents
            .values()
            .all(|shared| shared.held.is_in_step())
        {
            let message = client.next().await?;
            self.hear(client, message).await?;
        }
        Ok(())
    }
}

/// Somebody who looks things up: a new device each time, which opens a document that was used at some time, finds all
/// in it that was acknowledged, adds a character, and leaves.
pub(crate) async fn recall(world: Arc<World>, every: Duration) {
    let mut noise = Noise::new(u64::MAX);
    let mut ticks = interval(every);
    while !world.is_over() {
        ticks.tick().await;
        if let Err(error) = recall_one(&world, &mut noise).await {
            let failure = format!("looking something up: {error:#}");
            world.record().failures.push(failure);
        }
    }
}

async fn recall_one(world: &World, noise: &mut Noise) -> Result<()> {
    let Some((id, heads)) = any_acknowledged(&world.record(), noise) else {
        return Ok(());
    };
    let number = world.record().recalls;
    let name = format!("recall-{number}");
    let mut client = Client::join(&world.url, &name).await?;
    let mut held = Held::default();
    held.pull(&mut client, &id).await?;
    let missing = held.missing(&heads);
    ensure!(missing == 0, "{missing} acknowledged heads are not in {id}");
    held.document.set_actor(ActorId::from(name.as_bytes()));
    type_one(&mut held.document)?;
    held.tell(&mut client, &id).await?;
    held.until_in_step(&mut client, &id).await?;
    let mut record = world.record();
    record.recalls += 1;
    record.edits += 1;
    Ok(())
}

fn any_acknowledged(record: &Record, noise: &mut Noise) -> Option<(String, Vec<ChangeHash>)> {
    let count = u64::try_from(record.acknowledged.len()).ok()?;
    let at = usize::try_from(noise.below(count.max(1))).ok()?;
    let ((id, _), heads) = record.acknowledged.iter().nth(at)?;
    Some((id.clone(), heads.clone()))
}
