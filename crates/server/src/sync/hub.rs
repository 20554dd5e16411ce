//! All groups of the server, and which sockets a session has.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use engine::{Access, Announce, Compaction, ConnectionId, Engine, Input, Settings};
use store::{GroupSettings, GroupStore, OpenError};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, error};

use super::{
    group::{self, Mailbox},
    outbox, socket,
};
use crate::{
    group::Group,
    session::SessionId,
    worker::{Worker, WorkerSettings},
};

/// What the owner has set.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The groups' files lie in its folder `groups`.
    pub data_dir: PathBuf,
    /// Our peer id towards clients.
    pub peer_id: String,
    /// Which groups announce all their documents; those that are not named announce none.
    pub announce: BTreeMap<Group, Announce>,
    /// When tails are made into snapshots.
    pub compaction: Compaction,
    /// Most memory for one group's change graphs, in bytes.
    pub graph_bytes_max: usize,
    /// How long a graph stays in memory without being used, in milliseconds.
    pub graph_idle_ms: u64,
    /// Limits of the worker process.
    pub worker: WorkerSettings,
}

/// The groups and their sockets. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    settings: HubSettings,
    worker: Worker,
    groups: Mutex<BTreeMap<Group, Opened>>,
    sockets: Mutex<BTreeMap<SessionId, BTreeMap<ConnectionId, Mailbox>>>,
    next_connection: AtomicU64,
}

/// A group that somebody has asked for.
enum Opened {
    Running {
        mailbox: Mailbox,
        health: store::HealthReader,
    },
    /// Its file cannot be used; said in the log when it was found out.
    Damaged,
}

/// Whom a socket was opened for.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The session; when it ends, so does the socket.
    pub session: SessionId,
    /// Its group.
    pub group: Group,
    /// What it may do.
    pub access: Access,
}

/// How the storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Everything is stored that is to be.
    Good,
    /// No room on the disk: writes are refused, reads go on.
    Full,
    /// The storage has failed, or a group's file is damaged.
    Failed,
}

/// Why a server cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The folder of the groups cannot be made or read.
    #[error("cannot use the data directory {}", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Hub {
    /// Looks at the groups that exist. A damaged one is said in the log and left out; the others run.
    ///
    /// # Errors
    /// [`HubError`] if there is no folder for them.
    pub fn start(settings: HubSettings) -> Result<Self, HubError> {
        let folder = settings.data_dir.join("groups");
        let failed = |source| HubError::DataDir {
            path: folder.clone(),
            source,
        };
        store::create_private_dir(&folder).map_err(failed)?;
        let worker = Worker::start(settings.worker.clone());
        let hub = Self {
            inner: Arc::new(Inner {
                settings,
                worker,
                groups: Mutex::default(),
                sockets: Mutex::default(),
                next_connection: AtomicU64::new(1),
            }),
        };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".db"));
            if let Some(group) = name.and_then(|name| name.parse::<Group>().ok()) {
                hub.mailbox(&group);
            }
        }
        Ok(hub)
    }

    /// Runs a WebSocket of a session until it ends; its handshake is done.
    pub async fn serve<S>(&self, stream: S, admitted: Admitted)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(mailbox) = self.mailbox(&admitted.group) else {
            return;
        };
        let connection = ConnectionId(self.inner.next_connection.fetch_add(1, Ordering::Relaxed));
        self.sockets()
            .entry(admitted.session.clone())
            .or_default()
            .insert(connection, mailbox.clone());
        let (outbox, reader) = outbox::outbox();
        mailbox.open(connection, admitted.access, outbox).await;
        debug!(group = %admitted.group, conn.id = connection.0, "a socket is open");
        let end = socket::run(stream, connection, &mailbox, reader).await;
        debug!(group = %admitted.group, conn.id = connection.0, ?end, "a socket is closed");
        mailbox.input(Input::Closed { connection }).await;
        self.forget(&admitted.session, connection);
    }

    /// Closes all sockets of a session, at once.
    pub async fn close_session(&self, session: &SessionId) {
        let sockets = self.sockets().get(session).cloned().unwrap_or_default();
        for (connection, mailbox) in sockets {
            mailbox
                .input(Input::AccessChanged {
                    connection,
                    access: None,
                })
                .await;
        }
    }

    /// The sessions that have sockets open.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sockets().keys().cloned().collect()
    }

    /// Whether a group can be used; opens it if it is not open.
    pub fn has_group(&self, group: &Group) -> bool {
        self.mailbox(group).is_some()
    }

    /// The worst of all groups.
    pub fn health(&self) -> Health {
        let groups = self.groups();
        let healths = groups.values().map(|opened| match opened {
            Opened::Running { health, .. } => match health.get() {
                store::Health::Good => Health::Good,
                store::Health::Full => Health::Full,
                store::Health::Failed => Health::Failed,
            },
            Opened::Damaged => Health::Failed,
        });
        healths.max().unwrap_or(Health::Good)
    }

    /// Closes all sockets with 1001 and all files, everything on its way to the disk included.
    pub async fn shutdown(self) {
        let groups: Vec<_> = std::mem::take(&mut *self.groups()).into_values().collect();
        for opened in groups {
            if let Opened::Running { mailbox, .. } = opened {
                mailbox.shut_down().await;
            }
        }
        self.inner.worker.stop().await;
    }

    /// The way into a group, which is opened if it is not; nothing if its file cannot be used.
    fn mailbox(&self, group: &Group) -> Option<Mailbox> {
        let mut groups = self.groups();
        if !groups.contains_key(group) {
            let opened = self.open(group).unwrap_or_else(|problem| {
                error!(%group, "cannot use the group: {problem}");
                Opened::Damaged
            });
            groups.insert(group.clone(), opened);
        }
        match groups.get(group) {
            Some(Opened::Running { mailbox, .. }) => Some(mailbox.clone()),
            Some(Opened::Damaged) | None => None,
        }
    }

    fn open(&self, group: &Group) -> Result<Opened, OpenError> {
        let settings = &self.inner.settings;
        let path = settings.data_dir.join("groups").join(format!("{group}.db"));
        let (reports, reader) = group::reports();
        let sink = reports.clone();
        let completions = Box::new(move |completions| sink.stored(completions));
        let store = GroupStore::open(&path, GroupSettings::default(), completions)?;
        let health = store.health_reader();
        let engine = Engine::new(Settings {
            peer_id: settings.peer_id.clone(),
            storage_id: store.storage_id().to_owned(),
            announce: settings
                .announce
                .get(group)
                .copied()
                .unwrap_or(Announce::None),
            compaction: settings.compaction,
            graph_bytes_max: settings.graph_bytes_max,
            graph_idle_ms: settings.graph_idle_ms,
        });
        let worker = self.inner.worker.clone();
        let mailbox = group::start(group.clone(), engine, store, worker, (reports, reader));
        Ok(Opened::Running { mailbox, health })
    }

    fn forget(&self, session: &SessionId, connection: ConnectionId) {
        let mut sockets = self.sockets();
        if let Some(of_session) = sockets.get_mut(session) {
            of_session.remove(&connection);
            if of_session.is_empty() {
                sockets.remove(session);
            }
        }
    }

    /// A panic while the lock was held leaves a map that is whole all the same.
    fn groups(&self) -> MutexGuard<'_, BTreeMap<Group, Opened>> {
        self.inner
            .groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<SessionId, BTreeMap<ConnectionId, Mailbox>>> {
        self.inner
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
