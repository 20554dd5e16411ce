//! A disk of a server's own: a small tmpfs in a mount namespace, which is there for as long as somebody holds it, and what
//! can happen to it. It needs no root, but a kernel that lets users have namespaces.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
};

use super::soon;

/// A disk, mounted at the folder `data` of a working directory.
pub struct Disk {
    holder: Child,
    root: PathBuf,
}

impl Disk {
    /// One of so many bytes, in the words of tmpfs.
    pub async fn mounted(folder: &Path, size: &str) -> Self {
        let data_dir = folder.join("data");
        fs::create_dir(&data_dir).unwrap();
        let script =
            "mount -t tmpfs -o \"size=$1,mode=700\" tmpfs data && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                size,
            ])
            .current_dir(folder)
            // it ends with this
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let line = soon("the disk", lines.next_line()).await.unwrap();
        assert_eq!(
            line.as_deref(),
            Some("mounted"),
            "this test needs user namespaces"
        );
        let root = PathBuf::from(format!("/proc/{}/root", holder.id().unwrap()));
        let root = root.join(data_dir.strip_prefix("/").unwrap());
        Self { holder, root }
    }

    /// Its topmost folder, as it can be reached from outside.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A command that sees the disk.
    pub fn command(&self, program: &str) -> Command {
        let holder = self.holder.id().unwrap();
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--mount", "--target", &holder.to_string()])
            .arg(format!("--wd=/proc/{holder}/cwd"))
            .arg(program);
        command
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let mut block = &[7; 4_096][..];
        loop {
            match file.write(block) {
                Ok(_) => {}
                Err(error) if block.len() > 1 => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                    block = &block[..1];
                }
                Err(_) => return,
            }
        }
    }

    /// Leaves this much free, and no more.
    pub fn fill_but(&self, bytes: u64) {
        self.fill();
        let file = File::options().write(true).open(self.filler()).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(bytes)).unwrap();
    }

    /// Makes room again.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Mounts it anew with these options; what `mount` says, if it says no.
    pub async fn remount(&self, options: &str) -> Result<(), String> {
        let mount = self
            .command("mount")
            .args(["-o", &format!("remount,{options}"), "data"])
            .output()
            .await;
        let output = mount.unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into())
    }

    /// Has system calls of a process fail, as they do on a disk that has failed, until it is ended.
    pub async fn fail(&self, pid: u32, calls: &str, error: &str) -> Injected {
        self.inject(pid, calls, &format!("error={error}")).await
    }

    /// The same, for those that are about one file.
    pub async fn fail_at(&self, pid: u32, path: &Path, calls: &str, error: &str) -> Injected {
        let path = path.to_str().unwrap();
        self.trace(pid, calls, &format!("error={error}"), &["-P", path])
            .await
    }

    /// Has something happen at system calls of a process and of those that it starts, in the words of strace, until it
    /// is ended.
    pub async fn inject(&self, pid: u32, calls: &str, what: &str) -> Injected {
        self.trace(pid, calls, what, &[]).await
    }

    async fn trace(&self, pid: u32, calls: &str, what: &str, which: &[&str]) -> Injected {
        let mut strace = self
            .command("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{what}")])
            .args(which)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap());
        let mut first = String::new();
        soon("strace", lines.read_line(&mut first)).await.unwrap();
        assert!(first.contains("attached"), "{first}");
        Injected {
            strace,
            _lines: lines,
        }
    }
}

/// System calls at which something happens.
pub struct Injected {
    strace: Child,
    // who would not read them, would have it wait
    _lines: BufReader<ChildStderr>,
}

impl Injected {
    /// It does not any more.
    pub async fn end(mut self) {
        let pid = Pid::from_raw(self.strace.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        soon("strace to let go", self.strace.wait()).await.unwrap();
    }
}
