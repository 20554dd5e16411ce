//! Turns to write, without anybody at the door.

use std::sync::mpsc;

use futures_util::poll;
use tempfile::TempDir;

use super::*;
use crate::outbound::{HostMap, Loopback, Outbound};

/// A door whose database lies in this folder.
fn door(folder: &TempDir) -> Arc<Door> {
    let open = || AccountStore::open(&folder.path().join("account.db")).unwrap();
    let outbound = Arc::new(Outbound::new(HostMap::default()).unwrap());
    let directory = "https://plc.directory".parse().unwrap();
    let door = Door::new(
        [open(), open()],
        SecretKey::parse(&"5".repeat(64)).unwrap(),
        Policy {
            owner: None,
            public_url: None,
            legacy_authenticate: LegacyAuthenticate::Off,
            bare_audience: BareAudience::Refuse,
        },
        Resolvers {
            dids: DidResolver::new(Arc::clone(&outbound), directory, Loopback::Refused),
            clients: ClientResolver::new(outbound),
        },
    );
    Arc::new(door.unwrap())
}

#[tokio::test]
async fn those_who_hang_up_behind_a_locked_database_leave_one_thread_that_waits() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder);
    let (unlock, locked) = mpsc::channel::<()>();
    let mut first = Box::pin(door.write(move |_| Ok(locked.recv().is_err())));
    assert!(poll!(first.as_mut()).is_pending());
    drop(first);
    // each change that has not been given up holds one
    let held = Arc::new(());
    for _ in 0..20 {
        let change = Arc::clone(&held);
        let mut hangs_up = Box::pin(door.write(move |_| Ok(change)));
        assert!(poll!(hangs_up.as_mut()).is_pending());
    }
    assert_eq!(Arc::strong_count(&held), 1, "nobody else waits in a thread");
    drop(unlock);
    assert!(door.write(|_| Ok(true)).await.unwrap());
}
