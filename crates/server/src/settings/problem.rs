//! What is wrong with the settings, for the one who wrote them.

use std::{error::Error, fmt, io, path::PathBuf};

use super::table;

/// Where a value comes from. A later one in the list yields to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Source {
    /// A flag on the command line.
    #[serde(rename = "flag")]
    Flag,
    /// The environment of the process.
    #[serde(rename = "environment")]
    Environment,
    /// The file `.env` in the working directory.
    #[serde(rename = ".env")]
    Dotenv,
    /// `config.toml`, or the file that `--config` names.
    #[serde(rename = "config.toml")]
    ConfigFile,
    /// Nobody has set it.
    #[serde(rename = "default")]
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::Dotenv => ".env",
            Self::ConfigFile => "config.toml",
            Self::Default => "default",
        })
    }
}

/// Everything that is wrong with the settings, one problem a line. The process ends with status 64.
#[derive(Debug)]
pub struct SettingsProblems(pub Vec<SettingsProblem>);

impl fmt::Display for SettingsProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for SettingsProblems {}

/// One thing that is wrong.
#[derive(Debug)]
pub struct SettingsProblem {
    /// The setting's name where it was written: a flag, the name of a variable, a path in the TOML file; or the file
    /// itself.
    pub key: String,
    /// Where it was written.
    pub source: Source,
    /// The line in the file, counted from 1.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a setting.
#[derive(Debug)]
pub enum Fault {
    /// The value is not allowed.
    Value {
        /// The value as it was written, or of what type it is; `None` if it may be the secret key.
        value: Option<String>,
        /// What is allowed.
        allowed: String,
    },
    /// There is no such setting. Its value is never shown: it may be the secret key under a misspelt name.
    Unknown {
        /// The setting that may be meant.
        nearest: Option<String>,
    },
    /// The file, or this line of it, is not in the file's format. The line is never shown.
    Malformed {
        /// What the format wants there.
        expected: String,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.key)?;
        self.source.fmt(f)?;
        match self.line {
            Some(line) => write!(f, ", line {line}): ")?,
            None => f.write_str("): ")?,
        }
        match &self.fault {
            Fault::Value {
                value: Some(value),
                allowed,
            } => write!(f, "{value} is not allowed; allowed: {allowed}"),
            Fault::Value {
                value: None,
                allowed,
            } => write!(f, "the value is not allowed; allowed: {allowed}"),
            Fault::Unknown {
                nearest: Some(nearest),
            } => write!(f, "there is no such setting; did you mean {nearest}?"),
            Fault::Unknown { nearest: None } => {
                write!(f, "there is no such setting; allowed: {}", known_keys())
            }
            Fault::Malformed { expected } => f.write_str(expected),
            Fault::Unreadable { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
        }
    }
}

impl Error for SettingsProblem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            Fault::Unreadable { error, .. } => Some(error),
            Fault::Value { .. } | Fault::Unknown { .. } | Fault::Malformed { .. } => None,
        }
    }
}

/// Longest value that is repeated whole, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A value in quotes, without control characters, and not too much of it.
pub(super) fn quoted(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", value.get(..end).unwrap_or_default()),
        None => format!("{value:?}"),
    }
}

fn known_keys() -> String {
    let mut keys: Vec<_> = table::fields().map(|field| field.key).collect();
    keys.dedup();
    keys.join(", ")
}

/// The setting that may be meant by a key of the TOML file that is none.
pub(super) fn nearest(written: &str) -> Option<String> {
    let written = written.to_lowercase().replace('-', "_");
    let last_of = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let is_same = |field: &&table::Field| {
        field
            .variable
            .is_some_and(|name| name.to_lowercase() == written)
            || last_of(field.key) == last_of(&written)
    };
    if let Some(field) = table::fields().find(is_same) {
        return Some(field.key.to_owned());
    }
    let sections = table::SECTIONS.iter().filter_map(|section| section.name);
    table::fields()
        .map(|field| field.key)
        .chain(sections)
        .map(|key| (strsim::osa_distance(&written, key), key))
        .filter(|(distance, key)| *distance <= 1 + key.len() / 4)
        .min()
        .map(|(_, key)| key.to_owned())
}
