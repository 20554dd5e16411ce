//! The server as a process, and its command line.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
};

use super::{disk::Disk, soon, within};

/// A server for development, `groundmist-sync dev`, that is killed when it is dropped.
pub struct Server {
    child: Child,
    /// Everything it has written to standard error since it was started.
    errors: watch::Receiver<String>,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    // both kept until the end, and across restarts
    folder: TempDir,
    disk: Option<Disk>,
    pub url: String,
    pub token: String,
    pub group: String,
    pub try_url: String,
    pub address: SocketAddr,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; nothing if a signal has ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stdout_bytes: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// What it printed, without the line's end.
    pub fn line(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.trim_end()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(self.line()).unwrap()
    }
}

/// Runs a command to its end, in `folder`, with nothing in its environment but `variables`.
pub async fn run(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = command(folder, None, arguments);
    command.envs(variables.iter().copied());
    outcome(command).await
}

/// Runs a command to its end. What it writes is in the outcome if that is piped, as [`command`] has it.
pub async fn outcome(mut command: Command) -> Output {
    // not `output`, which would pipe what is to go elsewhere
    let child = command.spawn().unwrap();
    let output = soon("the command to end", child.wait_with_output())
        .await
        .unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stdout_bytes: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

/// No settings but those that are given: nothing from the environment or the working directory of the tests.
pub fn command(folder: &Path, disk: Option<&Disk>, arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_groundmist-sync");
    let mut command = match disk {
        Some(disk) => disk.command(program),
        None => Command::new(program),
    };
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With flags of `dev` besides the usual ones.
    pub async fn start_with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        Self::start_in(TempDir::new().unwrap(), None, flags, vec![]).await
    }

    /// With its data on a disk of this size, these lines in its settings file, and these variables.
    pub async fn start_on_disk(size: &str, config: &str, variables: Vec<(String, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let disk = Disk::mounted(folder.path(), size).await;
        Self::start_in(
            folder,
            Some(disk),
            vec!["--log".into(), "info".into()],
            variables,
        )
        .await
    }

    /// The disk that it has for itself.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    /// With these variables in its environment, and in that of [`Server::cli`].
    pub async fn start_in_world(flags: &[&str], variables: Vec<(String, String)>) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        Self::start_in(TempDir::new().unwrap(), None, flags, variables).await
    }

    /// With this working directory, whose folder `data` is the data directory.
    async fn start_in(
        folder: TempDir,
        disk: Option<Disk>,
        flags: Vec<String>,
        variables: Vec<(String, String)>,
    ) -> Self {
        let mut arguments = vec!["dev", "--json", "--data-dir", "data"];
        if !flags.iter().any(|flag| flag == "--port") {
            arguments.extend(["--port", "0"]);
        }
        arguments.extend(flags.iter().map(String::as_str));
        let mut command = command(folder.path(), disk.as_ref(), &arguments);
        command.envs(variables.iter().cloned());
        let mut child = command.spawn().unwrap();
        let errors = collect(child.stderr.take().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("the server to say where it is", lines.next_line()).await;
        let Some(line) = line.unwrap() else {
            panic!("the server did not start: {}", errors.borrow().as_str());
        };
        let said: Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        let url = text("url");
        let address = url.strip_prefix("ws://").unwrap().split('/').next();
        Self {
            child,
            errors,
            flags,
            variables,
            folder,
            disk,
            address: address.unwrap().parse().unwrap(),
            url,
            token: text("token"),
            group: text("group"),
            try_url: text("tryUrl"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The number that the next file or socket gets that it opens.
    pub fn next_file(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.child.id().unwrap());
        let is_free = |number: &u64| fs::symlink_metadata(format!("{folder}/{number}")).is_err();
        (0..).find(is_free).unwrap()
    }

    /// Lets the numbers of its files and sockets be below this one alone; which one it was before.
    pub fn limit_files(&self, files_max: u64) -> u64 {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        let before = prlimit(
            pid,
            Resource::Nofile,
            Rlimit {
                current: Some(files_max),
                maximum: getrlimit(Resource::Nofile).maximum,
            },
        );
        before.unwrap().current.unwrap()
    }

    /// The working directory of the server and of [`Server::cli`].
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.root().to_owned(),
            None => self.folder.path().join("data"),
        }
    }

    /// The file of a group.
    pub fn group_file(&self, group: &str) -> PathBuf {
        self.data_dir().join("groups").join(format!("{group}.db"))
    }

    /// Where a WebSocket is to go that brings this token.
    pub fn url_with(&self, token: &str) -> String {
        format!("ws://{}/?token={token}", self.address)
    }

    /// Ends it as `kill` does, and starts another one on the same data; its port is another one too.
    pub async fn restart(mut self) -> Self {
        assert_eq!(self.terminate().await.code(), Some(0));
        Self::start_in(self.folder, self.disk, self.flags, self.variables).await
    }

    /// The same on this port, so that it keeps its name.
    pub async fn restart_at(mut self, port: &str) -> Self {
        assert_eq!(self.terminate().await.code(), Some(0));
        self.flags.extend(["--port".into(), port.into()]);
        Self::start_in(self.folder, self.disk, self.flags, self.variables).await
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub async fn ended(&mut self) -> ExitStatus {
        soon("the server to end", self.child.wait()).await.unwrap()
    }

    /// Ends it as a power cut does, as far as the process is concerned.
    pub async fn kill_9(&mut self) {
        self.child.start_kill().unwrap();
        self.ended().await;
    }

    /// Starts a server on the data of one that has ended.
    pub async fn start_again(self) -> Self {
        Self::start_in(self.folder, self.disk, self.flags, self.variables).await
    }

    /// Runs a command on the data of this server, which may go on meanwhile.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut all = arguments.to_vec();
        all.extend(["--data-dir", "data"]);
        let mut command = command(self.folder(), self.disk.as_ref(), &all);
        command.envs(self.variables.iter().cloned());
        outcome(command).await
    }

    /// A new token, good for twelve hours.
    pub async fn token(&self, group: &str, read_only: bool) -> String {
        let mut arguments = vec!["token", "add", "--group", group];
        arguments.extend(read_only.then_some("--read-only"));
        self.cli(&arguments).await.line().to_owned()
    }

    /// What `docs show --json` says of a document of the server's own group; nothing if there is none.
    pub async fn document(&self, id: engine::DocumentId) -> Option<Value> {
        let id = id.to_string();
        let output = self
            .cli(&["docs", "show", &id, "--json", "--group", &self.group])
            .await;
        (output.code == Some(0)).then(|| output.json())
    }

    /// What the server has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.errors.borrow().clone()
    }

    /// Waits until the server has written this to standard error.
    pub async fn has_logged(&mut self, text: &str) {
        let logged = self.errors.wait_for(|errors| errors.contains(text));
        drop(soon(text, logged).await.unwrap());
    }

    /// Waits until all that the server has written to standard error is here; it must have ended.
    pub async fn all_stderr(&mut self) -> String {
        let end = async { while self.errors.changed().await.is_ok() {} };
        soon("the end of standard error", end).await;
        self.stderr()
    }

    /// Most memory that the server has had so far, in bytes, its worker process not included.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// How much processor time it has used, its worker process not included, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        ticks(11) + ticks(12)
    }

    /// Whether it has this file open.
    pub fn has_open(&self, path: &Path) -> bool {
        let path = path.canonicalize().unwrap();
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // one may be closed while it is looked at
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .any(|open| open == path)
    }

    /// One HTTP request: the status code, and everything behind the status line.
    pub async fn http(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| *name == "Connection") {
            request.push_str("Connection: close\r\n");
        }
        request.push_str("\r\n");
        let answer = soon("an answer over HTTP", self.ask(&request)).await;
        let (line, rest) = answer.split_once("\r\n").unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        (status, rest.to_owned())
    }

    /// What a WebSocket handshake is answered with, when that is not a WebSocket.
    pub async fn refusal(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut all = vec![
            ("Connection", "Upgrade, close"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        all.extend(headers);
        self.http(path, &all).await
    }

    pub(super) async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![];
        // a socket that was upgraded stays open: its head is all that there is to read
        let mut buffer = [0; 4_096];
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            answer.extend_from_slice(&buffer[..count]);
            if count == 0 || answer.starts_with(b"HTTP/1.1 101") {
                return String::from_utf8_lossy(&answer).into();
            }
        }
    }

    /// Waits until health is answered with this status, and says with which words.
    pub async fn has_health(&self, status: u16) -> String {
        let healthy = async {
            loop {
                let (found, body) = self.http("/xrpc/_health", &[]).await;
                if found == status {
                    return body;
                }
            }
        };
        soon(&format!("health {status}"), healthy).await
    }

    /// Waits, for a second and no longer, until a request over HTTP is answered so.
    pub async fn answers_within_a_second(&self, path: &str, status: u16) {
        let asked = async { while self.http(path, &[]).await.0 != status {} };
        within(std::time::Duration::from_secs(1), "the other answer", asked).await;
    }
}

fn collect(mut stream: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            sender.send_modify(|all| all.push_str(&text));
        }
    });
    receiver
}
