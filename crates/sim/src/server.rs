//! The machine: engines with their stores, the account database, and what is between them.

use std::{collections::VecDeque, path::Path};

use engine::{
    Effect, Engine, Input, Job, Ticket,
    storage::{Answer, Fault, Read, ReadWhat, StoredChunk, Write},
};
use store::{
    AccountStore, OpenError, OpenProblem,
    simulator::{SteppedStore, open_account},
};

use crate::{
    book::Place,
    disk::{Disk, VFS},
    plan::Plan,
    violation::{Checker, Violation},
};

/// What is answered together.
type Answers = Vec<(Ticket, Result<Answer, Fault>)>;

/// A group: its engine, its store, and what has been asked of it.
pub(crate) struct Group {
    pub(crate) engine: Engine,
    pub(crate) store: SteppedStore,
    pub(crate) file: String,
    pub(crate) writes: VecDeque<(Ticket, Write)>,
    pub(crate) reads: VecDeque<(Ticket, Read)>,
    /// What the store has said, and the engine not heard yet. The thread that writes and the one that reads each have
    /// their own pace: what is committed may be read before it is said to be stored.
    pub(crate) committed: VecDeque<Answers>,
    pub(crate) read: VecDeque<Answers>,
    pub(crate) jobs: Vec<(Ticket, Job)>,
}

pub(crate) struct Server {
    pub(crate) groups: Vec<Group>,
    pub(crate) account: AccountStore,
}

impl Server {
    /// Starts it on what the disk holds.
    ///
    /// # Errors
    /// A violation if the disk could be read, and the files all the same not; nothing if the disk says no.
    pub(crate) fn start(plan: &Plan, disk: &Disk) -> Result<Option<Self>, Violation> {
        let account = disk.path("account.db");
        let Some(account) = sound(open_account(VFS, Path::new(&account)))? else {
            return Ok(None);
        };
        let mut groups = vec![];
        for number in 0..plan.groups {
            let Some(store) = open_group(disk, number)? else {
                return Ok(None);
            };
            groups.push(Group {
                engine: Engine::new(plan.engine_settings()),
                store,
                file: file_of(number),
                writes: VecDeque::new(),
                reads: VecDeque::new(),
                committed: VecDeque::new(),
                read: VecDeque::new(),
                jobs: vec![],
            });
        }
        Ok(Some(Self { groups, account }))
    }
}

pub(crate) fn file_of(group: usize) -> String {
    format!("group-{group}.db")
}

/// Opens the store of a group.
pub(crate) fn open_group(disk: &Disk, group: usize) -> Result<Option<SteppedStore>, Violation> {
    let path = disk.path(&file_of(group));
    sound(SteppedStore::open(VFS, Path::new(&path)))
}

/// A disk may say no; that a file is damaged is for no disk to bring about.
fn sound<T>(opened: Result<T, OpenError>) -> Result<Option<T>, Violation> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(OpenError {
            problem: OpenProblem::Io(_) | OpenProblem::Sqlite(_),
            ..
        }) => Ok(None),
        Err(error) => Err(Violation::new(Checker::Sound, error.to_string())),
    }
}

impl Group {
    pub(crate) fn handle(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let mut effects = vec![];
        let now_ms = u64::try_from(now_ms).unwrap_or_default();
        self.engine.handle(now_ms, input, &mut effects);
        effects
    }

    /// Everything that is stored of a document; nothing if the disk says no.
    pub(crate) fn chunks(&self, (_, document): Place) -> Option<Vec<StoredChunk>> {
        chunks(&self.store, document)
    }
}

/// Everything that is stored of a document; nothing if the disk says no.
pub(crate) fn chunks(
    store: &SteppedStore,
    document: engine::DocumentId,
) -> Option<Vec<StoredChunk>> {
    let what = ReadWhat::Chunks {
        from: 0,
        until: u64::MAX,
    };
    match store.read(&Read { document, what }) {
        Ok(Answer::Chunks { chunks, .. }) => Some(chunks),
        Ok(Answer::Stored | Answer::Meta(_) | Answer::Graph { .. } | Answer::Documents(_))
        | Err(_) => None,
    }
}
