//! Opening files so that what is written to them stays, and nobody else reads it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use engine::planted::{Bug, is_planted};
use rusqlite::{Connection, OpenFlags, config::DbConfig, hooks::Wal};
use rustix::fs::{Access, access};

use crate::error::OpenProblem;

/// How long a connection waits for another process that has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a log grows before it is put into its file, in pages of 4 KiB. From then on it is overwritten from its
/// beginning: a commit that does not make a file longer waits for the disk once, and not twice.
pub(crate) const CHECKPOINT_PAGES: u32 = if cfg!(feature = "simulator") { 64 } else { 500 };

/// Whose files they are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disk {
    /// The operating system's.
    System,
    /// Those of a SQLite VFS that was registered under this name. Nobody else has its files open.
    #[cfg(feature = "simulator")]
    Simulated(&'static str),
}

/// Makes a directory, and those above it, that only its owner may enter, and has the names of all that are new outlive a
/// power cut. One that exists is left as it is.
///
/// # Errors
/// What the operating system says.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    create_private_dir_with(path, sync_dir)
}

fn create_private_dir_with(
    path: &Path,
    mut sync_dir: impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let is_new = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let new = path.ancestors().take_while(is_new).count();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    sync_dir(path)?;
    // the last one also if it is not new: whoever made it may not have come so far
    path.ancestors()
        .take(new.max(1))
        .try_for_each(|dir| match sync_dir(folder_of(dir)) {
            // a folder that may be written and not read
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            outcome => outcome,
        })
}

/// Has the name of a file or directory outlive a power cut, as far as it is in the directory that holds it.
///
/// # Errors
/// What the operating system says.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    sync_dir(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes sure that the file exists, is private, and that its name is on disk.
pub(crate) fn create_private_file(disk: Disk, path: &Path) -> io::Result<()> {
    match disk {
        Disk::System => create_private_file_with(path, sync_dir),
        #[cfg(feature = "simulator")]
        Disk::Simulated(_) => Ok(()),
    }
}

fn create_private_file_with(
    path: &Path,
    sync_dir: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    // One that exists is left alone: to close it would end every lock that this process has on it, SQLite's too, and
    // whoever looks into it from outside would take it for a file that nobody has open. Source: POSIX, fcntl.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => file.sync_all()?,
        // SQLite would say of a read-only disk that it is unable to open the file
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            access(path, Access::WRITE_OK)?
        }
        Err(error) => return Err(error),
    }
    sync_dir(folder_of(path))
}

/// A connection that writes.
pub(crate) fn connect(disk: Disk, path: &Path, cache_kib: u32) -> Result<Connection, OpenProblem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match disk {
        Disk::System => Connection::open_with_flags(path, flags)?,
        #[cfg(feature = "simulator")]
        Disk::Simulated(vfs) => connect_simulated(path, flags, vfs)?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // every commit is fsynced: acknowledged means on disk
    let synchronous = if is_planted(Bug::SkipsTheFsync) {
        "off"
    } else {
        "full"
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // until it is measured
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", 32 << 20)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    keep_statements(&connection)?;
    Ok(connection)
}

/// How long the log of a file is, as far as the connection knows that writes to it.
#[derive(Default)]
pub(crate) struct Log {
    /// How long it was after the last commit, or nothing if it has been taken over since.
    pages: Arc<AtomicU32>,
}

impl Log {
    /// Has a connection say after each commit how many pages its log has. It then does not take the log over of itself
    /// any more: SQLite would do it within the commit, and tell nobody that it failed.
    pub(crate) fn measure(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.pages);
        connection.wal_hook(Some(move |_: &mut Wal, length| {
            pages.store(u32::try_from(length).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Whether it is long enough to be taken over.
    pub(crate) fn is_due(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES
    }

    /// Takes it over into the file. What somebody still reads stays in it until another time, and is no failure.
    pub(crate) fn take_over(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
            .query_row([], |_| Ok(()))?;
        self.pages.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// A connection that has its file to itself, and so needs no memory that it would share with others.
#[cfg(feature = "simulator")]
fn connect_simulated(
    path: &Path,
    flags: OpenFlags,
    vfs: &'static str,
) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags_and_vfs(path, flags, vfs)?;
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    Ok(connection)
}

/// A connection that only reads.
pub(crate) fn connect_readonly(path: &Path, cache_kib: u32) -> Result<Connection, OpenProblem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    keep_statements(&connection)?;
    Ok(connection)
}

fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(32);
    // otherwise many a statement is planned anew each time that it gets other values, which takes longer than to run it
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// 16 random bytes, as 32 hex digits.
pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// A random UUID, version 4, as text.
pub(crate) fn random_uuid() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    let number = u128::from_be_bytes(bytes);
    // RFC 9562, section 5.4: version 4, variant 10
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    Ok(parts
        .map(|range| hex.get(range).unwrap_or_default().to_owned())
        .join("-"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_uuid_says_its_version_and_variant() {
        let uuid = random_uuid().unwrap();
        let chars: Vec<char> = uuid.chars().collect();
        assert_eq!((chars.len(), chars[14]), (36, '4'), "{uuid}");
        assert!("89ab".contains(chars[19]), "{uuid}");
        assert_ne!(uuid, random_uuid().unwrap());
    }

    /// What is asked to be synced, in this order.
    fn synced(make: impl FnOnce(&mut dyn FnMut(&Path) -> io::Result<()>)) -> Vec<PathBuf> {
        let mut synced = vec![];
        make(&mut |dir| {
            assert!(dir.is_dir(), "{}", dir.display());
            synced.push(dir.to_owned());
            Ok(())
        });
        synced
    }

    #[test]
    fn the_names_of_all_directories_that_are_new_outlive_a_power_cut() {
        let folder = tempfile::tempdir().unwrap();
        let [outer, inner] = ["outer", "outer/inner"].map(|name| folder.path().join(name));
        let first = synced(|sync| create_private_dir_with(&inner, sync).unwrap());
        assert_eq!(first, [&inner, &outer, folder.path()]);
        let again = synced(|sync| create_private_dir_with(&inner, sync).unwrap());
        assert_eq!(again, [inner, outer]);
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_no_reason_not_to_make_a_directory_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inner");
        create_private_dir_with(&path, |dir| {
            if dir == path {
                Ok(())
            } else {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        })
        .unwrap();
        assert!(path.is_dir());
        let fails = create_private_dir_with(&path, |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(fails.is_err());
    }

    #[test]
    fn the_name_of_a_file_outlives_a_power_cut_whether_it_is_new_or_was_made_before_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for _ in 0..2 {
            let synced = synced(|sync| create_private_file_with(&path, sync).unwrap());
            assert_eq!(synced, [folder.path()]);
        }
    }

    #[test]
    fn what_has_no_directory_in_its_path_is_in_the_working_directory() {
        assert_eq!(folder_of(Path::new("data")), Path::new("."));
        assert_eq!(folder_of(Path::new("data/groups")), Path::new("data"));
    }
}
