//! What can go wrong with a file, and whose turn it is then.

use std::{io, path::PathBuf};

use rusqlite::{ErrorCode, ffi};

/// What the operator can clear away. Nothing was changed, and nothing is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The disk is full.
    #[error("there is no room on the disk; make some, and try again")]
    Full,
    /// The disk can only be read.
    #[error("the disk can only be read; see why, have it take writes, and try again")]
    ReadOnly,
    /// Somebody else has had the file locked for too long.
    #[error("another program has the database locked; see which, and try again")]
    Locked,
}

impl Obstacle {
    /// Which of these an error of the operating system is, if it is one.
    pub fn of_io(error: &io::Error) -> Option<Self> {
        use io::ErrorKind as Kind;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "there are many kinds, and these are the ones that are meant"
        )]
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Some(Self::Full),
            Kind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ => None,
        }
    }

    fn of_sqlite(error: &rusqlite::Error) -> Option<Self> {
        let error = error.sqlite_error()?;
        // the file beside a database through which its users see each other: to make it longer takes room, nothing else
        if error.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
            return Some(Self::Full);
        }
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "there are many codes, and these are the ones that are meant"
        )]
        match error.code {
            ErrorCode::DiskFull => Some(Self::Full),
            ErrorCode::ReadOnly => Some(Self::ReadOnly),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Self::Locked),
            _ => None,
        }
    }
}

impl From<io::Error> for OpenProblem {
    fn from(error: io::Error) -> Self {
        Obstacle::of_io(&error).map_or(Self::Io(error), Self::Obstacle)
    }
}

impl From<rusqlite::Error> for OpenProblem {
    fn from(error: rusqlite::Error) -> Self {
        Obstacle::of_sqlite(&error).map_or(Self::Sqlite(error), Self::Obstacle)
    }
}

impl From<rusqlite::Error> for AccountError {
    fn from(error: rusqlite::Error) -> Self {
        Obstacle::of_sqlite(&error).map_or(Self::Sqlite(error), Self::Obstacle)
    }
}

/// A file that cannot be used. The text says which, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub problem: OpenProblem,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenProblem {
    /// Something is in the way that can be cleared away.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// The operating system said no.
    #[error("cannot be opened ({0})")]
    Io(#[source] io::Error),
    /// SQLite said no.
    #[error("cannot be opened ({0})")]
    Sqlite(#[source] rusqlite::Error),
    /// What is read is not what was written.
    #[error(
        "is damaged ({what}); stop the server, move the file away together with the -wal and -shm beside it, put one \
         from a backup in its place if you have one, and start the server again"
    )]
    Damaged {
        /// Where.
        what: String,
    },
    /// Another program's database.
    #[error("is a database of another program (application id {application_id:#x}); move it away")]
    Foreign {
        /// The id that it bears.
        application_id: i64,
    },
    /// Written by a newer version of this program.
    #[error(
        "was written by a newer version (format {found}, this version knows {known}); update first"
    )]
    TooNew {
        /// The format that it is in.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
}

/// The account database could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Something is in the way that can be cleared away.
    #[error("the account database: {0}")]
    Obstacle(Obstacle),
    /// SQLite said no.
    #[error("the account database failed ({0})")]
    Sqlite(#[source] rusqlite::Error),
    /// There was no randomness for an id.
    #[error("no randomness")]
    Random(#[from] getrandom::Error),
}
