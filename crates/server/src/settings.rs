//! The settings: what the owner may set, where from, and what is wrong with it.
//!
//! A value is taken from the first of these that has it:
//!
//! 1. a flag,
//! 2. a variable in the environment,
//! 3. one in the file `.env` in the working directory,
//! 4. `config.toml` in the working directory, or the file that `--config` names,
//! 5. the default in the [table](SECTIONS).
//!
//! A value that a stronger source overrides is not looked at, so that a flag is a way around an environment that
//! belongs to others. All problems of those that count are told at once, as [`SettingsProblems`]. Nothing here prints
//! the secret key, and nothing else in the server reads the environment.

mod config_file;
mod dotenv;
mod environment;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod identity;
mod problem;
mod reader;
mod table;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use atproto::Did;
use clap::builder::{OsStringValueParser, TypedValueParser};
use engine::{Announce, Compaction};

pub use self::{
    environment::Environment,
    identity::{
        AppPassword, AuthSettings, BareAudience, InvalidPassword, LegacyAuthenticate,
        PublishSettings, TestSettings, TrustedProxies,
    },
    problem::{Fault, SettingsProblem, SettingsProblems, Source},
    table::{Field, Kind, SECTIONS, Section, example},
};
use crate::{
    group::Group,
    origin::Origin,
    secret::{self, KeyFileError, SecretKey},
};
use reader::Reader;

/// The settings, all allowed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account that the server belongs to.
    pub owner: Option<Did>,
    /// The key that sync tokens are signed with, if it is set; see [`Settings::signing_key`].
    pub secret_key: Option<SecretKey>,
    /// The TCP port to listen on; 0 takes any free one.
    pub port: u16,
    /// The directory that everything is kept in; it need not exist.
    pub data_dir: PathBuf,
    /// The address to listen on.
    pub listen: IpAddr,
    /// Where apps reach the server: what `public_url` says, or else `domain`.
    pub public_url: Option<Origin>,
    /// The directory of accounts whose DID begins with `did:plc:`.
    pub plc_url: Origin,
    /// Whose word is taken for the address of a client.
    pub trusted_proxies: TrustedProxies,
    /// How much is logged.
    pub log: LogLevel,
    /// Who is let in, and how.
    pub auth: AuthSettings,
    /// What `publish` needs.
    pub publish: PublishSettings,
    /// When the changes of a document are made into a snapshot.
    pub compaction: Compaction,
    /// What the documents in use may take.
    pub memory: Memory,
    /// Limits of the worker process.
    pub worker: WorkerLimits,
    /// What stands in for the rest of the world, in tests.
    pub test: TestSettings,
    /// Which groups announce which documents; a group that is not named announces none.
    pub announce: BTreeMap<Group, Announce>,
    /// The TOML file that was read, if there is one.
    pub config_file: Option<PathBuf>,
    rows: Vec<Row>,
}

/// What the documents in use may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Most memory for the change graphs of one group, in bytes.
    pub graph_bytes_max: usize,
    /// How long a change graph stays in memory unused, in milliseconds.
    pub graph_idle_ms: u64,
}

/// Limits of the worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Most address space, in bytes.
    pub address_space_bytes: u64,
    /// How long one job may take, in seconds.
    pub job_seconds_max: u64,
    /// How long the process waits for the next job before it ends, in milliseconds.
    pub idle_ms: u64,
}

/// How much is logged; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What has failed.
    Error,
    /// What the owner should look at.
    Warn,
    /// What the server does as a whole.
    Info,
    /// What it does for each socket.
    Debug,
    /// Everything.
    Trace,
}

/// The flags of every command that reads the settings. They are taken as they are written; [`Settings::load`] finds
/// out whether they are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct SettingsFlags {
    /// `--owner`.
    #[arg(long, value_name = "DID", help = table::OWNER.help())]
    pub owner: Option<String>,
    /// `--port`.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, help = table::PORT.help())]
    pub port: Option<String>,
    /// `--data-dir`.
    #[arg(long, value_name = "DIRECTORY", value_parser = any_path(), help = table::DATA_DIR.help())]
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    #[arg(long, value_name = "ADDRESS", help = table::LISTEN.help())]
    pub listen: Option<String>,
    /// `--public-url`.
    #[arg(long, value_name = "URL", help = table::PUBLIC_URL.help())]
    pub public_url: Option<String>,
    /// `--plc-url`.
    #[arg(long, value_name = "URL", help = table::PLC_URL.help())]
    pub plc_url: Option<String>,
    /// `--log`.
    #[arg(long, value_name = "LEVEL", help = table::LOG.help())]
    pub log: Option<String>,
    /// `--config`.
    #[arg(long, value_name = "FILE", value_parser = any_path(), help = CONFIG_HELP)]
    pub config: Option<PathBuf>,
}

const CONFIG_HELP: &str = "The file to read settings from [default: config.toml, if it exists]";

/// Takes the empty path too, so that it is told with the other problems.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl SettingsFlags {
    fn value(&self, flag: &str) -> Option<OsString> {
        match flag {
            "--owner" => self.owner.as_ref().map(OsString::from),
            "--port" => self.port.as_ref().map(OsString::from),
            "--data-dir" => self.data_dir.as_ref().map(OsString::from),
            "--listen" => self.listen.as_ref().map(OsString::from),
            "--public-url" => self.public_url.as_ref().map(OsString::from),
            "--plc-url" => self.plc_url.as_ref().map(OsString::from),
            "--log" => self.log.as_ref().map(OsString::from),
            _ => None,
        }
    }
}

/// One setting, for `config show`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// Its path in the TOML file.
    pub key: String,
    /// Its value; of the secret key only whether it is `set` or `generated`.
    pub value: RowValue,
    /// Where the value comes from.
    pub source: Source,
}

/// A value, for `config show`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum RowValue {
    /// There is none.
    Unset,
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl fmt::Display for RowValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.pad("not set"),
            Self::Number(number) => f.pad(&number.to_string()),
            Self::Text(text) => f.pad(text),
        }
    }
}

impl Settings {
    /// The settings of this process, from its environment and its working directory.
    ///
    /// # Errors
    /// [`SettingsProblems`], all at once.
    pub fn of_process(flags: &SettingsFlags) -> Result<Self, SettingsProblems> {
        Self::load(flags, &Environment::of_process(), Path::new(""))
    }

    /// The settings of a process that is started with these flags and this environment in this directory. Relative
    /// paths begin there.
    ///
    /// # Errors
    /// [`SettingsProblems`], all at once.
    pub fn load(
        flags: &SettingsFlags,
        environment: &Environment,
        directory: &Path,
    ) -> Result<Self, SettingsProblems> {
        Self::of_sources(Reader::open(flags, environment, directory), directory)
    }

    fn of_sources(mut reader: Reader<'_>, directory: &Path) -> Result<Self, SettingsProblems> {
        match Self::read(&mut reader, directory) {
            Some(settings) if reader.problems.is_empty() => Ok(settings),
            _ => Err(SettingsProblems(reader.problems)),
        }
    }

    /// Asks for every setting before it gives up on any, so that no problem hides another.
    fn read(reader: &mut Reader<'_>, directory: &Path) -> Option<Self> {
        let owner = reader.text(&table::OWNER, |text| text.parse().ok());
        let generated = RowValue::Text("generated".to_owned());
        let secret_key = reader.secret(&table::SECRET_KEY, generated, SecretKey::parse);
        let port = reader.number(&table::PORT);
        let data_dir = reader.os_text(&table::DATA_DIR, |path| {
            is_path(path).then(|| directory.join(path))
        });
        let listen = reader.text(&table::LISTEN, |text| text.parse().ok());
        let public_url = identity::read_public_url(reader);
        let plc_url = reader.text(&table::PLC_URL, |text| text.parse().ok());
        let trusted_proxies = reader.text(&table::TRUSTED_PROXIES, |text| text.parse().ok());
        let log = reader.text(&table::LOG, |text| text.parse().ok());
        let auth = identity::read_auth(reader);
        let publish = identity::read_publish(reader);
        let compaction = read_compaction(reader);
        let memory = read_memory(reader);
        let worker = read_worker(reader);
        let test = identity::read_test(reader, public_url.as_ref(), listen);
        let announce = read_announce(reader);
        Some(Self {
            owner,
            secret_key,
            port: port?,
            data_dir: data_dir?,
            listen: listen?,
            public_url,
            plc_url: plc_url?,
            trusted_proxies: trusted_proxies.unwrap_or_default(),
            log: log?,
            auth: auth?,
            publish,
            compaction: compaction?,
            memory: memory?,
            worker: worker?,
            test,
            announce,
            config_file: reader.config_path.take(),
            rows: std::mem::take(&mut reader.rows),
        })
    }

    /// Every setting with its value and where that comes from, in the order of the table.
    pub fn describe(&self) -> &[Row] {
        &self.rows
    }

    /// The key that sync tokens are signed with: the one that is set, or else the one in the data directory, which
    /// is made if need be.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn signing_key(&self) -> Result<SecretKey, KeyFileError> {
        match &self.secret_key {
            Some(key) => Ok(key.clone()),
            None => secret::load_or_create(&self.data_dir),
        }
    }
}

fn is_path(text: &OsStr) -> bool {
    !text.is_empty() && !text.as_encoded_bytes().contains(&0)
}

fn read_compaction(reader: &mut Reader<'_>) -> Option<Compaction> {
    let floor_bytes = reader.number(&table::FLOOR_BYTES);
    let ratio_percent = reader.number(&table::RATIO_PERCENT);
    let quiet_ms = reader.number(&table::QUIET_MS);
    Some(Compaction {
        floor_bytes: floor_bytes?,
        ratio_percent: ratio_percent?,
        quiet_ms: quiet_ms?,
    })
}

fn read_memory(reader: &mut Reader<'_>) -> Option<Memory> {
    let graph_bytes_max = reader.number(&table::GRAPH_BYTES_MAX);
    let graph_idle_ms = reader.number(&table::GRAPH_IDLE_MS);
    Some(Memory {
        graph_bytes_max: graph_bytes_max?,
        graph_idle_ms: graph_idle_ms?,
    })
}

fn read_worker(reader: &mut Reader<'_>) -> Option<WorkerLimits> {
    let address_space_bytes = reader.number(&table::ADDRESS_SPACE_BYTES);
    let job_seconds_max = reader.number(&table::JOB_SECONDS_MAX);
    let idle_ms = reader.number(&table::IDLE_MS);
    Some(WorkerLimits {
        address_space_bytes: address_space_bytes?,
        job_seconds_max: job_seconds_max?,
        idle_ms: idle_ms?,
    })
}

fn read_announce(reader: &mut Reader<'_>) -> BTreeMap<Group, Announce> {
    let mut announce = BTreeMap::new();
    for table in reader.groups() {
        let group = match table.name.parse::<Group>() {
            Ok(group) => group,
            Err(invalid) => {
                reader.refuse_group(&table, invalid.to_string());
                continue;
            }
        };
        if announce.contains_key(&group) {
            reader.refuse_group(
                &table,
                format!("one table for each group; there are two for {group}"),
            );
        }
        let set = table.announce.and_then(|located| {
            reader.group_text(&table::ANNOUNCE, &table.name, located, announce_from_text)
        });
        announce.insert(group, set.unwrap_or(Announce::None));
    }
    announce
}

fn announce_from_text(text: &str) -> Option<Announce> {
    match text {
        "none" => Some(Announce::None),
        "all" => Some(Announce::All),
        _ => None,
    }
}

/// A text that is no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log level: expected error, warn, info, debug or trace")]
pub struct InvalidLogLevel;

impl FromStr for LogLevel {
    type Err = InvalidLogLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLogLevel> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(InvalidLogLevel),
        }
    }
}
