//! How devices come to their approvals, from the owner and by the grants of their apps, and how they lose them.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

#[path = "support/accounts.rs"]
mod support;

use rusqlite::Connection;
use store::{
    AccountStore, Approved, Attested, Device, DeviceProof, NewApproval, NewDevice, NewPending,
    Occasion, Recorded,
    SessionAccess::{Read, Write},
};
use support::{APP, Accounts, GROUP, LATE, NOW, approval, attested, now, pending, session};

const OTHER_GROUP: &str = "com.example.other";
const OTHER_APP: &str = "https://other.example/client.json";

fn of_other_app(new: NewPending) -> NewPending {
    NewPending {
        app: OTHER_APP.into(),
        ..new
    }
}

fn attest(accounts: &AccountStore, new: &NewDevice) -> Device {
    let attested = accounts.add_attested_device(new, &now()).unwrap();
    let Attested::Device(device) = attested else {
        panic!("{attested:?}")
    };
    device
}

#[test]
fn an_approved_request_becomes_a_device_under_its_id_and_its_app_is_granted_as_much() {
    let accounts = Accounts::create();
    let new = pending("p", "key", &[(GROUP, Write), (OTHER_GROUP, Write)]);
    accounts.record_pending(&new, 9, &now()).unwrap();
    let narrower = NewApproval {
        name: Some("my laptop".into()),
        ..approval("p", &[(GROUP, Read)], LATE)
    };
    let approved = accounts.approve(&narrower, &now()).unwrap();
    let expected = Device {
        id: "p".into(),
        app: APP.into(),
        jkt: "key".into(),
        origin: new.origin,
        kind: new.kind,
        proof: DeviceProof::Owner,
        name: "my laptop".into(),
        address: new.address,
        created_at_ms: NOW,
        last_seen_at_ms: None,
        revoked_at_ms: None,
    };
    assert_eq!(approved, Approved::Device(expected.clone()));
    assert_eq!(accounts.device("p").unwrap().as_ref(), Some(&expected));
    assert_eq!(accounts.device_by_jkt("key").unwrap(), Some(expected));
    assert_eq!(accounts.devices().unwrap().len(), 1);
    assert_eq!(accounts.pending().unwrap(), []);
    let access = |group| accounts.device_access("p", group, NOW).unwrap();
    assert_eq!((access(GROUP), access(OTHER_GROUP)), (Some(Read), None));
    let grant = accounts.grant(APP, GROUP).unwrap().unwrap();
    assert_eq!((grant.access, grant.expires_at_ms), (Read, LATE));
    assert_eq!(accounts.grant(APP, OTHER_GROUP).unwrap(), None);
    let events = accounts.events();
    assert_eq!(
        events,
        ["request.recorded", "device.approved", "grant.given"]
    );
}

#[test]
fn a_device_is_approved_for_more_and_for_less_and_its_other_groups_stay() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Read), (OTHER_GROUP, Write)]);
    let access = |group| accounts.device_access("d", group, NOW).unwrap();
    accounts.approved("d", &[(GROUP, Write)], LATE);
    assert_eq!(
        (access(GROUP), access(OTHER_GROUP)),
        (Some(Write), Some(Write))
    );
    accounts.approved("d", &[(GROUP, Read)], NOW + 1);
    assert_eq!(
        (access(GROUP), access(OTHER_GROUP)),
        (Some(Read), Some(Write))
    );
    let later = accounts.device_access("d", GROUP, NOW + 1).unwrap();
    assert_eq!(later, None);
    let approvals = accounts.approvals("d").unwrap();
    let ends: Vec<_> = approvals
        .iter()
        .map(|a| (a.group.as_str(), a.expires_at_ms))
        .collect();
    assert_eq!(ends, [(GROUP, NOW + 1), (OTHER_GROUP, LATE)]);
}

#[test]
fn a_request_of_a_device_for_another_group_is_approved_for_that_device() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Read)]);
    let more = pending("p", "d", &[(OTHER_GROUP, Write)]);
    assert_eq!(
        accounts.record_pending(&more, 9, &now()).unwrap(),
        Recorded::New
    );
    let device = accounts.approved("p", &[(OTHER_GROUP, Write)], LATE);
    assert_eq!(device.id, "d");
    assert_eq!(accounts.devices().unwrap().len(), 1);
    assert_eq!(accounts.pending().unwrap(), []);
    let access = |group| accounts.device_access("d", group, NOW).unwrap();
    assert_eq!(
        (access(GROUP), access(OTHER_GROUP)),
        (Some(Read), Some(Write))
    );
}

#[test]
fn only_requests_and_devices_that_are_not_revoked_can_be_approved() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Read)]);
    accounts.revoke_device("d", &now()).unwrap();
    let before = accounts.events();
    for id in ["d", "unknown"] {
        let approval = approval(id, &[(GROUP, Write)], LATE);
        let approved = accounts.approve(&approval, &now()).unwrap();
        assert_eq!(approved, Approved::Unknown, "{id}");
    }
    assert_eq!(accounts.events(), before);
}

#[test]
fn an_approval_widens_its_apps_grant_and_never_narrows_it() {
    let accounts = Accounts::create();
    let grant = || {
        let grant = accounts.grant(APP, GROUP).unwrap().unwrap();
        (grant.access, grant.expires_at_ms)
    };
    accounts.add_device("a", &[(GROUP, Read)]);
    assert_eq!(grant(), (Read, LATE));
    accounts.approved("a", &[(GROUP, Read)], LATE + 5);
    assert_eq!(grant(), (Read, LATE + 5), "longer");
    accounts.add_device("b", &[(GROUP, Write)]);
    assert_eq!(grant(), (Write, LATE + 5), "and to write");
    accounts.approved("b", &[(GROUP, Read)], NOW + 1);
    assert_eq!(grant(), (Write, LATE + 5), "not back");
}

#[test]
fn a_grant_that_has_ended_lends_its_access_to_no_later_approval() {
    let accounts = Accounts::create();
    accounts.add_device("writer", &[(GROUP, Write)]);
    accounts.put_grant(APP, GROUP, Write, NOW, &now()).unwrap();
    accounts.add_device("reader", &[(GROUP, Read)]);
    let grant = accounts.grant(APP, GROUP).unwrap().unwrap();
    assert_eq!((grant.access, grant.expires_at_ms), (Read, LATE));
    let access = accounts.device_access("writer", GROUP, NOW).unwrap();
    assert_eq!(access, Some(Read));
}

#[test]
fn a_grant_that_was_taken_back_does_not_come_back_for_the_other_devices() {
    let accounts = Accounts::create();
    accounts.add_device("a", &[(GROUP, Write), (OTHER_GROUP, Write)]);
    let stranger = of_other_app(pending("c", "c", &[(GROUP, Write)]));
    accounts.record_pending(&stranger, 9, &now()).unwrap();
    accounts.approved("c", &[(GROUP, Write)], LATE);
    let removed = |group| accounts.remove_grant(APP, group, &now()).unwrap();
    assert_eq!(removed(Some(GROUP)), 1);
    accounts.add_device("b", &[(GROUP, Write)]);
    let access = |id, group| accounts.device_access(id, group, NOW).unwrap();
    assert_eq!(
        (access("a", GROUP), access("b", GROUP)),
        (None, Some(Write))
    );
    assert_eq!(access("a", OTHER_GROUP), Some(Write));
    assert_eq!(access("c", GROUP), Some(Write), "another app");
    assert_eq!((removed(None), removed(None)), (2, 0));
    assert_eq!((access("a", OTHER_GROUP), access("b", GROUP)), (None, None));
    assert_eq!(accounts.grants().unwrap().len(), 1);
}

#[test]
fn an_attested_device_gets_what_it_asks_for_as_far_as_its_app_was_granted_it() {
    let accounts = Accounts::create();
    let wants = [
        (GROUP, Write),
        (OTHER_GROUP, Read),
        ("com.example.none", Read),
    ];
    let new = attested("d", "d", &wants);
    let refused = accounts.add_attested_device(&new, &now()).unwrap();
    assert_eq!(refused, Attested::NotGranted);
    accounts.put_grant(APP, GROUP, Read, LATE, &now()).unwrap();
    accounts
        .put_grant(APP, OTHER_GROUP, Write, LATE + 5, &now())
        .unwrap();
    accounts
        .put_grant(APP, "com.example.none", Write, NOW, &now())
        .unwrap();
    let device = attest(&accounts, &new);
    assert_eq!(
        (device.id.as_str(), device.proof),
        ("d", DeviceProof::Attested)
    );
    let approvals = accounts.approvals("d").unwrap();
    let approvals: Vec<_> = approvals
        .iter()
        .map(|approval| {
            (
                approval.group.as_str(),
                approval.access,
                approval.expires_at_ms,
            )
        })
        .collect();
    assert_eq!(
        approvals,
        [(GROUP, Read, LATE), (OTHER_GROUP, Read, LATE + 5)]
    );
    let before = accounts.events();
    assert_eq!(attest(&accounts, &attested("e", "d", &wants)).id, "d");
    assert_eq!(accounts.events(), before, "nothing new");
    accounts.put_grant(APP, GROUP, Write, LATE, &now()).unwrap();
    attest(&accounts, &new);
    let access = accounts.device_access("d", GROUP, NOW).unwrap();
    assert_eq!(access, Some(Write));
}

#[test]
fn the_approval_of_one_device_lets_no_other_in_that_its_app_vouches_for() {
    let accounts = Accounts::create();
    accounts.add_device("mine", &[(GROUP, Write)]);
    let other = attested("other", "other", &[(GROUP, Write)]);
    let refused = accounts.add_attested_device(&other, &now()).unwrap();
    assert_eq!(refused, Attested::NotGranted);
    // by name, to read; and what an approval widens is for the approved alone
    accounts.put_grant(APP, GROUP, Read, LATE, &now()).unwrap();
    accounts.approved("mine", &[(GROUP, Write)], LATE);
    attest(&accounts, &other);
    let access = |device| accounts.device_access(device, GROUP, NOW).unwrap();
    assert_eq!((access("other"), access("mine")), (Some(Read), Some(Write)));
}

#[test]
fn the_approval_of_one_device_does_not_let_others_in_for_longer_that_its_app_vouches_for() {
    let accounts = Accounts::create();
    let ends = NOW + 5;
    accounts.put_grant(APP, GROUP, Write, ends, &now()).unwrap();
    attest(&accounts, &attested("early", "early", &[(GROUP, Write)]));
    // the owner's own, for a year
    let new = pending("mine", "mine", &[(GROUP, Write)]);
    accounts.record_pending(&new, 9, &now()).unwrap();
    accounts
        .approve(&approval("mine", &[(GROUP, Write)], LATE), &now())
        .unwrap();
    // again, within its time: no longer than the owner has said
    attest(&accounts, &attested("early", "early", &[(GROUP, Write)]));
    let access = |device| accounts.device_access(device, GROUP, ends).unwrap();
    assert_eq!(access("mine"), Some(Write));
    assert_eq!(access("early"), None);
    let late = attested("late", "late", &[(GROUP, Write)]);
    let refused = accounts
        .add_attested_device(&late, &Occasion::at(ends))
        .unwrap();
    assert_eq!(refused, Attested::NotGranted);
}

#[test]
fn the_approval_of_one_device_wakes_none_that_its_app_has_vouched_for() {
    for (approved_at, expected) in [(NOW + 1, Some(Read)), (NOW + 5, None)] {
        let accounts = Accounts::create();
        accounts.put_grant(APP, GROUP, Write, LATE, &now()).unwrap();
        attest(&accounts, &attested("other", "other", &[(GROUP, Write)]));
        // the owner knows the device by now, for something else
        accounts
            .approve(&approval("other", &[(OTHER_GROUP, Read)], LATE), &now())
            .unwrap();
        // the owner changes their mind: less, and not for long
        accounts
            .put_grant(APP, GROUP, Read, NOW + 5, &now())
            .unwrap();
        let new = pending("mine", "mine", &[(GROUP, Write)]);
        accounts.record_pending(&new, 9, &now()).unwrap();
        let occasion = Occasion::at(approved_at);
        accounts
            .approve(&approval("mine", &[(GROUP, Write)], LATE), &occasion)
            .unwrap();
        let access = |device, at_ms| accounts.device_access(device, GROUP, at_ms).unwrap();
        assert_eq!(access("other", approved_at), expected, "at {approved_at}");
        assert_eq!(access("other", NOW + 5), None);
        assert_eq!(access("mine", NOW + 5), Some(Write));
        let new = session("s", Some("other"), &[(GROUP, Write)]);
        accounts.add(&new, &now()).unwrap();
        let of_session = accounts.access("s", GROUP, approved_at).unwrap();
        assert_eq!(of_session, expected);
    }
}

#[test]
fn a_file_of_format_2_keeps_what_devices_may_do_and_for_how_long_apps_vouch() {
    let accounts = Accounts::create();
    let ends = NOW + 5;
    accounts.put_grant(APP, GROUP, Write, ends, &now()).unwrap();
    attest(
        &accounts,
        &attested("vouched", "vouched", &[(GROUP, Write)]),
    );
    let mine = pending("mine", "mine", &[(OTHER_GROUP, Write)]);
    accounts.record_pending(&mine, 9, &now()).unwrap();
    accounts
        .approve(&approval("mine", &[(OTHER_GROUP, Write)], LATE), &now())
        .unwrap();
    let file = Connection::open(accounts.path()).unwrap();
    file.execute_batch(
        "ALTER TABLE grants DROP COLUMN attested_until_ms;
         ALTER TABLE approvals DROP COLUMN attested;
         PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(file);

    let accounts = accounts.another();
    let access = |device, group, at_ms| accounts.device_access(device, group, at_ms).unwrap();
    assert_eq!(access("vouched", GROUP, NOW), Some(Write));
    assert_eq!(access("vouched", GROUP, ends), None);
    assert_eq!(access("mine", OTHER_GROUP, ends), Some(Write));
    let grant = accounts.grant(APP, GROUP).unwrap().unwrap();
    assert_eq!(grant.attested_until_ms, Some(ends));
    // and no approval prolongs it from now on
    let more = pending("more", "more", &[(GROUP, Write)]);
    accounts.record_pending(&more, 9, &now()).unwrap();
    accounts
        .approve(&approval("more", &[(GROUP, Write)], LATE), &now())
        .unwrap();
    assert_eq!(access("vouched", GROUP, ends), None);
    assert_eq!(access("more", GROUP, ends), Some(Write));
}

#[test]
fn what_the_owner_approved_a_device_for_is_not_widened_by_its_app() {
    let accounts = Accounts::create();
    accounts.add_device("writer", &[(GROUP, Write)]);
    accounts.add_device("reader", &[(GROUP, Read)]);
    accounts.put_grant(APP, GROUP, Write, LATE, &now()).unwrap();
    attest(&accounts, &attested("x", "reader", &[(GROUP, Write)]));
    let access = accounts.device_access("reader", GROUP, NOW).unwrap();
    assert_eq!(access, Some(Read));
    attest(&accounts, &attested("d", "d", &[(GROUP, Write)]));
    accounts.approved("d", &[(GROUP, Read)], LATE);
    attest(&accounts, &attested("d", "d", &[(GROUP, Write)]));
    let access = accounts.device_access("d", GROUP, NOW).unwrap();
    assert_eq!(access, Some(Read));
}

#[test]
fn of_the_sessions_of_a_device_that_have_ended_the_latest_are_remembered() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Write)]);
    accounts.add_device("e", &[(GROUP, Write)]);
    let begin = |id: &str, device, at_ms| {
        let new = session(id, Some(device), &[(GROUP, Write)]);
        accounts.add(&new, &Occasion::at(at_ms)).unwrap();
    };
    begin("other", "e", NOW);
    accounts.revoke("other", &now()).unwrap();
    begin("first", "d", NOW);
    for number in 0..100 {
        let (id, at_ms) = (format!("s{number}"), NOW + number);
        begin(&id, "d", at_ms);
        accounts.revoke(&id, &Occasion::at(at_ms)).unwrap();
    }
    begin("last", "d", NOW + 100);
    let left = accounts.sessions_of_device("d").unwrap();
    assert_eq!(left.len(), 34, "32 that have ended, and two in force");
    let is_there = |id: &str| accounts.session(id).unwrap().is_some();
    let ids = ["first", "s67", "s68", "s99", "last", "other"];
    assert_eq!(ids.map(is_there), [true, false, true, true, true, true]);
}

#[test]
fn one_key_is_one_device_of_one_app() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Write)]);
    let request = pending("p", "key", &[(GROUP, Write)]);
    accounts.record_pending(&request, 9, &now()).unwrap();
    for jkt in ["d", "key"] {
        let other = of_other_app(pending("q", jkt, &[(GROUP, Read)]));
        let recorded = accounts.record_pending(&other, 9, &now()).unwrap();
        assert_eq!(recorded, Recorded::OtherApp, "{jkt}");
    }
    accounts
        .put_grant(OTHER_APP, GROUP, Write, LATE, &now())
        .unwrap();
    let other = |jkt| NewDevice {
        app: OTHER_APP.into(),
        ..attested("e", jkt, &[(GROUP, Write)])
    };
    let refused = accounts.add_attested_device(&other("d"), &now()).unwrap();
    assert_eq!(refused, Attested::OtherApp);
    attest(&accounts, &other("key"));
    let approval = approval("p", &[(GROUP, Write)], LATE);
    let refused = accounts.approve(&approval, &now()).unwrap();
    assert_eq!(refused, Approved::OtherApp);
    let row = "INSERT INTO devices (id, app, jkt, kind, proof, name, address, created_at_ms)
               VALUES ('z', 'z', 'd', 'web', 'owner', '', '', 0)";
    assert!(accounts.raw().execute(row, []).is_err());
}

#[test]
fn a_revoked_device_takes_its_sessions_and_its_request_with_it_and_its_key_is_remembered() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Write)]);
    accounts.add_device("e", &[(GROUP, Write)]);
    for (id, device) in [("s", "d"), ("t", "d"), ("u", "e")] {
        let new = session(id, Some(device), &[(GROUP, Write)]);
        accounts.add(&new, &now()).unwrap();
    }
    let more = pending("p", "d", &[(OTHER_GROUP, Write)]);
    accounts.record_pending(&more, 9, &now()).unwrap();
    assert_eq!(accounts.revoke_device("d", &now()).unwrap(), Some(2));
    assert_eq!(accounts.revoke_device("d", &now()).unwrap(), None);
    assert_eq!(accounts.revoke_device("unknown", &now()).unwrap(), None);
    let in_force = |id: &str| accounts.session(id).unwrap().unwrap().is_in_force(NOW);
    assert_eq!(["s", "t", "u"].map(in_force), [false, false, true]);
    assert_eq!(accounts.pending().unwrap(), []);
    assert_eq!(accounts.device_by_jkt("d").unwrap(), None);
    let revoked = accounts.device("d").unwrap().unwrap();
    assert_eq!(revoked.revoked_at_ms, Some(NOW));
    assert_eq!(
        ["d", "e"].map(|jkt| accounts.was_revoked(jkt).unwrap()),
        [true, false]
    );
    let attested = attested("f", "d", &[(GROUP, Read)]);
    let refused = accounts.add_attested_device(&attested, &now()).unwrap();
    assert_eq!(refused, Attested::Revoked);
    // the owner may think better of it
    accounts
        .record_pending(&pending("g", "d", &[]), 9, &now())
        .unwrap();
    assert_eq!(accounts.approved("g", &[], LATE).id, "g");
}

#[test]
fn all_devices_are_revoked_at_once_and_tokens_made_by_hand_stay() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Write)]);
    accounts.add_device("e", &[(GROUP, Write)]);
    let new = session("s", Some("d"), &[(GROUP, Write)]);
    accounts.add(&new, &now()).unwrap();
    accounts
        .add(&session("token", None, &[(GROUP, Read)]), &now())
        .unwrap();
    assert_eq!(accounts.revoke_all_devices(&now()).unwrap(), 2);
    assert_eq!(accounts.revoke_all_devices(&now()).unwrap(), 0);
    let in_force = |id: &str| accounts.session(id).unwrap().unwrap().is_in_force(NOW);
    assert_eq!(["s", "token"].map(in_force), [false, true]);
    assert_eq!(accounts.revoke_all(&now()).unwrap(), 1);
    assert_eq!(accounts.revoke_all(&now()).unwrap(), 0);
    assert!(!in_force("token"));
}

#[test]
fn a_device_that_asks_again_for_less_keeps_what_it_has_and_since_when() {
    let accounts = Accounts::create();
    accounts.put_grant(APP, GROUP, Write, LATE, &now()).unwrap();
    let ask = |access, occasion: &Occasion<'_>| {
        let new = attested("phone", "key", &[(GROUP, access)]);
        accounts.add_attested_device(&new, occasion).unwrap();
        let approvals = accounts.approvals("phone").unwrap();
        approvals
            .iter()
            .map(|approval| {
                (
                    approval.access,
                    approval.created_at_ms,
                    approval.expires_at_ms,
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(Write, &now()), [(Write, NOW, LATE)]);
    // the owner lets the app in for longer, and the device asks for less
    accounts
        .put_grant(APP, GROUP, Write, LATE + 1, &now())
        .unwrap();
    let later = Occasion::at(NOW + 7);
    assert_eq!(ask(Read, &later), [(Write, NOW, LATE + 1)]);
}

#[test]
fn an_approval_answers_with_the_device_as_it_is_from_then_on() {
    let accounts = Accounts::create();
    accounts.put_grant(APP, GROUP, Read, LATE, &now()).unwrap();
    let before = attest(&accounts, &attested("phone", "key", &[(GROUP, Read)]));
    assert_eq!(before.proof, DeviceProof::Attested);
    for (name, called) in [(None, "phone"), (Some("mine"), "mine"), (None, "mine")] {
        let approval = NewApproval {
            name: name.map(Into::into),
            ..approval("phone", &[(GROUP, Write)], LATE)
        };
        let approved = accounts.approve(&approval, &now()).unwrap();
        let expected = Device {
            proof: DeviceProof::Owner,
            name: called.into(),
            ..before.clone()
        };
        assert_eq!(approved, Approved::Device(expected.clone()));
        assert_eq!(accounts.device("phone").unwrap(), Some(expected));
    }
}

#[test]
fn a_grant_that_has_ended_gives_an_approval_nothing_and_one_in_force_keeps_what_it_gave() {
    for (approved_at, expected) in [
        // with a millisecond to go, the app keeps what it had, and by name
        (NOW + 4, (Write, Some(Write), NOW, LATE)),
        (NOW + 5, (Read, None, NOW, LATE)),
    ] {
        let accounts = Accounts::create();
        accounts
            .put_grant(APP, GROUP, Write, NOW + 5, &now())
            .unwrap();
        let new = pending("p", "key", &[(GROUP, Read)]);
        accounts.record_pending(&new, 9, &now()).unwrap();
        let approval = approval("p", &[(GROUP, Read)], LATE);
        accounts
            .approve(&approval, &Occasion::at(approved_at))
            .unwrap();
        let grant = accounts.grant(APP, GROUP).unwrap().unwrap();
        let given = (
            grant.access,
            grant.attested,
            grant.created_at_ms,
            grant.expires_at_ms,
        );
        assert_eq!(given, expected, "at {approved_at}");
    }
}
