//! The command line.

mod allowance;
mod audit;
mod choose;
mod dev;
mod devices;
mod docs;
mod grants;
mod init;
mod lookup;
mod output;
mod outside;
mod panic;
mod publish;
mod roots;
mod sessions;
mod time;
mod token;

use std::{ffi::OsString, io::ErrorKind, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use store::AccountStore;

use crate::{
    http::TryIt,
    log::Log,
    run::{Server, open_accounts},
    settings::{self, Settings, SettingsFlags, SettingsProblems},
    worker,
};

/// Exit code: what was asked for has failed.
const FAILED: u8 = 1;
/// Exit code: what was asked for makes no sense, or the settings do not. Source: sysexits.h, EX_USAGE.
const USAGE: u8 = 64;

/// A personal sync server for local-first apps.
#[derive(Parser)]
#[command(name = "groundmist-sync", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(#[command(flatten)] SettingsFlags),
    /// Run a server for development: on this machine alone, with a token that everybody here may use
    Dev(dev::Dev),
    /// Find out who you are by your handle, and write config.toml
    Init(init::Init),
    /// Tell the owner's apps where the server is, in a record on the owner's PDS
    Publish(publish::Publish),
    /// Make, list and revoke sync tokens, also while the server runs
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
    /// Decide which devices get in, also while the server runs
    Devices {
        #[command(subcommand)]
        command: devices::Command,
    },
    /// Say what apps may do, on whichever device
    Grants {
        #[command(subcommand)]
        command: grants::Command,
    },
    /// List and revoke sessions
    Sessions {
        #[command(subcommand)]
        command: sessions::Command,
    },
    /// See and set the documents that apps start from
    Roots {
        #[command(subcommand)]
        command: roots::Command,
    },
    Audit(audit::Audit),
    Panic(panic::Panic),
    /// Look at documents, also while the server runs
    Docs {
        #[command(subcommand)]
        command: docs::Command,
    },
    /// Show the settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// What the server starts for work on whole documents
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        address_space_bytes: u64,
        #[arg(long)]
        job_seconds_max: u64,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every setting with its value and where that comes from
    Show {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: SettingsFlags,
    },
    /// A config.toml with every setting explained
    Example,
}

/// Where the data are, for commands that need no more.
#[derive(Args, Clone)]
struct DataFlags {
    /// Where the data are [default: .data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The settings file [default: config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DataFlags {
    fn settings(self) -> Result<Settings, SettingsProblems> {
        let Self { data_dir, config } = self;
        Settings::of_process(&SettingsFlags {
            data_dir,
            config,
            ..SettingsFlags::default()
        })
    }

    /// The account database there, which must exist. An empty one in the wrong place would tell the owner, even in a
    /// panic, that there is nothing to worry about.
    fn accounts(&self) -> Result<AccountStore> {
        let settings = self.clone().settings()?;
        let path = settings.data_dir.join("account.db");
        match std::fs::metadata(&path) {
            Ok(_) => open_accounts(&settings),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "there is no {}: start the server once, or say with --data-dir where its data are",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The flags once more, for a command that the owner is told to run next.
    fn again(&self) -> Vec<String> {
        let flag = |name: &str, path: &Option<PathBuf>| {
            let path = path.as_ref()?.to_string_lossy();
            Some(format!("{name} {}", output::shell_word(&path)))
        };
        let flags = [
            flag("--data-dir", &self.data_dir),
            flag("--config", &self.config),
        ];
        flags.into_iter().flatten().collect()
    }
}

/// A command that was asked for wrongly: exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Runs the command of this process.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr();
            let printed = error.print();
            return if asked_for {
                exit(output::printed(printed))
            } else {
                USAGE.into()
            };
        }
    };
    exit(run(cli.command))
}

/// How the process ends, whose owner is told why.
fn exit(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_last(format!("groundmist-sync: {}\n", told(&error)));
            let usage = error.is::<SettingsProblems>() || error.is::<UsageError>();
            if usage { USAGE.into() } else { FAILED.into() }
        }
    }
}

/// An error and its causes, each of them once: some repeat what lies below them.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
    }
    told
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(flags) => {
            let settings = Settings::of_process(&flags)?;
            let _log = Log::start(settings.log)?;
            crate::run::allow_many_files();
            crate::run::leave_no_core();
            block_on(async {
                Server::start(&settings, TryIt::Hidden)
                    .await?
                    .run_until_signal()
                    .await
            })
        }
        Command::Dev(dev) => dev.run(),
        Command::Init(init) => init.run(),
        Command::Publish(publish) => publish.run(),
        Command::Token { command } => command.run(),
        Command::Devices { command } => command.run(),
        Command::Grants { command } => command.run(),
        Command::Sessions { command } => command.run(),
        Command::Roots { command } => command.run(),
        Command::Audit(audit) => audit.run(),
        Command::Panic(panic) => panic.run(),
        Command::Docs { command } => command.run(),
        Command::Config { command } => command.run(),
        Command::Worker {
            address_space_bytes,
            job_seconds_max,
        } => Ok(worker::run_child(address_space_bytes, job_seconds_max)?),
    }
}

impl ConfigCommand {
    fn run(self) -> Result<()> {
        let Self::Show { json, flags } = self else {
            return output::print(&settings::example());
        };
        let settings = Settings::of_process(&flags)?;
        if json {
            output::say!("{}", serde_json::to_string_pretty(settings.describe())?)?;
            return Ok(());
        }
        for row in settings.describe() {
            output::say!("{:<28} {:<24} {}", row.key, row.value, row.source)?;
        }
        Ok(())
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Runs the server, or a command that asks others. What it has given up, such as a name that the system still looks for
/// or a file that somebody has locked, it does not wait for.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}
