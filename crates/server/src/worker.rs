//! The worker process: the only place where a document is ever put together.
//!
//! A small hostile document can demand gigabytes or make the library panic. So this binary starts itself once more
//! as a child with little memory, little time and nothing of our environment, hands it one job after the other, and
//! takes its death for an answer. It is started when there is work, and stopped when there has been none for a while.

mod child;
mod pipe;

use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::Stdio, time::Duration};

use bytes::Bytes;
use engine::WorkOutcome;
use rustix::process::Signal;
use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, info, warn};

pub use child::run as run_child;
pub use pipe::{ExportFormat, Job};

/// The signals that a process brings upon itself by what it does; any other was sent to it. Source: signal(7).
const OF_ITS_OWN: [Signal; 7] = [
    Signal::ILL,
    Signal::ABORT,
    Signal::BUS,
    Signal::FPE,
    Signal::SEGV,
    Signal::XCPU,
    Signal::SYS,
];

/// Limits of the worker process.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The binary: this one.
    pub program: PathBuf,
    /// Most address space, in bytes.
    pub address_space_bytes: u64,
    /// How long one job may take, in seconds.
    pub job_seconds_max: u64,
    /// How long the process waits for the next job, in milliseconds.
    pub idle_ms: u64,
}

/// Who waits for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A client: before all others.
    Waiting,
    /// Nobody.
    Background,
}

/// Why a document that was to be exported cannot be put together.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ExportError {
    reason: String,
}

/// A handle on the worker process. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    waiting: mpsc::UnboundedSender<Order>,
    background: mpsc::UnboundedSender<Order>,
    stop: mpsc::Sender<oneshot::Sender<()>>,
}

struct Order {
    job: Job,
    reply: oneshot::Sender<pipe::Reply>,
}

impl Worker {
    /// A worker; its process starts with the first job.
    pub fn start(settings: WorkerSettings) -> Self {
        let (waiting, waiting_orders) = mpsc::unbounded_channel();
        let (background, background_orders) = mpsc::unbounded_channel();
        let (stop, stops) = mpsc::channel(1);
        let orders = Orders {
            waiting: waiting_orders,
            background: background_orders,
            stops,
        };
        tokio::spawn(
            Foreman {
                settings,
                process: None,
                can_start: true,
            }
            .run(orders),
        );
        Self {
            waiting,
            background,
            stop,
        }
    }

    /// Has a document indexed or compacted.
    pub async fn run(&self, job: Job, priority: Priority) -> WorkOutcome {
        match self.order(job, priority).await {
            pipe::Reply::Worked(outcome) => outcome,
            pipe::Reply::Exported(_) => WorkOutcome::Indigestible {
                reason: "the worker mixed up its jobs".into(),
            },
        }
    }

    /// A document in another form.
    ///
    /// # Errors
    /// [`ExportError`] if the chunks are no document, or more than the worker may digest.
    pub async fn export(&self, chunks: Bytes, format: ExportFormat) -> Result<Bytes, ExportError> {
        match self
            .order(Job::Export { chunks, format }, Priority::Waiting)
            .await
        {
            pipe::Reply::Exported(bytes) => Ok(bytes),
            pipe::Reply::Worked(
                WorkOutcome::Invalid { reason } | WorkOutcome::Indigestible { reason },
            ) => Err(ExportError { reason }),
            pipe::Reply::Worked(WorkOutcome::Unavailable) => Err(ExportError {
                reason: "the worker process cannot be started".into(),
            }),
            pipe::Reply::Worked(WorkOutcome::Done { .. }) => Err(ExportError {
                reason: "the worker mixed up its jobs".into(),
            }),
        }
    }

    /// Ends the process; what it was at is lost, and is done again after the next start.
    pub async fn stop(&self) {
        let (done, is_done) = oneshot::channel();
        if self.stop.send(done).await.is_ok() {
            is_done.await.ok();
        }
    }

    async fn order(&self, job: Job, priority: Priority) -> pipe::Reply {
        let (reply, answer) = oneshot::channel();
        let orders = match priority {
            Priority::Waiting => &self.waiting,
            Priority::Background => &self.background,
        };
        drop(orders.send(Order { job, reply }));
        answer
            .await
            // the server is shutting down
            .unwrap_or_else(|_| pipe::Reply::unavailable())
    }
}

struct Orders {
    waiting: mpsc::UnboundedReceiver<Order>,
    background: mpsc::UnboundedReceiver<Order>,
    stops: mpsc::Receiver<oneshot::Sender<()>>,
}

enum Next {
    Order(Order),
    Stop(oneshot::Sender<()>),
    Gone,
}

impl Orders {
    async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            stop = self.stops.recv() => stop.map_or(Next::Gone, Next::Stop),
            order = self.waiting.recv() => order.map_or(Next::Gone, Next::Order),
            order = self.background.recv() => order.map_or(Next::Gone, Next::Order),
        }
    }
}

/// Keeps the process, and gives it one job at a time.
struct Foreman {
    settings: WorkerSettings,
    process: Option<Process>,
    /// Whether the last process that was to start did: that none does is said once.
    can_start: bool,
}

/// How a job went that was handed to the process.
enum Tried {
    Answered(pipe::Reply),
    /// Somebody has ended the process, if only the kernel for want of memory, or whoever ends the server: that says
    /// little of the document.
    Killed,
    /// It took too long, which may be for want of a processor: a machine or a container that was stopped meanwhile does
    /// not know it.
    Late,
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// Whether it has said so. What ends it before is no document's fault.
    is_ready: bool,
}

impl Foreman {
    async fn run(mut self, mut orders: Orders) {
        let idle = Duration::from_millis(self.settings.idle_ms);
        loop {
            let next = if self.process.is_some() {
                let Ok(next) = timeout(idle, orders.next()).await else {
                    self.end().await;
                    continue;
                };
                next
            } else {
                orders.next().await
            };
            match next {
                Next::Order(order) => {
                    let stop = self.serve(order, &mut orders.stops).await;
                    if let Some(done) = stop {
                        self.end().await;
                        done.send(()).ok();
                        return;
                    }
                }
                Next::Stop(done) => {
                    self.end().await;
                    done.send(()).ok();
                    return;
                }
                Next::Gone => return self.end().await,
            }
        }
    }

    /// Does one job, unless it is told to stop.
    async fn serve(
        &mut self,
        order: Order,
        stops: &mut mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Option<oneshot::Sender<()>> {
        tokio::select! {
            biased;
            stop = stops.recv() => stop,
            reply = self.reply(&order.job) => {
                drop(order.reply.send(reply));
                None
            }
        }
    }

    /// The reply to a job. One that may not be to blame for what befell its process is tried once more: the kernel may
    /// have been after the one beside it in memory.
    async fn reply(&mut self, job: &Job) -> pipe::Reply {
        if let Tried::Answered(reply) = self.attempt(job).await {
            return reply;
        }
        match self.attempt(job).await {
            Tried::Answered(reply) => reply,
            Tried::Killed => {
                pipe::Reply::indigestible("the worker process was killed twice while it was at it")
            }
            Tried::Late => pipe::Reply::indigestible("it took the worker too long"),
        }
    }

    async fn attempt(&mut self, job: &Job) -> Tried {
        let deadline = Duration::from_secs(self.settings.job_seconds_max);
        match timeout(deadline, self.work(job)).await {
            Ok(Ok(reply)) => Tried::Answered(reply),
            Ok(Err(error)) => self.died(&error).await,
            Err(_) => {
                let is_ready = self
                    .process
                    .as_ref()
                    .is_some_and(|process| process.is_ready);
                self.end().await;
                if is_ready {
                    Tried::Late
                } else {
                    self.cannot_start(&"it is not ready in time")
                }
            }
        }
    }

    async fn work(&mut self, job: &Job) -> std::io::Result<pipe::Reply> {
        let process = match &mut self.process {
            Some(process) => process,
            none => none.insert(spawn(&self.settings)?),
        };
        if !process.is_ready {
            pipe::receive_ready(&mut process.output).await?;
            process.is_ready = true;
            if !std::mem::replace(&mut self.can_start, true) {
                info!("the worker process starts again");
            }
        }
        pipe::send_job(&mut process.input, job).await?;
        pipe::receive_reply(&mut process.output, job).await
    }

    async fn died(&mut self, error: &std::io::Error) -> Tried {
        let Some(mut process) = self.process.take() else {
            return self.cannot_start(error);
        };
        // one that is ending keeps the status that it ends with
        process.child.start_kill().ok();
        let made_no_sense = error.kind() == std::io::ErrorKind::InvalidData;
        match process.child.wait().await {
            Ok(status) if !process.is_ready => {
                self.cannot_start(&format_args!("it ended before its first job ({status})"))
            }
            Ok(status) if status.signal().is_some_and(was_sent) && !made_no_sense => {
                warn!("the worker process was killed");
                Tried::Killed
            }
            Ok(status) => {
                let reason = format!("the worker process died of it ({status})");
                Tried::Answered(pipe::Reply::indigestible(&reason))
            }
            Err(error) => {
                let reason = format!("the worker process is lost ({error})");
                Tried::Answered(pipe::Reply::indigestible(&reason))
            }
        }
    }

    fn cannot_start(&mut self, why: &dyn std::fmt::Display) -> Tried {
        if std::mem::replace(&mut self.can_start, false) {
            warn!("cannot start the worker process: {why}; its jobs wait until it can be");
        }
        Tried::Answered(pipe::Reply::unavailable())
    }

    /// Ends the process, if there is one. It has nothing to lose.
    async fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.child.kill().await.ok();
            debug!("the worker process has ended");
        }
    }
}

/// Whether a signal that has ended a process came from somebody else.
fn was_sent(signal: i32) -> bool {
    OF_ITS_OWN.iter().all(|own| own.as_raw() != signal)
}

fn spawn(settings: &WorkerSettings) -> std::io::Result<Process> {
    let mut child = Command::new(&settings.program)
        .arg("worker")
        .arg(format!(
            "--address-space-bytes={}",
            settings.address_space_bytes
        ))
        .arg(format!("--job-seconds-max={}", settings.job_seconds_max))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // what a library says when it panics may hold contents of the document
        .stderr(Stdio::null())
        .kill_on_drop(true)
        // what is meant for the server, as at a terminal, is not for it
        .process_group(0)
        .spawn()?;
    let (input, output) = child
        .stdin
        .take()
        .zip(child.stdout.take())
        .ok_or_else(|| std::io::Error::other("a child that was given pipes has none"))?;
    debug!("the worker process has started");
    Ok(Process {
        child,
        input,
        output,
        is_ready: false,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tempfile::TempDir;

    use super::*;

    /// What comes of a job whose workers do this, in words of the shell, and how many there were.
    async fn outcome(does: &str) -> (WorkOutcome, usize) {
        let folder = TempDir::new().unwrap();
        let (program, starts) = (folder.path().join("worker"), folder.path().join("starts"));
        let script = format!("#!/bin/sh\necho >> {}\n{does}\n", starts.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let worker = Worker::start(WorkerSettings {
            program,
            address_space_bytes: 1 << 30,
            job_seconds_max: 1,
            idle_ms: 60_000,
        });
        let chunks = Bytes::from_static(b"a document");
        let outcome = worker.run(Job::Index { chunks }, Priority::Waiting).await;
        worker.stop().await;
        (outcome, fs::read_to_string(starts).unwrap().lines().count())
    }

    fn is_blamed(outcome: &WorkOutcome, why: &str) -> bool {
        matches!(outcome, WorkOutcome::Indigestible { reason } if reason.starts_with(why))
    }

    /// What a worker does that is ready.
    const IS_READY: &str = "printf '\\007'";

    #[tokio::test]
    async fn a_job_at_which_two_workers_were_killed_finds_no_third() {
        let (outcome, workers) = outcome(&format!("{IS_READY}; kill -9 $$")).await;
        let why = "the worker process was killed twice while it was at it";
        assert!(is_blamed(&outcome, why), "{outcome:?}");
        assert_eq!(workers, 2);
    }

    /// The machine, or the container, may have stood still.
    #[tokio::test]
    async fn a_job_that_takes_too_long_is_tried_once_more() {
        let (outcome, workers) = outcome(&format!("{IS_READY}; exec sleep 60")).await;
        assert!(
            is_blamed(&outcome, "it took the worker too long"),
            "{outcome:?}"
        );
        assert_eq!(workers, 2);
    }

    #[tokio::test]
    async fn a_worker_that_dies_of_a_job_is_not_followed_by_another() {
        let (outcome, workers) = outcome(&format!("{IS_READY}; exit 3")).await;
        assert!(
            is_blamed(&outcome, "the worker process died of it"),
            "{outcome:?}"
        );
        assert_eq!(workers, 1);
    }

    /// It has seen no document: there may be less memory than it is to have, or the kernel was after somebody's.
    #[tokio::test]
    async fn what_befalls_a_worker_before_it_is_ready_is_no_documents_fault() {
        for does in [
            "exit 1",
            "kill -9 $$",
            "kill -6 $$",
            "exec sleep 60",
            "echo nonsense",
        ] {
            let (outcome, _) = outcome(does).await;
            assert!(
                matches!(outcome, WorkOutcome::Unavailable),
                "{does}: {outcome:?}"
            );
        }
    }
}
