//! The simulated disk: a SQLite VFS whose files live in memory, and remember what has not been fsynced.
//!
//! A write is seen by whoever reads, and lost at a crash until the file is synced: any of the writes since then may
//! have reached the disk or not, in any order, whole or in sectors of 512 bytes. A name that was made or removed is
//! as uncertain. On demand the disk is full, or fails.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::Duration,
};

use sqlite_vfs::{DatabaseHandle, LockKind, OpenAccess, OpenOptions, Vfs, wip::WalIndex};

use crate::dice::Dice;

/// The name that the VFS is registered under.
pub(crate) const VFS: &str = "simulated";

/// What a power cut leaves whole.
const SECTOR_BYTES: usize = 512;

/// The disks that SQLite can reach, by the first part of a path.
static MOUNTED: Mutex<BTreeMap<String, Disk>> = Mutex::new(BTreeMap::new());

/// One disk. Cheap to clone; dropping the last handle outside SQLite needs [`Disk::unmount`] before.
#[derive(Clone)]
pub(crate) struct Disk {
    name: Arc<str>,
    state: Arc<Mutex<State>>,
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// No file grows.
    Full,
    /// One operation in so many fails.
    Flaky { one_in: usize },
    /// Nothing can be written or synced, but read.
    ReadOnly,
}

/// What a disk has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskCounts {
    pub(crate) syncs: u64,
    pub(crate) refused: u64,
    pub(crate) lost_writes: u64,
    pub(crate) torn_writes: u64,
}

struct State {
    files: BTreeMap<String, File>,
    /// What removed names held: the removal may not have reached the disk.
    removed: BTreeMap<String, Vec<u8>>,
    trouble: Trouble,
    /// Power is off: nothing is done any more.
    is_off: bool,
    dice: Dice,
    counts: DiskCounts,
    next_handle: u64,
}

#[derive(Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Op>,
    /// Its name is on disk.
    is_named: bool,
    locks: BTreeMap<u64, LockKind>,
}

enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Disk {
    /// An empty disk, mounted under a name that no other has.
    pub(crate) fn mount(name: String, seed: u64) -> Self {
        static REGISTER: Once = Once::new();
        REGISTER.call_once(|| {
            sqlite_vfs::register(VFS, Files, false).expect("SQLite takes one more VFS");
        });
        let disk = Self {
            name: name.into(),
            state: Arc::new(Mutex::new(State {
                files: BTreeMap::new(),
                removed: BTreeMap::new(),
                trouble: Trouble::None,
                is_off: false,
                dice: Dice(seed),
                counts: DiskCounts::default(),
                next_handle: 0,
            })),
        };
        mounted().insert(disk.name.to_string(), disk.clone());
        disk
    }

    /// The path of a file as SQLite has to name it.
    pub(crate) fn path(&self, file: &str) -> String {
        format!("/{}/{file}", self.name)
    }

    /// Takes it away from SQLite.
    pub(crate) fn unmount(&self) {
        mounted().remove(&*self.name);
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.state().trouble = trouble;
    }

    pub(crate) fn trouble(&self) -> Trouble {
        self.state().trouble
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        self.state().counts
    }

    /// Whether everything that was written to a file, or its log, would outlive a power cut.
    pub(crate) fn is_synced(&self, file: &str) -> bool {
        let state = self.state();
        let is_synced = |name: &str| {
            state
                .files
                .get(name)
                .is_none_or(|file| !file.unsynced.iter().any(Op::is_write))
        };
        is_synced(&format!("{file}-wal"))
    }

    /// The power goes. Whoever has files open must let go of them before [`Self::power_on`].
    pub(crate) fn power_off(&self) {
        self.state().is_off = true;
    }

    /// The power is back: what was synced is there, and what else the dice leave.
    pub(crate) fn power_on(&self) {
        let state = &mut *self.state();
        state.is_off = false;
        state.trouble = Trouble::None;
        let names: Vec<String> = state.files.keys().cloned().collect();
        for name in names {
            let Some(mut file) = state.files.remove(&name) else {
                continue;
            };
            if !file.is_named && state.dice.one_in(2) {
                if let Some(before) = state.removed.remove(&name) {
                    state.files.insert(name, File::on_disk(before));
                }
                continue;
            }
            let ops = std::mem::take(&mut file.unsynced);
            for op in ops {
                settle(&mut file.durable, op, &mut state.dice, &mut state.counts);
            }
            state.files.insert(name, File::on_disk(file.durable));
        }
        let removed = std::mem::take(&mut state.removed);
        for (name, bytes) in removed {
            if !state.files.contains_key(&name) && state.dice.one_in(2) {
                state.files.insert(name, File::on_disk(bytes));
            }
        }
    }

    /// Another disk as this one would be found after a power cut at this moment.
    pub(crate) fn after_power_cut(&self, name: String, seed: u64) -> Self {
        let copy = Self::mount(name, seed);
        {
            let (ours, mut theirs) = (self.state(), copy.state());
            theirs.files = ours
                .files
                .iter()
                .map(|(name, file)| (name.clone(), file.copy()))
                .collect();
            theirs.removed.clone_from(&ours.removed);
        }
        copy.power_on();
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mounted() -> MutexGuard<'static, BTreeMap<String, Disk>> {
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl File {
    fn on_disk(bytes: Vec<u8>) -> Self {
        Self {
            live: bytes.clone(),
            durable: bytes,
            is_named: true,
            ..Self::default()
        }
    }

    fn copy(&self) -> Self {
        let unsynced = self.unsynced.iter().map(Op::copy).collect();
        Self {
            live: vec![],
            durable: self.durable.clone(),
            unsynced,
            is_named: self.is_named,
            locks: BTreeMap::new(),
        }
    }

    fn write(&mut self, op: Op) {
        op.apply(&mut self.live);
        self.unsynced.push(op);
    }
}

impl Op {
    fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. })
    }

    fn copy(&self) -> Self {
        match self {
            Self::Write { offset, bytes } => Self::Write {
                offset: *offset,
                bytes: bytes.clone(),
            },
            Self::SetLen(length) => Self::SetLen(*length),
        }
    }

    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(to, *offset, bytes),
            Self::SetLen(length) => to.resize(*length, 0),
        }
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    if let Some(place) = to.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// What becomes of a write that nobody waited for.
fn settle(to: &mut Vec<u8>, op: Op, dice: &mut Dice, counts: &mut DiskCounts) {
    match (op, dice.below(4)) {
        (_, 0) => counts.lost_writes += 1,
        (Op::Write { offset, bytes }, 1) => {
            counts.torn_writes += 1;
            let mut at = offset;
            for sector in bytes.chunks(SECTOR_BYTES) {
                if dice.one_in(2) {
                    put(to, at, sector);
                }
                at += sector.len();
            }
        }
        (op, _) => op.apply(to),
    }
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Open,
    Read,
    Write { grows: bool },
    Sync,
    Remove,
}

impl State {
    /// Says no, if the disk is in such a state.
    fn permit(&mut self, act: Act) -> io::Result<()> {
        let refused = if self.is_off {
            Some(ErrorKind::Other)
        } else {
            self.refusal(act)
        };
        match refused {
            Some(kind) => {
                self.counts.refused += u64::from(!self.is_off);
                Err(kind.into())
            }
            None => Ok(()),
        }
    }

    fn refusal(&mut self, act: Act) -> Option<ErrorKind> {
        match (self.trouble, act) {
            // the VFS makes SQLITE_FULL of it
            (Trouble::Full, Act::Write { grows: true }) => Some(ErrorKind::WriteZero),
            (Trouble::ReadOnly, Act::Write { .. } | Act::Sync | Act::Remove) => {
                Some(ErrorKind::ReadOnlyFilesystem)
            }
            (Trouble::Flaky { one_in }, _) if self.dice.one_in(one_in) => Some(ErrorKind::Other),
            (Trouble::None | Trouble::Full | Trouble::ReadOnly | Trouble::Flaky { .. }, _) => None,
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files
            .get_mut(name)
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let permitted = self.permit(Act::Sync);
        let (dice, counts) = (&mut self.dice, &mut self.counts);
        let Some(file) = self.files.get_mut(name) else {
            return Err(ErrorKind::NotFound.into());
        };
        let ops = std::mem::take(&mut file.unsynced);
        if let Err(problem) = permitted {
            // once a sync has failed the kernel takes what was to be written for written
            if !self.is_off {
                ops.into_iter()
                    .for_each(|op| settle(&mut file.durable, op, dice, counts));
            } else {
                file.unsynced = ops;
            }
            return Err(problem);
        }
        ops.iter().for_each(|op| op.apply(&mut file.durable));
        self.counts.syncs += 1;
        if !file.is_named {
            // SQLite syncs the directory with the first sync of a file that it has made
            self.files
                .values_mut()
                .for_each(|file| file.is_named = true);
            self.removed.clear();
        }
        Ok(())
    }
}

/// The VFS: all disks that are mounted.
struct Files;

impl Files {
    fn find(path: &str) -> io::Result<(Disk, String)> {
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (disk, file) = (parts.next(), parts.next());
        let disk = disk.and_then(|disk| mounted().get(disk).cloned());
        disk.zip(file.map(Into::into))
            .ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Vfs for Files {
    type Handle = Handle;

    fn open(&self, path: &str, options: OpenOptions) -> io::Result<Handle> {
        let (disk, file) = Self::find(path)?;
        let mut state = disk.state();
        state.permit(Act::Open)?;
        let exists = state.files.contains_key(&file);
        match options.access {
            OpenAccess::Read | OpenAccess::Write if !exists => {
                return Err(ErrorKind::NotFound.into());
            }
            OpenAccess::CreateNew if exists => return Err(ErrorKind::AlreadyExists.into()),
            OpenAccess::Read | OpenAccess::Write | OpenAccess::Create | OpenAccess::CreateNew => {}
        }
        state.files.entry(file.clone()).or_default();
        state.next_handle += 1;
        let id = state.next_handle;
        drop(state);
        Ok(Handle { disk, file, id })
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        let (disk, file) = Self::find(path)?;
        let mut state = disk.state();
        state.permit(Act::Remove)?;
        let gone = state.files.remove(&file).ok_or(ErrorKind::NotFound)?;
        if gone.is_named {
            state.removed.insert(file, gone.durable);
        }
        Ok(())
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        let (disk, file) = Self::find(path)?;
        let mut state = disk.state();
        state.permit(Act::Open)?;
        Ok(state.files.contains_key(&file))
    }

    fn temporary_name(&self) -> String {
        // of no disk: nothing here may need one
        "/none/temporary".into()
    }

    fn random(&self, buffer: &mut [i8]) {
        buffer.fill(7);
    }

    fn sleep(&self, duration: Duration) -> Duration {
        duration
    }
}

/// An open file.
struct Handle {
    disk: Disk,
    file: String,
    id: u64,
}

impl DatabaseHandle for Handle {
    type WalIndex = NoWalIndex;

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.permit(Act::Read)?;
        Ok(state.file(&self.file)?.live.len() as u64)
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.permit(Act::Read)?;
        let live = &state.file(&self.file)?.live;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(live.len());
        let there = live.get(from..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        let (read, beyond) = buffer.split_at_mut(length);
        read.copy_from_slice(there.get(..length).unwrap_or_default());
        // SQLite wants zeros where the file has ended
        beyond.fill(0);
        if beyond.is_empty() {
            Ok(())
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let grows = state.file(&self.file)?.live.len() < offset + bytes.len();
        state.permit(Act::Write { grows })?;
        let bytes = bytes.to_vec();
        state.file(&self.file)?.write(Op::Write { offset, bytes });
        Ok(())
    }

    fn sync(&mut self, _data_only: bool) -> io::Result<()> {
        self.disk.state().sync(&self.file)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let length = usize::try_from(length).map_err(|_| ErrorKind::InvalidInput)?;
        let grows = state.file(&self.file)?.live.len() < length;
        state.permit(Act::Write { grows })?;
        state.file(&self.file)?.write(Op::SetLen(length));
        Ok(())
    }

    fn lock(&mut self, lock: LockKind) -> io::Result<bool> {
        let mut state = self.disk.state();
        let Ok(file) = state.file(&self.file) else {
            return Ok(true);
        };
        let others = file.locks.iter().filter(|(id, _)| **id != self.id);
        let strongest = others.map(|(_, lock)| *lock as u8).max().unwrap_or(0);
        let is_free = match lock {
            LockKind::None => true,
            LockKind::Shared => strongest < LockKind::Pending as u8,
            LockKind::Reserved | LockKind::Pending => strongest < LockKind::Reserved as u8,
            LockKind::Exclusive => strongest == LockKind::None as u8,
        };
        if is_free {
            file.locks.insert(self.id, lock);
        }
        Ok(is_free)
    }

    fn reserved(&mut self) -> io::Result<bool> {
        let mut state = self.disk.state();
        let file = state.file(&self.file)?;
        Ok(file
            .locks
            .values()
            .any(|lock| *lock as u8 >= LockKind::Reserved as u8))
    }

    fn current_lock(&self) -> io::Result<LockKind> {
        let mut state = self.disk.state();
        let lock = state.file(&self.file)?.locks.get(&self.id).copied();
        Ok(lock.unwrap_or(LockKind::None))
    }

    fn wal_index(&self, _readonly: bool) -> io::Result<NoWalIndex> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(file) = self.disk.state().files.get_mut(&self.file) {
            file.locks.remove(&self.id);
        }
    }
}

/// Who has a file to themselves need no memory that is shared with others.
struct NoWalIndex;

impl WalIndex for NoWalIndex {
    fn enabled() -> bool {
        false
    }

    fn map(&mut self, _region: u32) -> io::Result<[u8; 32768]> {
        Err(ErrorKind::Unsupported.into())
    }

    fn lock(
        &mut self,
        _locks: std::ops::Range<u8>,
        _lock: sqlite_vfs::wip::WalIndexLock,
    ) -> io::Result<bool> {
        Err(ErrorKind::Unsupported.into())
    }

    fn delete(self) -> io::Result<()> {
        Ok(())
    }
}
