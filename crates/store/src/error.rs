//! What can go wrong with a file, and whose turn it is then.

use std::path::PathBuf;

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
    /// The operating system said no.
    #[error("cannot be opened ({0})")]
    Io(#[from] std::io::Error),
    /// SQLite said no.
    #[error("cannot be opened ({0})")]
    Sqlite(#[from] rusqlite::Error),
    /// What is read is not what was written.
    #[error(
        "is damaged ({what}); restore it from a backup, or move it away to begin with an empty one"
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
    /// SQLite said no.
    #[error("the account database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// There was no randomness for an id.
    #[error("no randomness")]
    Random(#[from] getrandom::Error),
}
