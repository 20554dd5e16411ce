//! The directory of accounts, the apps' servers and the PDS are down, slow or talk nonsense: whoever needs them is told so
//! in time, and whoever does not notices nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use support::{
    Client, Replica, Server,
    app::App,
    identity::{APP, Device, OWNER, World},
    neighbour::{STATES, State, neighbour},
    run,
};
use tokio::time::interval;

/// Longer than a call to another server may take (5 s), and than the server is busy around it.
const IN_TIME: Duration = Duration::from_secs(9);

/// The environment of a server all of whose neighbours are at this URL.
fn variables(url: &str) -> Vec<(String, String)> {
    vec![
        ("ATPROTO_DID".into(), OWNER.into()),
        ("GROUNDMIST_SYNC_PLC_URL".into(), url.into()),
        (
            "GROUNDMIST_SYNC_TEST_HOST_MAP".into(),
            format!("{APP}={url}"),
        ),
    ]
}

async fn both_doors_say_so(state: State) {
    let world = World::new().await;
    let url = neighbour(state).await;
    let server = Server::start_in_world(&[], variables(&url)).await;
    assert_eq!(server.cli(&["devices", "open"]).await.code, Some(0));
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;

    let (device, wish) = (Device::in_browser(), Server::wish());
    let app = App::new(&server, &world);
    let begun = Instant::now();
    let doors = async {
        let (first, second) = tokio::join!(server.authenticate(&device, &wish), app.request());
        assert!(
            begun.elapsed() < IN_TIME,
            "{state:?}: {:?}",
            begun.elapsed()
        );
        assert_eq!(
            first.outcome(),
            (403, "unverified_client".into()),
            "{state:?}"
        );
        let expected = (503, "IdentityUnavailable".into());
        assert_eq!(second.outcome(), expected, "{state:?}: {second:?}");
    };
    let edits = async {
        let mut pace = interval(Duration::from_millis(100));
        for edit in 0..20 {
            pace.tick().await;
            let begun = Instant::now();
            writer.edit(&mut note, &edit.to_string()).await;
            assert!(begun.elapsed() < Duration::from_secs(3), "{state:?}");
        }
    };
    tokio::join!(doors, edits);
    assert_eq!(server.http("/xrpc/_health", &[]).await.0, 200);
}

#[tokio::test]
async fn both_doors_say_in_time_that_a_neighbour_is_away_and_sockets_go_on() {
    join_all(STATES.map(both_doors_say_so)).await;
}

async fn commands_say_so(state: State) {
    let url = neighbour(state).await;
    let folder = tempfile::TempDir::new().unwrap();
    let variables = [
        ("ATPROTO_DID", OWNER),
        ("GROUNDMIST_SYNC_PLC_URL", &url),
        ("GROUNDMIST_SYNC_PUBLIC_URL", "http://localhost:3031"),
    ];
    let begun = Instant::now();
    let init = ["init", "--did", OWNER, "--plc-url", &url];
    let publish = ["publish", "--show"];
    let outputs = tokio::join!(
        run(folder.path(), &variables[1..], &init),
        run(folder.path(), &variables, &publish)
    );
    assert!(
        begun.elapsed() < IN_TIME,
        "{state:?}: {:?}",
        begun.elapsed()
    );
    for output in [outputs.0, outputs.1] {
        assert_eq!(output.code, Some(1), "{state:?}: {output:?}");
        assert!(
            output.stderr.contains("DID document"),
            "{state:?}: {output:?}"
        );
        assert!(!output.stderr.contains('\u{1b}'), "{output:?}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{state:?}: {left:?}");
}

#[tokio::test]
async fn init_and_publish_say_in_time_that_the_directory_is_away_and_write_nothing() {
    join_all(STATES.map(commands_say_so)).await;
}

#[tokio::test]
async fn a_directory_that_is_there_again_is_asked_again_and_devices_come_in() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    world.serve_status(&format!("/{OWNER}"), 500, "{}");
    let answer = app.request().await;
    assert_eq!(answer.outcome(), (503, "IdentityUnavailable".into()));
    world.publish_keys(&[("#atproto", &world.signing.multikey())]);
    assert_eq!(server.cli(&["devices", "open"]).await.code, Some(0));
    // a failure is kept for half a minute, so that nobody can have the directory flooded
    let back = async {
        let mut pace = interval(Duration::from_secs(1));
        loop {
            pace.tick().await;
            let answer = app.request().await;
            if answer.status == 200 {
                return answer;
            }
            assert_eq!(answer.outcome(), (503, "IdentityUnavailable".into()));
        }
    };
    let answer = support::within(Duration::from_secs(40), "the directory", back).await;
    assert_eq!(answer.json()["status"], "pending", "{answer:?}");
}
