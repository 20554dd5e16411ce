//! Opening a group, which takes the disk as long as the group's file is large: each row of it is looked at.
//!
//! One thread opens a group, without any lock; whoever else wants the group waits for that one, and nobody else does.

use engine::{Announce, Engine, Settings};
use store::{GroupSettings, GroupStore, Obstacle, OpenError, OpenProblem};
use tokio::{
    sync::watch,
    task::{self, AbortHandle},
};
use tracing::{error, info};

use super::{Health, Hub};
use crate::{
    group::Group,
    sync::group::{self, Mailbox, ReportReader, Reports},
};

/// A group that somebody has asked for.
pub(super) enum Opened {
    /// Somebody is at it.
    Opening {
        /// How it was before, if it was tried before.
        before: Option<Health>,
        /// Closed once it is something else.
        settled: watch::Receiver<()>,
    },
    Running {
        mailbox: Mailbox,
        health: store::HealthReader,
        task: AbortHandle,
    },
    /// Its file cannot be used; said in the log when it was found out.
    Damaged,
    /// Its file could not be opened, for a reason that may pass, such as too many open files: it is tried again every
    /// second, and when somebody asks.
    Unavailable(Health),
}

impl Opened {
    /// Whether the group's task has ended by a bug of ours: nobody is served there, and it is to be opened anew.
    pub(super) fn has_died(&self) -> bool {
        matches!(self, Self::Running { task, .. } if task.is_finished())
    }
}

impl From<OpenError> for Opened {
    fn from(error: OpenError) -> Self {
        match error.problem {
            OpenProblem::Damaged { .. }
            | OpenProblem::Foreign { .. }
            | OpenProblem::TooNew { .. } => Self::Damaged,
            OpenProblem::Obstacle(Obstacle::Full) => Self::Unavailable(Health::Full),
            OpenProblem::Obstacle(Obstacle::ReadOnly | Obstacle::Locked)
            | OpenProblem::Io(_)
            | OpenProblem::Sqlite(_) => Self::Unavailable(Health::Failed),
        }
    }
}

/// Whose turn it is to open a group.
enum Turn {
    Ours(Opening),
    /// Somebody else's, until this is closed.
    Theirs(watch::Receiver<()>),
    /// Nobody's: there is nothing to open, or the hub is closing.
    Nobodys,
}

/// The right to open a group: nobody else is at it until this is gone.
struct Opening {
    hub: Hub,
    group: Group,
    before: Option<Health>,
    /// Whether it is known what the group is now: from then on it may be somebody else's turn.
    is_over: bool,
    _settles: watch::Sender<()>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut groups = self.hub.groups();
        // it has panicked: nobody is to wait for it for ever
        if let Some(Opened::Opening { .. }) = groups.get(&self.group) {
            match self.before {
                None => groups.remove(&self.group),
                Some(health) => groups.insert(self.group.clone(), Opened::Unavailable(health)),
            };
        }
    }
}

impl Opening {
    /// Opens the group, or says in the log why not.
    fn open(&mut self) {
        let (hub, group) = (self.hub.clone(), self.group.clone());
        let opened = hub.open_store(&group);
        let mut groups = hub.groups();
        if hub.is_closing() {
            // what is dropped waits for the disk
            drop(groups);
            return drop(opened);
        }
        let opened = match opened {
            Ok((store, reports)) => {
                if self.before.is_some() {
                    info!(%group, "the group can be used again");
                }
                hub.start_group(&group, store, reports)
            }
            Err(problem) => {
                let told = problem.to_string();
                let opened = problem.into();
                // that is tried again and again is said once, and what is found to be damaged is not
                if self.before.is_none() || matches!(opened, Opened::Damaged) {
                    error!(%group, "cannot use the group: {told}");
                }
                opened
            }
        };
        groups.insert(group, opened);
        self.is_over = true;
    }
}

impl Hub {
    /// Whether a group can be used; opens it if it is not open.
    pub async fn has_group(&self, group: &Group) -> bool {
        match self.turn(group) {
            Turn::Ours(mut opening) => {
                task::spawn_blocking(move || opening.open()).await.ok();
            }
            // what came of it is the answer for all who have waited: to try again takes the disk as long once more
            Turn::Theirs(mut settled) => while settled.changed().await.is_ok() {},
            Turn::Nobodys => {}
        }
        self.running(group).is_some()
    }

    /// Opens a group, unless it is open, or somebody is at it. Takes the disk a moment.
    pub(super) fn open_unless_open(&self, group: &Group) {
        if let Turn::Ours(mut opening) = self.turn(group) {
            opening.open();
        }
    }

    fn turn(&self, group: &Group) -> Turn {
        let mut groups = self.groups();
        if self.is_closing() {
            return Turn::Nobodys;
        }
        let before = match groups.get(group) {
            None => None,
            Some(Opened::Unavailable(health)) => Some(*health),
            Some(opened) if opened.has_died() => {
                error!(%group, "the group's task has ended, which is a bug of ours; opening it anew");
                Some(Health::Failed)
            }
            Some(Opened::Opening { settled, .. }) => return Turn::Theirs(settled.clone()),
            Some(Opened::Running { .. } | Opened::Damaged) => return Turn::Nobodys,
        };
        let (settles, settled) = watch::channel(());
        groups.insert(group.clone(), Opened::Opening { before, settled });
        Turn::Ours(Opening {
            hub: self.clone(),
            group: group.clone(),
            before,
            is_over: false,
            _settles: settles,
        })
    }

    fn open_store(
        &self,
        group: &Group,
    ) -> Result<(GroupStore, (Reports, ReportReader)), OpenError> {
        let folder = self.inner.settings.data_dir.join("groups");
        let path = folder.join(format!("{group}.db"));
        let (reports, reader) = group::reports();
        let store = GroupStore::open(&path, GroupSettings::default(), reports.of_store())?;
        Ok((store, (reports, reader)))
    }

    fn start_group(
        &self,
        group: &Group,
        store: GroupStore,
        reports: (Reports, ReportReader),
    ) -> Opened {
        let settings = &self.inner.settings;
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
        let (thread, name) = (self.inner.thread.handle(), group.clone());
        let (mailbox, task) = group::start(thread, name, engine, store, worker, reports);
        Opened::Running {
            mailbox,
            health,
            task,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        sync::Arc,
        time::Duration,
    };

    use engine::{Access, Compaction};
    use tempfile::TempDir;
    use tokio::{
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;
    use crate::{
        door::SessionId,
        sync::{Admitted, HubSettings},
        worker::WorkerSettings,
    };

    fn hub(folder: &TempDir) -> Hub {
        Hub::start(HubSettings {
            data_dir: folder.path().into(),
            peer_id: "server".into(),
            announce: BTreeMap::new(),
            compaction: Compaction::default(),
            graph_bytes_max: 1 << 20,
            graph_idle_ms: 1_000,
            worker: WorkerSettings {
                program: folder.path().join("none"),
                address_space_bytes: 1 << 30,
                job_seconds_max: 1,
                idle_ms: 1,
            },
        })
        .unwrap()
    }

    fn group() -> Group {
        "org.example.group".parse().unwrap()
    }

    #[tokio::test]
    async fn who_could_not_open_a_group_takes_nobody_elses_turn_away() {
        let folder = tempfile::tempdir().unwrap();
        // a directory is in the file's place
        fs::create_dir_all(folder.path().join("groups/org.example.group.db")).unwrap();
        let hub = hub(&folder);
        let Turn::Ours(mut first) = hub.turn(&group()) else {
            panic!("it was not open")
        };
        first.open();
        let second = hub.turn(&group());
        assert!(matches!(second, Turn::Ours(_)));
        drop(first);
        assert!(matches!(hub.turn(&group()), Turn::Theirs(_)));
    }

    #[tokio::test]
    async fn that_a_file_is_damaged_is_said_also_if_it_could_not_be_opened_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("groups/org.example.group.db");
        // a directory is in the file's place
        fs::create_dir_all(&file).unwrap();
        let hub = hub(&folder);
        fs::remove_dir(&file).unwrap();
        fs::write(&file, [b'x'; 8_192]).unwrap();
        let lines = folder.path().join("log");
        let log = tracing_subscriber::fmt()
            .with_writer(Arc::new(fs::File::create(&lines).unwrap()))
            .finish();
        tracing::subscriber::with_default(log, || hub.try_again());
        assert!(matches!(hub.groups().get(&group()), Some(Opened::Damaged)));
        let said = fs::read_to_string(&lines).unwrap();
        assert!(said.contains("is damaged"), "{said:?}");
    }

    /// Its session may have been revoked since its handshake, and nothing have changed since then.
    #[tokio::test]
    async fn that_a_socket_is_new_is_said_once_it_is_among_those_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let hub = hub(&folder);
        assert!(hub.has_group(&group()).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, socket) = tokio::join!(client, listener.accept());
        let admitted = Admitted {
            session: SessionId::random().unwrap(),
            group: group(),
            access: Access::Read,
        };
        let expected = BTreeSet::from([(admitted.session.clone(), group())]);
        let place = hub.place().unwrap();
        hub.serve(socket.unwrap().0, &[], admitted, place).unwrap();
        let said = async {
            loop {
                let newcomers = hub.take_newcomers();
                if !newcomers.is_empty() {
                    break newcomers;
                }
                tokio::task::yield_now().await;
            }
        };
        let said = timeout(Duration::from_secs(10), said).await.unwrap();
        assert_eq!((said, hub.in_use()), (expected.clone(), expected));
        assert!(hub.take_newcomers().is_empty(), "it was said");
        drop(client);
    }

    #[tokio::test]
    async fn a_group_whose_task_has_ended_is_not_healthy_and_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let hub = hub(&folder);
        assert!(hub.has_group(&group()).await);
        let task = match hub.groups().get(&group()) {
            Some(Opened::Running { task, .. }) => task.clone(),
            _ => panic!("it is not open"),
        };
        // as by a panic
        task.abort();
        while !task.is_finished() {
            task::yield_now().await;
        }
        assert!(hub.running(&group()).is_none());
        assert_eq!(hub.health(), Health::Failed);
        hub.try_again();
        assert!(hub.running(&group()).is_some());
        assert_eq!(hub.health(), Health::Good);
        hub.shutdown().await;
    }
}
