//! The scenarios by name, and what they share. Each starts a server of its own with an empty data directory.

use std::path::PathBuf;

use anyhow::Result;

use crate::figures::Figures;
use crate::server::{Owned, Server, Target};

mod authenticate;
mod bare_fanout;
mod big;
mod busy;
pub(crate) mod ceilings;
mod crowded;
mod ephemeral;
mod fanout;
mod flood;
mod herd;
mod idle;
mod many;
mod million;
mod pull;
mod push;
mod slow;
mod soak;

/// How much work a scenario does.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// What the table in the README was made with.
    Full,
    /// A tenth of it.
    Quick,
}

impl Scale {
    pub(crate) fn of(self, full: u32) -> u32 {
        match self {
            Self::Full => full,
            Self::Quick => (full / 10).max(1),
        }
    }
}

/// Where and how much to measure.
pub(crate) struct Bench {
    pub(crate) target: Target,
    pub(crate) scale: Scale,
    /// How long `soak` takes.
    pub(crate) minutes: u32,
    /// Data directories and the documents that are worth keeping between runs. Beside the build, so that it lies on a
    /// disk: a temporary directory may be memory, where an fsync costs nothing.
    pub(crate) scratch: PathBuf,
}

impl Bench {
    /// A server that has come to rest after its start, so that no scenario pays for that.
    async fn server(&self) -> Result<Server> {
        self.start(Owned::No).await
    }

    /// The same with an owner, who can approve devices.
    async fn owned_server(&self) -> Result<Server> {
        self.start(Owned::Yes).await
    }

    async fn start(&self, owned: Owned) -> Result<Server> {
        let server = Server::start(&self.target, &self.scratch, owned).await?;
        server.settle().await?;
        Ok(server)
    }
}

/// What a scenario measures.
pub(crate) enum Measures {
    /// Any server.
    Servers,
    /// What only groundmist-sync has.
    Ours,
    /// The machine.
    Machine,
}

/// In the order in which they run.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Scenario {
    Push,
    Many,
    PullWarm,
    PullCold,
    #[value(name = "fanout-10hz")]
    Fanout10,
    #[value(name = "fanout-40hz")]
    Fanout40,
    FanoutClosed,
    Ephemeral,
    #[value(name = "bigdoc100k")]
    Big,
    Million,
    #[value(name = "docs100k")]
    Crowded,
    #[value(name = "slowpeer-4")]
    Slow4,
    #[value(name = "slowpeer-20")]
    Slow20,
    #[value(name = "idle1k")]
    Idle1k,
    #[value(name = "idle5k")]
    Idle5k,
    Busy,
    Authenticate,
    Flood,
    Herd,
    Soak,
    Echo,
    BareFanout,
    Fsync,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Many => "many",
            Self::PullWarm => "pull-warm",
            Self::PullCold => "pull-cold",
            Self::Fanout10 => "fanout-10hz",
            Self::Fanout40 => "fanout-40hz",
            Self::FanoutClosed => "fanout-closed",
            Self::Ephemeral => "ephemeral",
            Self::Big => "bigdoc100k",
            Self::Million => "million",
            Self::Crowded => "docs100k",
            Self::Slow4 => "slowpeer-4",
            Self::Slow20 => "slowpeer-20",
            Self::Idle1k => "idle1k",
            Self::Idle5k => "idle5k",
            Self::Busy => "busy",
            Self::Authenticate => "authenticate",
            Self::Flood => "flood",
            Self::Herd => "herd",
            Self::Soak => "soak",
            Self::Echo => "echo",
            Self::BareFanout => "bare-fanout",
            Self::Fsync => "fsync",
        }
    }

    pub(crate) fn summary(self) -> &'static str {
        match self {
            Self::Push => "500 documents of 100 changes uploaded, 32 at a time, until acknowledged",
            Self::Many => {
                "20,000 documents of one change over 2 connections; 100 of them pulled after a restart"
            }
            Self::PullWarm => "500 documents of 100 changes downloaded, 32 at a time",
            Self::PullCold => "the same right after a restart",
            Self::Fanout10 => "one writer, 10 edits a second, 50 readers",
            Self::Fanout40 => "one writer, 40 edits a second, 50 readers",
            Self::FanoutClosed => "one writer, 50 readers, the next edit once all have the last",
            Self::Ephemeral => "100 ephemeral messages a second to 50 readers",
            Self::Big => {
                "a document of 100,000 changes: push, pull, live edits, pull after a restart"
            }
            Self::Million => {
                "a document of a million changes: push, index, pull, live edits, a stale device, compaction"
            }
            Self::Crowded => {
                "100,000 documents in one group: restart, pull, announcements from either side"
            }
            Self::Slow4 => "500 edits of 100 kB while 4 readers do not read",
            Self::Slow20 => "the same with 20 readers, and bounds",
            Self::Idle1k => "the memory of 1,000 connections that do nothing",
            Self::Idle5k => "the memory of 5,000 connections that do nothing",
            Self::Busy => "1,000 connections that each edit once a second, beside 5,000 idle ones",
            Self::Authenticate => "logins of an approved device over 16 connections",
            Self::Flood => {
                "40 edits a second to 50 readers, with and without 2,000 bad requests a second"
            }
            Self::Herd => "1,000 approved devices come back at once after kill -9",
            Self::Soak => "an hour (--minutes) of ordinary life, and whether memory grows",
            Self::Echo => "ceiling: a WebSocket that sends back what comes",
            Self::BareFanout => "ceiling: the same bytes to 50 sockets, and their answers",
            Self::Fsync => "ceiling: append 4 kB and fdatasync, again and again",
        }
    }

    /// Whether it takes so long that it runs only when it is asked for.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Soak)
    }

    pub(crate) fn measures(self) -> Measures {
        match self {
            Self::Echo | Self::BareFanout | Self::Fsync => Measures::Machine,
            Self::Million
            | Self::Crowded
            | Self::Slow20
            | Self::Busy
            | Self::Authenticate
            | Self::Flood
            | Self::Herd
            | Self::Soak => Measures::Ours,
            Self::Push
            | Self::Many
            | Self::PullWarm
            | Self::PullCold
            | Self::Fanout10
            | Self::Fanout40
            | Self::FanoutClosed
            | Self::Ephemeral
            | Self::Big
            | Self::Slow4
            | Self::Idle1k
            | Self::Idle5k => Measures::Servers,
        }
    }

    pub(crate) async fn run(self, bench: &Bench) -> Result<Figures> {
        match self {
            Self::Push => push::run(bench).await,
            Self::Many => many::run(bench).await,
            Self::PullWarm => pull::run(bench, pull::Start::Warm).await,
            Self::PullCold => pull::run(bench, pull::Start::Cold).await,
            Self::Fanout10 => fanout::paced(bench, 10).await,
            Self::Fanout40 => fanout::paced(bench, 40).await,
            Self::FanoutClosed => fanout::closed(bench).await,
            Self::Ephemeral => ephemeral::run(bench).await,
            Self::Big => big::run(bench).await,
            Self::Million => million::run(bench).await,
            Self::Crowded => crowded::run(bench).await,
            Self::Slow4 => slow::run(bench, 4).await,
            Self::Slow20 => slow::bounded(bench, 20).await,
            Self::Idle1k => idle::run(bench, 1_000).await,
            Self::Idle5k => idle::run(bench, 5_000).await,
            Self::Busy => busy::run(bench).await,
            Self::Authenticate => authenticate::run(bench).await,
            Self::Flood => flood::run(bench).await,
            Self::Herd => herd::run(bench).await,
            Self::Soak => soak::run(bench).await,
            Self::Echo => ceilings::echo(bench).await,
            Self::BareFanout => bare_fanout::run(bench).await,
            Self::Fsync => ceilings::fsync(bench),
        }
    }
}
