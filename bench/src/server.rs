//! The server under test: a child process that prints its address and is ended with SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::device;
use crate::process::{self, Usage};

const ANY_PORT: u16 = 0;
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(120);
/// A server is at rest that has used no more than one tick of CPU time in this time.
const REST: Duration = Duration::from_millis(400);
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Which program is measured.
#[derive(Clone)]
pub(crate) enum Target {
    /// groundmist-sync itself, at this path.
    Groundmist(PathBuf),
    /// The stock server in `peers/node`, in this directory.
    Node(PathBuf),
    /// Nothing but a WebSocket that sends back what comes: this program as its own child.
    Echo,
}

impl Target {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Groundmist(_) => "groundmist-sync",
            Self::Node(_) => "node 2.5.6",
            Self::Echo => "bare",
        }
    }

    /// Looks for what the target needs, and installs the peer's packages if they are not there.
    pub(crate) async fn ready(&self) -> Result<()> {
        match self {
            Self::Groundmist(path) if !path.is_file() => {
                bail!(
                    "no server at {}: run `make build`, or name one with --server",
                    path.display()
                )
            }
            Self::Node(dir) if !dir.join("node_modules/.package-lock.json").is_file() => {
                install(dir).await
            }
            Self::Groundmist(_) | Self::Node(_) | Self::Echo => Ok(()),
        }
    }

    /// On this port, where a server was before, or on any.
    fn command(&self, data: &Path, port: u16) -> Result<Command> {
        let port = port.to_string();
        let mut command = match self {
            Self::Groundmist(path) => {
                let mut command = Command::new(path.canonicalize()?);
                // in there is no config.toml but that of the scenario
                command
                    .current_dir(data)
                    .args(["dev", "--json", "--port", &port, "--data-dir"])
                    .arg(data);
                command
            }
            Self::Node(dir) => {
                let mut command = Command::new("node");
                command
                    .arg(dir.join("server.mjs"))
                    .args(["--port", &port, "--data-dir"])
                    .arg(data);
                command
            }
            Self::Echo => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--echo-server");
                command
            }
        };
        // What a server says of dropped connections is no part of the table.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}

async fn install(dir: &Path) -> Result<()> {
    eprintln!("installing the node peer (npm install)");
    // not `npm ci`: it wants optional packages of every platform in the lock file, and some registries have not all
    let status = Command::new("npm")
        .args(["install", "--no-save"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .status()
        .await;
    ensure!(
        status.context("npm does not start")?.success(),
        "npm install failed in {}",
        dir.display()
    );
    Ok(())
}

/// Whom a server belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Owned {
    /// Nobody: only tokens that are made by hand open its door.
    No,
    /// [`device::OWNER`], who can approve devices.
    Yes,
}

impl Owned {
    fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::No => &[],
            Self::Yes => &[
                ("ATPROTO_DID", device::OWNER),
                // nothing here needs the owner's keys, and nothing is to be looked up on the network
                ("GROUNDMIST_SYNC_PLC_URL", "http://127.0.0.1:9"),
            ],
        }
    }
}

/// A running server with a data directory of its own.
pub(crate) struct Server {
    target: Target,
    owned: Owned,
    data: TempDir,
    child: Child,
    url: String,
}

impl Server {
    /// Starts with an empty data directory inside `scratch`.
    pub(crate) async fn start(target: &Target, scratch: &Path, owned: Owned) -> Result<Self> {
        std::fs::create_dir_all(scratch)?;
        let data = TempDir::with_prefix_in("data-", scratch)?;
        let (child, url) = spawn(target, data.path(), owned, ANY_PORT).await?;
        Ok(Self {
            target: target.clone(),
            owned,
            data,
            child,
            url,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let authority = self.url.strip_prefix("ws://").unwrap_or(&self.url);
        let authority = authority.split(['/', '?']).next().unwrap_or(authority);
        authority
            .parse()
            .with_context(|| format!("no address: {authority}"))
    }

    /// What proofs for `POST /authenticate` must name.
    pub(crate) fn authenticate_url(&self) -> Result<String> {
        Ok(format!(
            "http://localhost:{}/authenticate",
            self.address()?.port()
        ))
    }

    /// What a command of the owner on this server's data directory prints.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let Target::Groundmist(path) = &self.target else {
            bail!("{} has no command line", self.target.name());
        };
        let output = Command::new(path)
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data.path())
            .stdin(Stdio::null())
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "{} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Ends the server and starts it again on the same data; returns how long the start took.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.end().await?;
        self.start_again(ANY_PORT).await
    }

    /// The same with this `config.toml`, which stays.
    pub(crate) async fn restart_with(&mut self, config: &str) -> Result<Duration> {
        std::fs::write(self.data.path().join("config.toml"), config)?;
        self.restart().await
    }

    /// Kills the server, and starts it again where it was.
    pub(crate) async fn kill_and_restart(&mut self) -> Result<Duration> {
        let port = self.address()?.port();
        self.child.kill().await?;
        self.start_again(port).await
    }

    async fn start_again(&mut self, port: u16) -> Result<Duration> {
        let started = Instant::now();
        (self.child, self.url) = spawn(&self.target, self.data.path(), self.owned, port).await?;
        Ok(started.elapsed())
    }

    /// What `docs show` says of a document.
    pub(crate) async fn show(&self, id: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(
            &self.cli(&["docs", "show", id, "--json"]).await?,
        )?)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        process::usage(self.pid()?)
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the server has ended")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Waits until the server and its children are at rest, or [`SETTLE_MAX`] is over.
    pub(crate) async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut before = self.usage()?.cpu;
        while Instant::now() < deadline {
            tokio::time::sleep(REST).await;
            let now = self.usage()?.cpu;
            if now.saturating_sub(before) <= process::TICK {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Ends the server and removes its data.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.end().await?;
        Ok(self.data.close()?)
    }

    async fn end(&mut self) -> Result<()> {
        let pid = self.child.id().context("the server has ended by itself")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let ended = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        ended.context("the server does not end on SIGTERM")??;
        Ok(())
    }
}

async fn spawn(target: &Target, data: &Path, owned: Owned, port: u16) -> Result<(Child, String)> {
    let mut child = target
        .command(data, port)?
        .envs(owned.variables().iter().copied())
        .spawn()
        .with_context(|| format!("{} does not start", target.name()))?;
    let stdout = child.stdout.take().context("no stdout")?;
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    let read = tokio::time::timeout(START_MAX, stdout.read_line(&mut line)).await;
    let read = read.context("the server does not start in time")??;
    ensure!(
        read > 0,
        "{} ended before it printed its address",
        target.name()
    );
    let ready: serde_json::Value =
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
    let url = ready
        .get("url")
        .and_then(serde_json::Value::as_str)
        .context("no url in the server's first line")?;
    Ok((child, url.to_owned()))
}
