//! `groundmist-sync init` and `publish` when the name server, the web server of a handle or the PDS is not well: they end
//! in time, and say in one line what they did not do, or may have done.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    fs,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use support::{
    Output,
    identity::{OWNER, STRANGER, World},
    neighbour::{STATES, State, answer, neighbour, request},
    outcome, run,
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
};

/// How long a call to another server may take.
const CALL: Duration = Duration::from_secs(5);
/// How long the machine may be busy around that.
const BUSY: Duration = Duration::from_secs(4);
const PASSWORD: &str = "abcd-efgh-ijkl-mnop";

/// Runs a command in a folder of its own, which must end in time; with what is in its config.toml afterwards.
async fn run_within(
    time: Duration,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> (Output, Option<String>) {
    let (folder, begun) = (TempDir::new().unwrap(), Instant::now());
    let output = run(folder.path(), variables, arguments).await;
    assert!(begun.elapsed() < time, "{:?}: {output:?}", begun.elapsed());
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains(PASSWORD), "{said}");
    let is_obeyed = |char: char| char.is_control() && char != '\n';
    assert!(!said.contains(is_obeyed), "{said:?}");
    let config = fs::read_to_string(folder.path().join("config.toml")).ok();
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, usize::from(config.is_some()), "no draft is left");
    (output, config)
}

fn assert_fails_in_one_line(output: &Output, words: &[&str]) {
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word} in {output:?}");
    }
}

/// A PDS that is well but for some methods, and what it was asked for.
async fn pds(faulty: &'static [&'static str], state: State) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, faulty, state, Arc::clone(&seen)));
        }
    });
    (url, asked)
}

async fn serve(
    mut stream: TcpStream,
    faulty: &[&str],
    state: State,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let Some(request) = request(&mut stream).await else {
        return;
    };
    let path = request.split(' ').nth(1).unwrap();
    let method = path.rsplit('.').next().unwrap().to_owned();
    asked.lock().unwrap().push(method.clone());
    if faulty.contains(&method.as_str()) {
        return answer(stream, state).await;
    }
    let body = match method.as_str() {
        "createSession" => {
            json!({ "did": OWNER, "accessJwt": "access-secret", "refreshJwt": "refresh-secret" })
        }
        "putRecord" => json!({ "uri": "at://...", "cid": "x" }),
        _ => json!({}),
    };
    let body = body.to_string();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.ok();
}

/// What `publish` says with a PDS that is so at these methods, and what the PDS was asked for.
async fn publish(
    faulty: &'static [&'static str],
    state: State,
    arguments: &[&str],
) -> (Output, Vec<String>) {
    let world = World::new().await;
    let (url, asked) = pds(faulty, state).await;
    let variables = [
        ("ATPROTO_DID", OWNER),
        (
            "GROUNDMIST_SYNC_PLC_URL",
            &format!("http://{}", world.address),
        ),
        ("GROUNDMIST_SYNC_PUBLIC_URL", "http://localhost:3031"),
        (
            "GROUNDMIST_SYNC_TEST_HOST_MAP",
            &format!("https://pds.example.dev={url}"),
        ),
        ("PASSWORD", PASSWORD),
    ];
    let time = CALL * u32::try_from(faulty.len()).unwrap() + BUSY;
    let all = [&["publish"][..], arguments].concat();
    let (output, _) = run_within(time, &variables, &all).await;
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains("-secret"), "{said}");
    let asked = asked.lock().unwrap().clone();
    (output, asked)
}

#[tokio::test]
async fn a_pds_that_is_not_well_at_a_sign_in_is_asked_for_no_more_and_nothing_was_changed() {
    let tries = STATES.map(async |state| {
        let (output, asked) = publish(&["createSession"], state, &[]).await;
        assert_fails_in_one_line(&output, &["nothing was changed"]);
        assert!(!output.stderr.contains("may have"), "{state:?}: {output:?}");
        assert_eq!(asked, ["createSession"], "{state:?}");
    });
    join_all(tries).await;
}

#[tokio::test]
async fn a_pds_that_is_not_well_when_it_is_to_write_may_have_written_and_that_is_said() {
    const MAY_HAVE: &[&str] = &[
        "may have done it, or not",
        "`groundmist-sync publish --show`",
    ];
    let tries = STATES.map(async |state| {
        let put = publish(&["putRecord"], state, &[]);
        let all_of_it = publish(&["putRecord", "deleteSession"], state, &[]);
        let remove = publish(&["deleteRecord"], state, &["--remove"]);
        let (put, all_of_it, remove) = tokio::join!(put, all_of_it, remove);
        for (output, asked) in [&put, &all_of_it] {
            assert_fails_in_one_line(output, MAY_HAVE);
            // the session is ended all the same
            assert_eq!(asked, &["createSession", "putRecord", "deleteSession"]);
        }
        // what is answered to a removal says nothing, and so may be nonsense
        if state != State::Nonsense {
            assert_fails_in_one_line(&remove.0, MAY_HAVE);
        }
    });
    join_all(tries).await;
}

#[tokio::test]
async fn a_session_that_could_not_be_ended_does_not_undo_what_was_published() {
    let tries = STATES.map(async |state| {
        let (output, _) = publish(&["deleteSession"], state, &[]).await;
        assert!(output.line().starts_with("published at"), "{output:?}");
        // whatever it says with a status of success
        let lines = usize::from(state != State::Nonsense);
        assert_eq!(output.stderr.lines().count(), lines, "{output:?}");
    });
    join_all(tries).await;
}

/// How a name server is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dns {
    Down,
    Silent,
    NoSuchName,
    ServerFailure,
    Refused,
    Nonsense,
    /// Somebody else answers, who does not know the id of the question.
    Forged,
    /// It says that there is more over TCP, and is silent there.
    Truncated,
    Good,
}

const BAD_DNS: [Dns; 8] = [
    Dns::Down,
    Dns::Silent,
    Dns::NoSuchName,
    Dns::ServerFailure,
    Dns::Refused,
    Dns::Nonsense,
    Dns::Forged,
    Dns::Truncated,
];

/// Where a name server like this is.
async fn name_server(dns: Dns) -> String {
    // whoever comes by TCP is connected by the kernel, and hears nothing
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    if dns == Dns::Down {
        return address.to_string();
    }
    let Ok(socket) = UdpSocket::bind(address).await else {
        // somebody has that port, for UDP alone
        return Box::pin(name_server(dns)).await;
    };
    tokio::spawn(async move {
        let (_silent, mut buffer) = (listener, [0; 512]);
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            if let Some(reply) = reply(dns, &buffer[..length]) {
                socket.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    address.to_string()
}

/// What is answered to a question. Source: RFC 1035, section 4.
fn reply(dns: Dns, asked: &[u8]) -> Option<Vec<u8>> {
    let with = |flags: [u8; 2]| Some([&asked[..2], &flags, &asked[4..]].concat());
    match dns {
        Dns::Down | Dns::Silent => None,
        Dns::NoSuchName => with([0x81, 0x83]),
        Dns::ServerFailure => with([0x81, 0x82]),
        Dns::Refused => with([0x81, 0x85]),
        Dns::Truncated => with([0x83, 0x80]),
        Dns::Nonsense => Some(b"\x1b]0;owned\x07".repeat(9)),
        Dns::Forged => {
            let mut forged = record(asked, STRANGER);
            forged[1] ^= 1;
            Some(forged)
        }
        Dns::Good => Some(record(asked, OWNER)),
    }
}

/// A TXT record with this DID.
fn record(asked: &[u8], did: &str) -> Vec<u8> {
    let name = asked[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &asked[12..12 + name + 5];
    let text = format!("did={did}");
    let length = u8::try_from(text.len()).unwrap();
    let head = [asked[0], asked[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    // its name is that of the question; TXT, IN, a minute
    let answer = [0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 60, 0, length + 1, length];
    [&head, question, &answer, text.as_bytes()].concat()
}

/// The world of alice.test, whose web server is at `web`; if that is nothing, it is well, and names the owner.
async fn lookup(
    dns: Dns,
    web: Option<State>,
    others: &[(&str, &str)],
    arguments: &[&str],
) -> (Output, Option<String>) {
    let world = World::new().await;
    world.serve_status("/.well-known/atproto-did", 200, OWNER);
    let here = format!("http://{}", world.address);
    let web = match web {
        Some(state) => neighbour(state).await,
        None => here.clone(),
    };
    let (map, dns) = (format!("https://alice.test={web}"), name_server(dns).await);
    let variables = [
        ("GROUNDMIST_SYNC_PLC_URL", here.as_str()),
        ("GROUNDMIST_SYNC_TEST_HOST_MAP", &map),
        ("GROUNDMIST_SYNC_TEST_DNS", &dns),
    ];
    run_within(CALL + BUSY, &[&variables[..], others].concat(), arguments).await
}

/// They stayed for as long as the system went on looking, after they had said that it takes too long.
#[tokio::test]
async fn commands_do_not_wait_for_a_system_that_looks_for_a_name_in_vain() {
    // a network of their own, in which what is sent to the name server is lost
    let script = "ip link set lo up && ip route add 192.0.2.0/24 dev lo && \
                  mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"";
    let cut_off = async |arguments: &[&str]| {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "--net"])
            .args([
                "sh",
                "-c",
                script,
                "sh",
                env!("CARGO_BIN_EXE_groundmist-sync"),
            ])
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("ATPROTO_DID", OWNER)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let begun = Instant::now();
        let output = outcome(command).await;
        assert!(begun.elapsed() < CALL + BUSY, "{:?}", begun.elapsed());
        assert_fails_in_one_line(&output, &["5 seconds"]);
    };
    tokio::join!(cut_off(&INIT), cut_off(&["publish", "--show"]));
}

const INIT: [&str; 3] = ["init", "--handle", "alice.test"];

#[tokio::test]
async fn a_handle_is_found_by_its_web_server_whatever_is_wrong_with_the_name_server() {
    let tries = BAD_DNS.map(async |dns| {
        let (output, config) = lookup(dns, None, &[], &INIT).await;
        assert!(output.line().contains(OWNER), "{dns:?}: {output:?}");
        assert!(config.unwrap().contains(OWNER), "{dns:?}");
    });
    join_all(tries).await;
}

#[tokio::test]
async fn a_handle_is_found_by_the_name_server_whatever_is_wrong_with_its_web_server() {
    let tries = STATES.map(async |web| {
        let (output, config) = lookup(Dns::Good, Some(web), &[], &INIT).await;
        assert!(output.line().contains(OWNER), "{web:?}: {output:?}");
        assert!(config.unwrap().contains(OWNER), "{web:?}");
    });
    join_all(tries).await;
}

#[tokio::test]
async fn a_handle_that_neither_finds_is_said_in_time_with_both_reasons_and_nothing_is_written() {
    let by_dns = BAD_DNS.map(|dns| (dns, State::Silent));
    let by_web = STATES.map(|web| (Dns::Silent, web));
    let tries = by_dns.into_iter().chain(by_web).map(async |(dns, web)| {
        let (output, config) = lookup(dns, Some(web), &[], &INIT).await;
        let words = [
            "neither the DNS",
            "https://alice.test/.well-known/atproto-did",
        ];
        assert_fails_in_one_line(&output, &words);
        assert_eq!(config, None, "{dns:?} {web:?}");
    });
    join_all(tries).await;
}

#[tokio::test]
async fn init_by_did_notes_that_the_handle_does_not_lead_back_in_one_comment() {
    let tries = BAD_DNS.map(async |dns| {
        let arguments = ["init", "--did", OWNER];
        let (output, config) = lookup(dns, Some(State::Nonsense), &[], &arguments).await;
        assert!(output.line().contains("does not lead back"), "{output:?}");
        let config = config.unwrap();
        let settings = config
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        assert_eq!(
            settings.collect::<Vec<_>>(),
            [format!("owner = \"{OWNER}\"")]
        );
    });
    join_all(tries).await;
}

#[tokio::test]
async fn publish_for_a_handle_that_nobody_finds_ends_in_time_and_sends_no_password() {
    let (pds, asked) = pds(&[], State::Down).await;
    let map = format!("https://pds.example.dev={pds}");
    let tries = BAD_DNS.map(async |dns| {
        let others = [
            ("ATPROTO_DID", OWNER),
            ("GROUNDMIST_SYNC_PUBLIC_URL", "http://localhost:3031"),
            // in place of the other one
            ("GROUNDMIST_SYNC_TEST_HOST_MAP", map.as_str()),
            ("HANDLE", "mallory.test"),
            ("PASSWORD", PASSWORD),
        ];
        let (output, _) = lookup(dns, None, &others, &["publish"]).await;
        assert_fails_in_one_line(&output, &["HANDLE (publish.handle) leads nowhere"]);
    });
    join_all(tries).await;
    assert!(asked.lock().unwrap().is_empty());
}
