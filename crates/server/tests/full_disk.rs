//! A full disk: writes are refused and nothing of them is acknowledged, reads go on, and service returns with room.
//!
//! The disk is a small tmpfs in a mount namespace of the server's own, reached from here through `/proc`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use support::{Client, Replica, soon};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

const DISK: &str = "size=12m";

struct SmallDisk {
    server: Child,
    url: String,
    data_dir: PathBuf,
    _folder: TempDir,
}

impl SmallDisk {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let data_dir = folder.path().join("data");
        fs::create_dir(&data_dir).unwrap();
        let script = "mount -t tmpfs -o \"$1\" tmpfs \"$2\" && exec \"$0\" dev --json --port 0 --data-dir \"$2\"";
        let mut server = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .args([env!("CARGO_BIN_EXE_groundmist-sync"), DISK])
            .arg(&data_dir)
            .env_remove("GROUNDMIST_SYNC_SECRET_KEY")
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let line = soon("the server to say where it is", lines.next_line())
            .await
            .unwrap();
        let said: Value = serde_json::from_str(&line.expect("the server did not start")).unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", server.id().unwrap()));
        let data_dir = root.join(data_dir.strip_prefix("/").unwrap());
        let url = said["url"].as_str().unwrap().to_owned();
        Self {
            server,
            url,
            data_dir,
            _folder: folder,
        }
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let path = self.data_dir.join("filler");
        let mut file = File::create(&path).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[7; 4_096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        path
    }

    async fn health(&self) -> u16 {
        let address = self
            .url
            .strip_prefix("ws://")
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET /xrpc/_health HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    async fn has_health(&self, status: u16) {
        let healthy = async { while self.health().await != status {} };
        soon(&format!("health {status}"), healthy).await;
    }
}

fn long_text(letter: &str) -> String {
    // longer than the slack of the file's last page, also once compressed
    let mut text = String::new();
    let mut state = 1u64;
    while text.len() < 200_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(&format!("{letter}{state:x}"));
    }
    text
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_loses_nothing_and_goes_on_once_there_is_room() {
    assert!(
        Path::new("/proc/self/ns/user").exists(),
        "this test needs user namespaces"
    );
    let mut disk = SmallDisk::start().await;
    let mut writer = Client::join(&disk.url, "writer").await;
    let mut before = Replica::new("writer", "stored while there was room");
    writer.push(&mut before).await;
    assert_eq!(disk.health().await, 200);

    let filler = disk.fill();
    let mut refused = Replica::new("refused", &long_text("n"));
    writer.sync(&mut refused).await;
    disk.has_health(503).await;

    let mut reader = Client::join(&disk.url, "reader").await;
    let read = reader.pull(before.id).await.expect("reads go on");
    assert_eq!(read.value(), before.value());
    assert!(
        reader.pull(refused.id).await.is_none(),
        "nobody is told of what is not on disk"
    );
    assert!(!refused.is_acknowledged());

    fs::remove_file(filler).unwrap();
    disk.has_health(200).await;
    // the server asks for what it had to refuse: nobody has to write anything new
    writer.push(&mut refused).await;
    let read = reader.pull(refused.id).await.expect("it is there now");
    assert_eq!(read.value(), refused.value());
    disk.server.kill().await.unwrap();
}
