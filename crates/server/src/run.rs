//! A running server: from its settings to its end.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry, File, Metadata, TryLockError},
    io::ErrorKind,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::future::select_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store::{AccountError, AccountStore};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    door::{Door, JournalTime, Policy, Resolvers, SessionId},
    group::Group,
    http::{self, App, TryIt},
    origin::Origin,
    outbound::{ClientResolver, DidResolver, Loopback, Outbound},
    secret::SecretKey,
    settings::Settings,
    sync::{Hub, HubSettings},
    worker::WorkerSettings,
};

/// How often the server looks whether sessions have ended.
const SESSIONS_EVERY: Duration = Duration::from_millis(250);
/// How often what was counted is written into the audit log, if it is time.
const AUDIT_EVERY: Duration = Duration::from_millis(250);
/// After how many times of that it writes down which sessions were used: twice a minute.
const TURNS_PER_NOTE: u32 = 120;
/// After how many times of that it sees to the log of the account database: every second.
const TURNS_PER_TIDY: u32 = 4;
/// How often it tries the groups again that could not be opened.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How long a server that starts waits for the lock of one that was killed.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);
/// How often it tries.
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long the end may take, in all, whatever does not answer.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(4);
/// How much of it sockets and groups may take; the rest is for what was counted. What is acknowledged is stored before.
const GROUPS_TIME_MAX: Duration = Duration::from_secs(3);

/// How many connections the kernel keeps for us until they are accepted, if its own limit (`net.core.somaxconn`) allows
/// it. Tokio asks for 128, and whoever finds no room waits a second before TCP tries again: too few for a thousand
/// devices that come back together.
const BACKLOG: u32 = 4_096;

/// A server that runs.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its handlers share.
    pub app: Arc<App>,
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 4],
    // held until the end: there is one server to a data directory
    _lock: File,
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// What keeps it from starting, in words for its operator.
    pub async fn start(settings: &Settings, try_it: TryIt) -> Result<Self> {
        let data_dir = &settings.data_dir;
        store::create_private_dir(data_dir)
            .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
        let Some(lock) = lock(data_dir).await? else {
            bail!(
                "another server is using the data directory {}; stop it, or choose another with --data-dir",
                data_dir.display()
            );
        };
        let hub = Hub::start(hub_settings(settings)?)?;
        let wanted = SocketAddr::new(settings.listen, settings.port);
        let listener = listen(wanted).map_err(|error| {
            let told = format!("cannot listen on {wanted}{}", hint(error.kind()));
            anyhow::Error::from(error).context(told)
        })?;
        let address = listener.local_addr()?;
        let public_url = match (&settings.public_url, try_it) {
            // a browser takes localhost for as safe as TLS, and an address not
            (None, TryIt::Served) => Some(format!("http://localhost:{}", address.port()).parse()?),
            (set, _) => set.clone(),
        };
        let app = Arc::new(App {
            hub,
            door: Arc::new(open_door(settings, public_url)?),
            trusted_proxies: settings.trusted_proxies.clone(),
            try_it,
        });
        let (stop, stopped) = watch::channel(false);
        let tasks = [
            tokio::spawn(http::serve(listener, Arc::clone(&app), stopped.clone())),
            tokio::spawn(watch_sessions(Arc::clone(&app), stopped.clone())),
            tokio::spawn(write_down(Arc::clone(&app), stopped.clone())),
            tokio::spawn(try_groups_again(Arc::clone(&app), stopped)),
        ];
        info!(version = env!("CARGO_PKG_VERSION"), %address, data_dir = %data_dir.display(), "running");
        say_who_can_come(app.door.policy());
        Ok(Self {
            address,
            app,
            stop,
            tasks,
            _lock: lock,
        })
    }

    /// Serves until the process is told to end, and then ends.
    ///
    /// # Errors
    /// If the process cannot listen to signals, or one of its tasks has panicked: without the one that closes sockets,
    /// nothing that is taken back would be. Whatever supervises the process starts it again.
    pub async fn run_until_signal(mut self) -> Result<()> {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let is_whole = tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            _ = select_all(&mut self.tasks) => false,
        };
        self.stop().await;
        if !is_whole {
            bail!("a task of the server has ended, which is a bug of ours; start the server again");
        }
        Ok(())
    }

    /// Accepts nothing more, stores what came in, closes all sockets with 1001. A thread may be left that waits for a
    /// database which somebody has locked.
    pub async fn stop(self) {
        info!("shutting down");
        let ends_at = Instant::now() + SHUTDOWN_TIME_MAX;
        self.stop.send_replace(true);
        let end = async {
            self.app.hub.clone().shutdown().await;
            // one that has ended may have been waited for already
            for task in self.tasks.into_iter().filter(|task| !task.is_finished()) {
                task.await.ok();
            }
        };
        if timeout(GROUPS_TIME_MAX, end).await.is_err() {
            warn!("some connections or files did not end in time");
        }
        let write = async {
            write_journal(&self.app, JournalTime::Now).await;
            note_used(&self.app).await;
        };
        if timeout_at(ends_at, write).await.is_err() {
            warn!("the last lines of the audit log could not be written in time");
        }
    }
}

/// A server without an owner or an address lets in nobody but those with tokens made by hand: rather said than searched.
fn say_who_can_come(policy: &Policy) {
    let missing = match (&policy.owner, &policy.public_url) {
        (Some(owner), Some(public_url)) => {
            info!(%owner, %public_url, "apps can ask the owner for access");
            return;
        }
        (None, Some(_)) => "owner is",
        (Some(_), None) => "public_url is",
        (None, None) => "owner and public_url are",
    };
    warn!("{missing} not set: apps cannot ask for access, only tokens made by hand open sockets");
}

/// # Errors
/// Those of the operating system.
fn listen(wanted: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match wanted {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // a server that starts again right after its end finds the port still held by connections of the last one
    socket.set_reuseaddr(true)?;
    socket.bind(wanted)?;
    socket.listen(BACKLOG)
}

/// What may be done where nobody can listen.
fn hint(problem: ErrorKind) -> &'static str {
    if problem == ErrorKind::AddrInUse {
        "; is another server running there?"
    } else if problem == ErrorKind::AddrNotAvailable {
        ", which is no address of this machine; 0.0.0.0 or :: stands for all that it has"
    } else if problem == ErrorKind::PermissionDenied {
        "; the system keeps low ports for itself: choose one above 1023"
    } else {
        ""
    }
}

/// Has the data directory to itself for as long as the file is kept; nothing if another process has. It tries for a
/// while: a server that was killed while it started its worker process leaves its lock to that process, until it has
/// become a program of its own.
///
/// # Errors
/// If the file cannot be made or locked.
pub async fn lock(data_dir: &Path) -> Result<Option<File>> {
    let path = data_dir.join("server.lock");
    // not emptied: should others be able to write to the directory, it may be a link to something else
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let locked = timeout(LOCK_TIME_MAX, async {
        loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => sleep(LOCK_AGAIN_AFTER).await,
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    });
    match locked.await {
        Ok(locked) => {
            locked.with_context(|| format!("cannot lock {}", path.display()))?;
            Ok(Some(file))
        }
        Err(_) => Ok(None),
    }
}

/// The door of a data directory, which is made if it does not exist.
fn open_door(settings: &Settings, public_url: Option<Origin>) -> Result<Door> {
    let accounts = [open_accounts(settings)?, open_accounts(settings)?];
    if let Some(owner) = &settings.owner
        && let Some(other) = accounts[1].claim(owner.as_str())?
    {
        bail!(
            "the devices and grants in {} are {other}'s, and owner is {owner} now: set owner back, or take back all \
             that {other} has allowed, with `groundmist-sync panic`",
            settings.data_dir.display()
        );
    }
    let policy = Policy {
        owner: settings.owner.clone(),
        public_url,
        legacy_authenticate: settings.auth.legacy_authenticate,
        bare_audience: settings.auth.bare_audience,
    };
    let outbound = Arc::new(Outbound::new(settings.test.host_map.clone())?);
    let loopback = Loopback::of(policy.public_url.as_ref());
    let resolvers = Resolvers {
        dids: DidResolver::new(Arc::clone(&outbound), settings.plc_url.clone(), loopback),
        clients: ClientResolver::new(outbound),
    };
    Ok(Door::new(
        accounts,
        secret_key(settings)?,
        policy,
        resolvers,
    )?)
}

/// The account database of a data directory, which is made if it does not exist.
///
/// # Errors
/// If it cannot be used, or what it held is lost.
pub fn open_accounts(settings: &Settings) -> Result<AccountStore> {
    let data_dir = &settings.data_dir;
    store::create_private_dir(data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    let path = data_dir.join("account.db");
    if is_emptied(data_dir, &path) {
        bail!(
            "{} has no bytes, and there are other data of a server beside it: the devices and sessions that it held \
             are lost. Stop the server, and put the file back from a backup, or remove it to begin anew",
            path.display()
        );
    }
    Ok(AccountStore::open(&path)?)
}

/// Whether the account database has lost all that was in it. SQLite takes a file without bytes for a new database, and
/// the owner would be told that there are no devices. The first start may leave one where there is no room, but no key,
/// which is made after it, and no group. What cannot be looked at is said by whoever opens it.
fn is_emptied(data_dir: &Path, account_db: &Path) -> bool {
    let has_no_bytes = |file: Metadata| file.is_file() && file.len() == 0;
    if !fs::metadata(account_db).is_ok_and(has_no_bytes) {
        return false;
    }
    let groups = fs::read_dir(data_dir.join("groups"));
    let is_group = |entry: DirEntry| entry.path().extension().is_some_and(|end| end == "db");
    data_dir.join("secret.key").exists() || groups.into_iter().flatten().flatten().any(is_group)
}

/// The key that tokens are signed with; made if there is none.
///
/// # Errors
/// If it cannot be used.
pub fn secret_key(settings: &Settings) -> Result<SecretKey> {
    Ok(settings.signing_key()?)
}

/// Has this process open as many files as the system lets it: each socket is one, and the usual 1,024 are for programs
/// that know nothing of more.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(problem) = setrlimit(Resource::Nofile, raised) {
        warn!("cannot raise the limit of open files: {problem}");
    }
}

/// Has this process leave no core file: its memory holds the secret key, and what its devices write.
pub fn leave_no_core() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(problem) = setrlimit(Resource::Core, none) {
        warn!("cannot forbid core files: {problem}");
    }
}

/// How the settings limit the worker process, which is this binary.
///
/// # Errors
/// If the binary cannot be found.
pub fn worker_settings(settings: &Settings) -> Result<WorkerSettings> {
    Ok(WorkerSettings {
        program: this_binary()?,
        address_space_bytes: settings.worker.address_space_bytes,
        job_seconds_max: settings.worker.job_seconds_max,
        idle_ms: settings.worker.idle_ms,
    })
}

/// The path of the running binary; also right after it was replaced by a newer one.
fn this_binary() -> Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() {
        return Ok(PathBuf::from(format!("/proc/{}/exe", std::process::id())));
    }
    std::env::current_exe().context("cannot find this binary, which the worker process runs")
}

fn hub_settings(settings: &Settings) -> Result<HubSettings> {
    Ok(HubSettings {
        data_dir: settings.data_dir.clone(),
        // a new name for each run: what clients remember of a peer belongs to the storage id
        peer_id: format!("groundmist-sync-{}", SessionId::random()?),
        announce: settings.announce.clone(),
        compaction: settings.compaction,
        graph_bytes_max: settings.memory.graph_bytes_max,
        graph_idle_ms: settings.memory.graph_idle_ms,
        worker: worker_settings(settings)?,
    })
}

/// Closes the sockets of sessions that were revoked, by whichever process, or whose time is over. It waits for no disk:
/// that must not keep a socket open.
async fn watch_sessions(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut looks = interval(SESSIONS_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    for look in 1u32.. {
        tokio::select! {
            _ = looks.tick() => {}
            () = http::stopped(&mut stop) => return,
        }
        let counter = app.door.change_counter();
        let now = counter.as_ref().ok().copied();
        let newcomers = app.hub.take_newcomers();
        // besides what others change, time passes: every second is soon enough
        if now.is_some() && now == seen && !look.is_multiple_of(4) {
            // what cannot be looked at is said when all are
            pass_on_access(&app, newcomers).ok();
            continue;
        }
        seen = now;
        let in_use = app.hub.in_use();
        app.door
            .keep(in_use.iter().map(|(session, _)| session.clone()));
        let looked = counter.and(pass_on_access(&app, in_use));
        let before = app.door.reading.is(looked.is_ok());
        match looked {
            Err(problem) if before => error!("cannot look what sessions may do: {problem}"),
            Ok(()) if !before => info!("what sessions may do can be looked at again"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Closes the sockets of those of these sessions that have ended, and sees to it that the others may do in these groups
/// what they may now.
fn pass_on_access(app: &App, sessions: BTreeSet<(SessionId, Group)>) -> Result<(), AccountError> {
    let mut looked = Ok(());
    for (session, group) in sessions {
        match app.door.access(&session, &group) {
            Ok(access) => {
                app.hub.set_access(&session, &group, access);
                if access.is_none() {
                    info!(session.id = %session, %group, "a session has ended; its sockets are closed");
                }
            }
            Err(problem) => looked = Err(problem),
        }
    }
    looked
}

/// Writes down what was counted, each in its turn. A change that was begun when the server ends is made in its thread.
async fn write_down(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let write = async {
        let mut turns = interval(AUDIT_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 1u32.. {
            turns.tick().await;
            if turn.is_multiple_of(TURNS_PER_TIDY) {
                tidy(&app).await;
            }
            if app.door.must_note() || turn.is_multiple_of(TURNS_PER_NOTE) {
                note_used(&app).await;
            }
            write_journal(&app, JournalTime::IfDue).await;
        }
    };
    tokio::select! {
        () = write => {}
        () = http::stopped(&mut stop) => {}
    }
}

/// Tries the groups again that could not be opened, in a thread that may wait for the disk.
async fn try_groups_again(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut turns = interval(TRY_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = http::stopped(&mut stop) => return,
        }
        let app = Arc::clone(&app);
        let again = move || app.hub.try_again();
        tokio::task::spawn_blocking(again).await.ok();
    }
}

async fn write_journal(app: &App, when: JournalTime) {
    if let Err(problem) = app.door.write_journal(when).await {
        error!("cannot write the audit log: {problem}");
    }
}

async fn tidy(app: &App) {
    let tidied = app.door.tidy().await;
    let before = app.door.tidiness.is(tidied.is_ok());
    match tidied {
        Err(problem) if before => {
            error!("cannot put the account database's log into its file, so it grows: {problem}")
        }
        Ok(()) if !before => info!("the account database's log is put into its file again"),
        Ok(()) | Err(_) => {}
    }
}

async fn note_used(app: &App) {
    if let Err(problem) = app.door.note_used().await {
        error!("cannot note which sessions were used: {problem}");
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, time::Duration};

    use store::Occasion;
    use tempfile::TempDir;

    use super::*;
    use crate::settings::SettingsFlags;

    fn settings(folder: &TempDir) -> Settings {
        let settings = Settings::of_process(&SettingsFlags {
            config: Some("/dev/null".into()),
            data_dir: Some(folder.path().join("data")),
            port: Some("0".into()),
            ..SettingsFlags::default()
        });
        settings.unwrap()
    }

    #[tokio::test]
    async fn a_server_of_which_a_task_has_ended_ends_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder);
        for task in 0..4 {
            let server = Server::start(&settings, TryIt::Hidden).await.unwrap();
            // as by a panic
            server.tasks[task].abort();
            let ended = timeout(Duration::from_secs(20), server.run_until_signal()).await;
            assert!(ended.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn what_one_owner_has_allowed_is_not_good_for_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&folder);
        let start = async |settings: &Settings, owner: &str| {
            let mut settings = settings.clone();
            settings.owner = Some(owner.parse().unwrap());
            let server = Server::start(&settings, TryIt::Hidden).await?;
            server.stop().await;
            anyhow::Ok(())
        };
        let (first, second) = ("did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:example.com");
        for owner in [first, first] {
            start(&settings, owner).await.unwrap();
        }
        let refused = start(&settings, second).await.unwrap_err().to_string();
        assert!(
            refused.contains(first) && refused.contains("panic"),
            "{refused}"
        );
        // without an owner it serves those alone who have tokens that were made by hand
        settings.owner = None;
        Server::start(&settings, TryIt::Hidden)
            .await
            .unwrap()
            .stop()
            .await;
        let accounts = open_accounts(&settings).unwrap();
        let occasion = Occasion::at(1);
        accounts
            .revoke_everything(&"0".repeat(32), &occasion)
            .unwrap();
        start(&settings, second).await.unwrap();
        assert!(start(&settings, first).await.is_err());
    }

    #[tokio::test]
    async fn five_hundred_who_come_before_one_is_accepted_are_all_connected_without_a_second_try() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // TCP tries again after a second
        let before_a_second_try = Duration::from_millis(900);
        let waiting: Result<Vec<_>, _> = (0..500)
            .map(|_| TcpStream::connect_timeout(&address, before_a_second_try))
            .collect();
        assert_eq!(waiting.unwrap().len(), 500);
    }
}
