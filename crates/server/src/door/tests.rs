//! Turns to write, without anybody at the door.

use std::sync::mpsc;

use futures_util::poll;
use store::AuditOrder;
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

/// Behind a file that somebody has locked each who has a turn holds it for seconds. One who writes without a turn has
/// those who waited for theirs wait for it as well, as often as it comes.
#[tokio::test(start_paused = true)]
async fn what_was_counted_waits_its_turn_to_be_written_as_requests_do() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder);
    door.keep([SessionId::random().unwrap()]);
    door.note_refusal("wrong password", [127, 0, 0, 1].into());
    let logged = || {
        let lines = door.reader().audit(0, 10, AuditOrder::NewestFirst);
        lines.unwrap().len()
    };

    let turn = Arc::clone(&door.turn).acquire_owned().await.unwrap();
    for in_vain in [
        door.write_journal(JournalTime::Now).await,
        door.note_used().await,
    ] {
        let locked = matches!(in_vain, Err(AccountError::Obstacle(Obstacle::Locked)));
        assert!(locked, "{in_vain:?}");
    }
    assert_eq!(logged(), 0);

    drop(turn);
    door.note_used().await.unwrap();
    door.write_journal(JournalTime::Now).await.unwrap();
    assert_eq!(logged(), 1, "what had no turn is not lost");
}
