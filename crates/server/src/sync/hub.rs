//! All groups of the server, and which sockets a session has.

mod opening;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use engine::{Access, Announce, Compaction, ConnectionId};
use futures_util::future::join_all;
use tokio::{net::TcpStream, sync::watch};
use tracing::{debug, error};

use self::opening::Opened;
use super::{group::Mailbox, outbox, socket, thread::SyncThread};
use crate::{
    door::SessionId,
    group::Group,
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
    thread: SyncThread,
    worker: Worker,
    groups: Mutex<BTreeMap<Group, Opened>>,
    sockets: Mutex<BTreeMap<SessionId, BTreeMap<ConnectionId, Socket>>>,
    /// The sessions of those that nobody has asked for since they were opened.
    newcomers: Mutex<BTreeSet<(SessionId, Group)>>,
    presence: watch::Sender<Presence>,
    next_connection: AtomicU64,
}

/// A socket that is open.
#[derive(Clone)]
struct Socket {
    group: Group,
    access: Access,
    mailbox: Mailbox,
}

/// Who is there, for the end to wait for.
#[derive(Default)]
struct Presence {
    sockets: usize,
    is_closing: bool,
}

/// A socket's place: the hub does not end while it is held.
pub struct Place(Hub);

impl Drop for Place {
    fn drop(&mut self) {
        self.0
            .inner
            .presence
            .send_modify(|presence| presence.sockets -= 1);
    }
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
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
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
        let thread = SyncThread::start().map_err(HubError::Thread)?;
        let worker = Worker::start(settings.worker.clone());
        let hub = Self {
            inner: Arc::new(Inner {
                settings,
                thread,
                worker,
                groups: Mutex::default(),
                sockets: Mutex::default(),
                newcomers: Mutex::default(),
                presence: watch::Sender::default(),
                next_connection: AtomicU64::new(1),
            }),
        };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".db"));
            if let Some(group) = name.and_then(|name| name.parse::<Group>().ok()) {
                hub.open_unless_open(&group);
            }
        }
        Ok(hub)
    }

    /// A place for one more socket; nothing once the hub is closing. To be taken before a handshake is answered, so
    /// that nobody is greeted and then forgotten.
    pub fn place(&self) -> Option<Place> {
        let is_taken = self.inner.presence.send_if_modified(|presence| {
            if !presence.is_closing {
                presence.sockets += 1;
            }
            !presence.is_closing
        });
        is_taken.then(|| Place(self.clone()))
    }

    /// Runs a WebSocket of a session until it ends, in the thread of the groups. Its handshake is done; `early` is what
    /// came with it.
    ///
    /// # Errors
    /// If the socket cannot be taken from the thread that accepted it.
    pub fn serve(
        &self,
        stream: TcpStream,
        early: &[u8],
        admitted: Admitted,
        place: Place,
    ) -> std::io::Result<()> {
        let (hub, stream) = (self.clone(), stream.into_std()?);
        // a copy, usually of nothing: the buffer of the handshake would live as long as the socket
        let early = Box::<[u8]>::from(early);
        self.inner.thread.handle().spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => hub.serve_here(stream, &early, admitted, place).await,
                Err(problem) => error!("cannot watch a socket: {problem}"),
            }
        });
        Ok(())
    }

    async fn serve_here(&self, stream: TcpStream, early: &[u8], admitted: Admitted, place: Place) {
        let Admitted {
            session,
            group,
            access,
        } = admitted;
        let Some(mailbox) = self.running(&group) else {
            return socket::turn_away(stream, self.why_not()).await;
        };
        let connection = ConnectionId(self.inner.next_connection.fetch_add(1, Ordering::Relaxed));
        let (outbox, mut reader) = outbox::outbox();
        if !mailbox.open(connection, access, outbox) {
            return socket::turn_away(stream, self.why_not()).await;
        }
        let here = Socket {
            group: group.clone(),
            access,
            mailbox: mailbox.clone(),
        };
        self.sockets()
            .entry(session.clone())
            .or_default()
            .insert(connection, here);
        self.newcomers().insert((session.clone(), group.clone()));
        debug!(%group, conn.id = connection.0, "a socket is open");
        let (end, farewell) = socket::run(stream, early, connection, &mailbox, &mut reader).await;
        debug!(%group, conn.id = connection.0, ?end, "a socket is closed");
        mailbox.closed(connection).await;
        self.forget(&session, connection);
        drop(place);
        farewell.answered().await;
    }

    /// Tells the sockets of a session in a group what it may do there now: nothing closes them, at once.
    pub fn set_access(&self, session: &SessionId, group: &Group, access: Option<Access>) {
        if let Some(sockets) = self.sockets().get_mut(session) {
            for (connection, socket) in sockets {
                if socket.group == *group && access != Some(socket.access) {
                    socket.access = access.unwrap_or(socket.access);
                    socket.mailbox.set_access(*connection, access);
                }
            }
        }
    }

    /// The sessions of sockets that were opened since this was last asked, and in which groups: what they may do was
    /// looked at before, and may have changed by the time they were among those in use.
    pub fn take_newcomers(&self) -> BTreeSet<(SessionId, Group)> {
        std::mem::take(&mut *self.newcomers())
    }

    /// The sessions that have sockets open, and in which groups.
    pub fn in_use(&self) -> BTreeSet<(SessionId, Group)> {
        let sockets = self.sockets();
        let of_session = |(session, sockets): (&SessionId, &BTreeMap<ConnectionId, Socket>)| {
            let groups = sockets.values().map(|socket| socket.group.clone());
            groups
                .map(|group| (session.clone(), group))
                .collect::<Vec<_>>()
        };
        sockets.iter().flat_map(of_session).collect()
    }

    /// Tries the groups again that could not be opened for a reason that may pass. Takes the disk a moment.
    pub fn try_again(&self) {
        let is_unavailable =
            |opened: &Opened| matches!(opened, Opened::Unavailable(_)) || opened.has_died();
        let unavailable: Vec<_> = {
            let groups = self.groups();
            let unavailable = groups.iter().filter(|(_, opened)| is_unavailable(opened));
            unavailable.map(|(group, _)| group.clone()).collect()
        };
        for group in unavailable {
            self.open_unless_open(&group);
        }
    }

    /// The worst of all groups.
    pub fn health(&self) -> Health {
        let groups = self.groups();
        let healths = groups.values().map(|opened| match opened {
            opened if opened.has_died() => Health::Failed,
            Opened::Running { health, .. } => match health.get() {
                store::Health::Good => Health::Good,
                store::Health::Full => Health::Full,
                store::Health::Failed => Health::Failed,
            },
            Opened::Damaged => Health::Failed,
            Opened::Unavailable(health) => *health,
            // what it is, is not known yet; what it was, is
            Opened::Opening { before, .. } => before.unwrap_or(Health::Good),
        });
        healths.max().unwrap_or(Health::Good)
    }

    /// Closes all sockets with 1001 and all files, everything on its way to the disk included.
    pub async fn shutdown(self) {
        let mut presence = self.inner.presence.subscribe();
        self.inner
            .presence
            .send_modify(|presence| presence.is_closing = true);
        // what it is at is done after the next start; its end is not to be taken for the document's fault meanwhile
        self.inner.worker.stop().await;
        let groups: Vec<_> = std::mem::take(&mut *self.groups()).into_values().collect();
        // beside each other: one whose file somebody has locked keeps no other from its end
        join_all(groups.iter().filter_map(|opened| match opened {
            Opened::Running { mailbox, .. } => Some(mailbox.shut_down()),
            Opened::Opening { .. } | Opened::Damaged | Opened::Unavailable(_) => None,
        }))
        .await;
        drop(presence.wait_for(|presence| presence.sockets == 0).await);
    }

    /// What is said to a socket that no group takes.
    fn why_not(&self) -> (u16, &'static str) {
        if self.is_closing() {
            socket::GOING_AWAY
        } else {
            socket::UNAVAILABLE
        }
    }

    fn is_closing(&self) -> bool {
        self.inner.presence.borrow().is_closing
    }

    /// The way into a group that is open.
    fn running(&self, group: &Group) -> Option<Mailbox> {
        match self.groups().get(group) {
            Some(opened) if opened.has_died() => None,
            Some(Opened::Running { mailbox, .. }) => Some(mailbox.clone()),
            Some(Opened::Opening { .. } | Opened::Damaged | Opened::Unavailable(_)) | None => None,
        }
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

    /// Nobody waits for a disk with this lock held: health and all sockets need it. A panic while it was held leaves a
    /// map that is whole all the same.
    fn groups(&self) -> MutexGuard<'_, BTreeMap<Group, Opened>> {
        self.inner
            .groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn newcomers(&self) -> MutexGuard<'_, BTreeSet<(SessionId, Group)>> {
        let newcomers = self.inner.newcomers.lock();
        newcomers.unwrap_or_else(PoisonError::into_inner)
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<SessionId, BTreeMap<ConnectionId, Socket>>> {
        self.inner
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
