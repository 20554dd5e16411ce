//! Requests of unknown devices, and what is first for all: root documents, what may be used once.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

#[path = "support/accounts.rs"]
mod support;

use std::{path::Path, sync::Barrier, thread};

use store::{
    AccountStore, Approved, NewPending, Occasion, PendingDoor, Recorded,
    SessionAccess::{Read, Write},
    Use,
};
use support::{APP, Accounts, GROUP, LATE, NOW, approval, now, owned, pending};

const OTHER_GROUP: &str = "com.example.other";

#[test]
fn a_request_that_comes_again_gathers_its_groups() {
    let accounts = Accounts::create();
    let first = pending("p", "key", &[(GROUP, Read)]);
    assert_eq!(
        accounts.record_pending(&first, 9, &now()).unwrap(),
        Recorded::New
    );
    let later = Occasion::at(NOW + 7);
    let again = NewPending {
        address: "192.0.2.77".into(),
        name: "another name".into(),
        ..pending("q", "key", &[(GROUP, Write), (OTHER_GROUP, Read)])
    };
    let recorded = accounts.record_pending(&again, 9, &later).unwrap();
    assert_eq!(recorded, Recorded::Again { id: "p".into() });
    accounts.record_pending(&first, 9, &later).unwrap();
    let found = accounts.pending_by_jkt("key").unwrap().unwrap();
    assert_eq!(found.groups, owned(&[(GROUP, Write), (OTHER_GROUP, Read)]));
    let times = (found.first_at_ms, found.last_at_ms, found.tries);
    assert_eq!(times, (NOW, NOW + 7, 3));
    assert_eq!(
        (found.name.as_str(), found.address.as_str()),
        ("laptop", "192.0.2.1")
    );
    assert_eq!(accounts.pending().unwrap(), [found]);
    assert_eq!(accounts.events(), ["request.recorded"]);
}

#[test]
fn neither_door_fills_the_list_of_the_other_and_who_stays_away_for_a_day_makes_room() {
    let accounts = Accounts::create();
    let record = |id: &str, door, now_ms| {
        let new = NewPending {
            door,
            ..pending(id, id, &[(GROUP, Read)])
        };
        accounts
            .record_pending(&new, 1, &Occasion::at(now_ms))
            .unwrap()
    };
    use PendingDoor::{Authenticate, RequestAccess};
    assert_eq!(record("a", RequestAccess, NOW), Recorded::New);
    assert_eq!(record("b", RequestAccess, NOW), Recorded::Full);
    assert_eq!(record("c", Authenticate, NOW), Recorded::New);
    let a_day_later = NOW + 24 * 3_600 * 1_000;
    assert_eq!(record("b", RequestAccess, a_day_later), Recorded::Full);
    assert_eq!(record("b", RequestAccess, a_day_later + 1), Recorded::New);
}

#[test]
fn requests_are_few_and_ask_for_few_groups() {
    let accounts = Accounts::create();
    let record = |id: &str, groups: &[(&str, _)]| {
        let new = pending(id, id, groups);
        accounts.record_pending(&new, 2, &now()).unwrap()
    };
    let names: Vec<String> = (0..17)
        .map(|number| format!("com.example.n{number}"))
        .collect();
    let groups: Vec<_> = names.iter().map(|name| (name.as_str(), Read)).collect();
    assert_eq!(record("a", &groups), Recorded::Full, "17 groups");
    assert_eq!(record("a", groups.get(..16).unwrap()), Recorded::New);
    let again = Recorded::Again { id: "a".into() };
    assert_eq!(record("a", groups.get(3..5).unwrap()), again);
    assert_eq!(record("a", groups.get(16..).unwrap()), Recorded::Full);
    assert_eq!(record("b", &[(GROUP, Read)]), Recorded::New);
    assert_eq!(record("c", &[(GROUP, Read)]), Recorded::Full);
    assert_eq!(
        record("b", &[(GROUP, Read)]),
        Recorded::Again { id: "b".into() }
    );
    assert!(accounts.deny("a", &now()).unwrap());
    assert_eq!(
        record("c", &[(GROUP, Read)]),
        Recorded::New,
        "there is room"
    );
    assert_eq!(accounts.pending().unwrap().len(), 3);
}

#[test]
fn what_was_denied_stays_denied_until_the_window_is_opened_anew() {
    let accounts = Accounts::create();
    accounts.open_window(NOW + 10, &now()).unwrap();
    let new = pending("p", "key", &[(GROUP, Read)]);
    let record = |at| accounts.record_pending(&new, 9, &Occasion::at(at)).unwrap();
    assert_eq!(record(NOW), Recorded::New);
    assert!(accounts.deny("p", &now()).unwrap());
    assert!(!accounts.deny("p", &now()).unwrap(), "denied already");
    assert!(!accounts.deny("unknown", &now()).unwrap());
    assert_eq!(record(NOW + 1), Recorded::Denied);
    accounts
        .open_window(NOW + 20, &Occasion::at(NOW + 9))
        .unwrap();
    assert_eq!(record(NOW + 9), Recorded::Denied, "only the end has moved");
    let found = accounts.pending_by_jkt("key").unwrap().unwrap();
    assert_eq!((found.denied_at_ms, found.tries), (Some(NOW), 3));
    accounts
        .open_window(NOW + 40, &Occasion::at(NOW + 20))
        .unwrap();
    assert_eq!(record(NOW + 20), Recorded::New);
}

#[test]
fn the_window_is_open_until_its_end_or_until_it_is_closed() {
    let accounts = Accounts::create();
    let open_until = |now_ms| accounts.another().window_open_until(now_ms).unwrap();
    assert_eq!(open_until(NOW), None);
    accounts.open_window(NOW + 10, &now()).unwrap();
    assert_eq!(open_until(NOW + 9), Some(NOW + 10));
    assert_eq!(open_until(NOW + 10), None);
    assert!(accounts.close_window(&now()).unwrap());
    assert_eq!(open_until(NOW), None);
    assert!(!accounts.close_window(&now()).unwrap());
    assert_eq!(accounts.events(), ["pairing.opened", "pairing.closed"]);
}

#[test]
fn who_was_heard_before_the_window_was_closed_leaves_no_request_afterwards() {
    let accounts = Accounts::create();
    let record = |id, at| {
        let new = pending(id, id, &[(GROUP, Read)]);
        let occasion = Occasion::at(at);
        accounts.record_pending_if_open(&new, 9, &occasion).unwrap()
    };
    assert_eq!(record("a", NOW), Recorded::Closed);
    let owner = accounts.another();
    owner.open_window(NOW + 10, &now()).unwrap();
    assert_eq!(record("a", NOW), Recorded::New);
    owner.close_window(&now()).unwrap();
    assert_eq!(record("a", NOW + 1), Recorded::Closed, "nor again");
    assert_eq!(record("b", NOW + 1), Recorded::Closed);
    assert_eq!(accounts.pending().unwrap().len(), 1);
    assert_eq!(accounts.pending_by_jkt("a").unwrap().unwrap().tries, 1);
    owner.open_window(NOW + 10, &now()).unwrap();
    owner.revoke_everything(&"a".repeat(32), &now()).unwrap();
    assert_eq!(record("b", NOW + 1), Recorded::Closed);
    assert_eq!(accounts.pending().unwrap(), []);
}

#[test]
fn old_requests_are_forgotten_with_their_denials() {
    let accounts = Accounts::create();
    for (id, at) in [("a", NOW), ("b", NOW + 1), ("c", NOW)] {
        let new = pending(id, id, &[(GROUP, Read)]);
        accounts.record_pending(&new, 9, &Occasion::at(at)).unwrap();
    }
    accounts.deny("a", &now()).unwrap();
    let again = pending("c", "c", &[(GROUP, Read)]);
    accounts
        .record_pending(&again, 9, &Occasion::at(NOW + 2))
        .unwrap();
    assert_eq!(accounts.drop_pending_before(NOW + 1).unwrap(), 1);
    let left = accounts.pending().unwrap();
    let left: Vec<_> = left.iter().map(|pending| pending.id.as_str()).collect();
    assert_eq!(left, ["c", "b"]);
}

/// It may have waited long for its turn to write, and its owner has gone first.
#[test]
fn a_device_that_may_not_write_or_not_any_more_chooses_no_root_document() {
    let accounts = Accounts::create();
    accounts.add_device("reader", &[(GROUP, Read)]);
    accounts.add_device("gone", &[(GROUP, Write)]);
    accounts.revoke_device("gone", &now()).unwrap();
    for device in ["reader", "gone", "nobody"] {
        let stands = accounts.put_root_first(APP, GROUP, "automerge:1", Some(device), &now());
        assert_eq!(stands.unwrap(), None, "{device}");
    }
    assert_eq!(accounts.roots().unwrap(), []);
}

#[test]
fn the_first_root_document_wins_until_the_owner_says_otherwise() {
    let accounts = Accounts::create();
    let put = |group, url, device| {
        let stored = accounts.put_root_first(APP, group, url, device, &now());
        stored.unwrap().unwrap()
    };
    accounts.add_device("d", &[(GROUP, Write)]);
    assert_eq!(put(GROUP, "automerge:1", Some("d")), "automerge:1");
    assert_eq!(put(GROUP, "automerge:2", Some("e")), "automerge:1");
    assert_eq!(put(OTHER_GROUP, "automerge:3", None), "automerge:3");
    accounts
        .set_root(APP, GROUP, "automerge:4", &now())
        .unwrap();
    assert_eq!(put(GROUP, "automerge:5", None), "automerge:4");
    let roots = accounts.roots().unwrap();
    let roots: Vec<_> = roots
        .iter()
        .map(|root| (root.url.as_str(), &root.device))
        .collect();
    assert_eq!(roots, [("automerge:4", &None), ("automerge:3", &None)]);
    assert!(accounts.remove_root(APP, GROUP, &now()).unwrap());
    assert!(!accounts.remove_root(APP, GROUP, &now()).unwrap());
    assert_eq!(accounts.root(APP, GROUP).unwrap(), None);
    assert_eq!(put(GROUP, "automerge:6", None), "automerge:6");
}

#[test]
fn what_was_used_once_is_refused_after_a_restart_until_its_end() {
    let accounts = Accounts::create();
    let use_once = |kind, hash: u8, end, now_ms| {
        let store = accounts.another();
        store.use_once(kind, &[hash; 32], end, 2, now_ms).unwrap()
    };
    assert_eq!(use_once("a", 1, NOW + 10, NOW), Use::First);
    assert_eq!(use_once("a", 1, NOW + 10, NOW), Use::Again);
    assert_eq!(use_once("a", 1, NOW + 99, NOW + 9), Use::Again);
    assert_eq!(use_once("b", 1, NOW + 10, NOW), Use::First, "another kind");
    assert_eq!(use_once("a", 2, NOW, NOW), Use::Again, "past its end");
    assert_eq!(use_once("a", 2, NOW + 20, NOW), Use::First);
    assert_eq!(use_once("a", 3, NOW + 20, NOW), Use::Full);
    assert_eq!(use_once("a", 1, NOW + 10, NOW), Use::Again, "even then");
    assert_eq!(use_once("b", 3, NOW + 20, NOW), Use::First, "of each kind");
    assert_eq!(
        use_once("a", 3, NOW + 20, NOW + 10),
        Use::First,
        "the first has ended"
    );
}

#[test]
fn a_clock_that_was_set_forward_and_back_lets_nothing_be_used_again_and_keeps_nobody_out_for_long()
{
    const HOUR_MS: i64 = 3_600_000;
    let accounts = Accounts::create();
    let use_once = |kind, hash: u8, end, now_ms| {
        let store = accounts.another();
        store.use_once(kind, &[hash; 32], end, 9, now_ms).unwrap()
    };
    assert_eq!(use_once("a", 1, NOW + 10, NOW), Use::First);
    assert_eq!(use_once("a", 2, NOW + 20, NOW), Use::First);
    // all of that is forgotten here
    let later = NOW + HOUR_MS;
    assert_eq!(use_once("a", 3, later + 20, later), Use::First);
    assert_eq!(use_once("a", 1, NOW + 10, NOW + 1), Use::Again);
    assert_eq!(use_once("a", 2, NOW + 20, NOW + 1), Use::Again);
    assert_eq!(use_once("a", 4, NOW + 20, NOW + 1), Use::Again, "who knows");
    assert_eq!(use_once("a", 5, NOW + 21, NOW + 1), Use::First);
    assert_eq!(
        use_once("b", 1, NOW + 10, NOW + 1),
        Use::First,
        "another kind"
    );
    assert_eq!(
        use_once("a", 3, later + 20, NOW + 1),
        Use::Again,
        "it is remembered"
    );
    // what is forgotten at a smaller step takes nothing back
    assert_eq!(use_once("a", 6, NOW + 30, NOW + 22), Use::First);
    assert_eq!(use_once("a", 2, NOW + 20, NOW + 1), Use::Again);
    assert_eq!(use_once("a", 5, NOW + 21, NOW + 1), Use::Again);
}

/// Lets two processes do the same at the same time.
fn race<T: Send>(path: &Path, act: impl Fn(&AccountStore, usize) -> T + Sync) -> [T; 2] {
    let barrier = Barrier::new(2);
    let run = |number: usize| {
        let store = AccountStore::open(path).unwrap();
        barrier.wait();
        act(&store, number)
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        [run(0), other.join().unwrap()]
    })
}

#[test]
fn of_two_processes_that_race_one_is_first_and_both_agree() {
    let accounts = Accounts::create();
    for round in 0u8..20 {
        let id = format!("p{round}");
        let new = pending(&id, &id, &[(GROUP, Write)]);
        accounts.record_pending(&new, 9, &now()).unwrap();
        let outcomes = race(&accounts.path(), |store, number| {
            let url = format!("automerge:{number}");
            let root = store.put_root_first(&id, GROUP, &url, None, &now());
            let used = store.use_once("kind", &[round; 32], LATE, 100, NOW);
            let access = if number == 0 { Read } else { Write };
            let approval = approval(&id, &[(GROUP, access)], LATE);
            let approved = store.approve(&approval, &now());
            (root.unwrap().unwrap(), used.unwrap(), approved.unwrap())
        });
        let [
            (root, used, approved),
            (other_root, other_used, other_approved),
        ] = outcomes;
        assert_eq!(root, other_root);
        assert_eq!(accounts.root(&id, GROUP).unwrap(), Some(root));
        let mut used = [used, other_used];
        used.sort();
        assert_eq!(used, [Use::First, Use::Again]);
        assert_eq!(approved, other_approved);
        assert!(matches!(approved, Approved::Device(device) if device.id == id));
    }
    assert_eq!(accounts.devices().unwrap().len(), 20);
    assert_eq!(accounts.pending().unwrap(), []);
    let grant = accounts.grant(APP, GROUP).unwrap().unwrap();
    assert_eq!(grant.access, Write, "no approval is lost");
}
