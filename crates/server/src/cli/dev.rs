//! `groundmist-sync dev`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::Result;
use store::{SessionAccess, SessionKind};

use super::{UsageError, block_on, output::say};
use crate::{
    door::{Door, by_hand, now_ms},
    group::Group,
    http::TryIt,
    log::Log,
    run::{self, Server},
    settings::{Settings, SettingsFlags},
};

/// What the session is called whose token `dev` prints.
const SESSION_NAME: &str = "dev";
/// How long that token is good.
const TTL_S: u64 = 365 * 24 * 3_600;
/// A token that ends sooner than this is not printed again.
const TTL_MS_MIN: i64 = 30 * 24 * 3_600 * 1_000;

#[derive(clap::Args)]
pub(super) struct Dev {
    /// The port; 0 for any that is free [default: 3031]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Where the data are [default: .data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The group of the token
    #[arg(long, value_name = "GROUP", default_value = "dev.example.notes")]
    group: Group,
    /// The address, which must be of this machine alone
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// One line of JSON instead of words: {"url","token","group","tryUrl"}
    #[arg(long)]
    json: bool,
    /// error, warn, info, debug or trace [default: warn]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl Dev {
    pub(super) fn run(self) -> Result<()> {
        if !self.listen.is_loopback() {
            let problem = "its token is printed for everybody on this machine, so `dev` listens on loopback alone";
            let remedy = "use `groundmist-sync serve` to be reached from elsewhere";
            return Err(
                UsageError(format!("--listen {}: {problem}; {remedy}", self.listen)).into(),
            );
        }
        let settings = Settings::of_process(&SettingsFlags {
            port: self.port.clone(),
            data_dir: self.data_dir.clone(),
            listen: Some(self.listen.to_string()),
            log: Some(self.log.clone().unwrap_or_else(|| "warn".into())),
            ..SettingsFlags::default()
        })?;
        let _log = Log::start(settings.log)?;
        run::allow_many_files();
        run::leave_no_core();
        block_on(async {
            let server = Server::start(&settings, TryIt::Served).await?;
            let token = dev_token(&server.app.door, &self.group)?;
            self.print(&server, &token)?;
            server.run_until_signal().await
        })
    }

    fn print(&self, server: &Server, token: &str) -> Result<()> {
        let address = server.address;
        let url = format!("ws://{address}/?token={token}");
        // in the fragment, which browsers keep to themselves
        let try_url = format!("http://{address}/try/#token={token}");
        if self.json {
            let group = &self.group.to_string();
            let line = serde_json::json!({ "url": url, "token": token, "group": group, "tryUrl": try_url });
            return say!("{line}");
        }
        say!("\n  {}\n", crate::http::GREETING)?;
        say!("  Try it:      {try_url}\n")?;
        say!("  For an app:  {url}\n")?;
        say!(
            "  group {}, data in {}; Ctrl-C ends it",
            self.group,
            self.data_dir_text()
        )
    }

    fn data_dir_text(&self) -> String {
        self.data_dir
            .as_ref()
            .map_or(".data".into(), |dir| dir.display().to_string())
    }
}

/// The same token as the last time, so that an app under development keeps its address.
fn dev_token(door: &Door, group: &Group) -> Result<String> {
    let (accounts, keys) = (door.writer(), door.keys());
    let sessions = accounts.sessions()?;
    let known = sessions.iter().rev().find(|session| {
        session.name == SESSION_NAME
            && session.kind == SessionKind::Token
            && session.groups == [(group.to_string(), SessionAccess::Write)]
            && session.is_in_force(now_ms() + TTL_MS_MIN)
    });
    if let Some(token) = known.and_then(|session| by_hand::token_of(&keys, session)) {
        return Ok(token);
    }
    let access = SessionAccess::Write;
    let made = by_hand::open_session(&accounts, &keys, group, access, SESSION_NAME, TTL_S)?;
    Ok(made.token)
}
