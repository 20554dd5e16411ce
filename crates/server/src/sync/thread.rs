//! The thread in which all groups and their sockets live.
//!
//! What they say to each other costs less there than from core to core: no lock is contended, and nobody is woken who
//! sleeps on another core. The store and the HTTP of strangers have threads of their own. See
//! `docs/decisions/0019-one-thread-for-groups-and-sockets.md`.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Runs until it is dropped.
pub(super) struct SyncThread {
    handle: Handle,
    _running: oneshot::Sender<()>,
}

impl SyncThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has none to give.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("sync")
            .build()?;
        let handle = runtime.handle().clone();
        let (running, dropped) = oneshot::channel::<()>();
        let run = move || {
            runtime.block_on(async { dropped.await.ok() });
        };
        thread::Builder::new().name("sync".into()).spawn(run)?;
        Ok(Self {
            handle,
            _running: running,
        })
    }

    /// Where to spawn what belongs into this thread.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
