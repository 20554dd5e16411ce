//! What goes through the pipes between the server and its worker process.
//!
//! A job is one byte for its kind, eight for the length of its chunks (little endian), and the chunks; a reply is one
//! byte for its kind and its fields, each with its length before it. Both ends are the same binary.

use std::io::{self, Read, Write};

use bytes::Bytes;
use engine::{ChangeHash, WorkOutcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest field of a reply, in bytes: longer than anything that fits into the worker's memory is a lie.
const FIELD_BYTES_MAX: u64 = 4 << 30;

/// What the worker is asked to do. Chunks stand one after the other.
#[derive(Debug, Clone)]
pub enum Job {
    /// Check a pushed whole-document chunk and work out its index.
    Index {
        /// The pushed chunk.
        chunks: Bytes,
    },
    /// Make one snapshot of all chunks and prove that it is the same document.
    Compact {
        /// All chunks.
        chunks: Bytes,
    },
    /// Give the document in another form.
    Export {
        /// All chunks.
        chunks: Bytes,
        /// The form.
        format: ExportFormat,
    },
}

/// A form of a whole document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A file that every Automerge library loads.
    Automerge,
    /// The values alone, without their history.
    Json,
}

/// What the worker answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Worked(WorkOutcome),
    Exported(Bytes),
}

impl Reply {
    pub(super) fn indigestible(reason: &str) -> Self {
        Self::Worked(WorkOutcome::Indigestible {
            reason: reason.into(),
        })
    }

    pub(super) const fn unavailable() -> Self {
        Self::Worked(WorkOutcome::Unavailable)
    }

    pub(super) fn invalid(reason: &str) -> Self {
        Self::Worked(WorkOutcome::Invalid {
            reason: reason.into(),
        })
    }
}

impl Job {
    fn kind(&self) -> u8 {
        match self {
            Self::Index { .. } => 0,
            Self::Compact { .. } => 1,
            Self::Export {
                format: ExportFormat::Automerge,
                ..
            } => 2,
            Self::Export {
                format: ExportFormat::Json,
                ..
            } => 3,
        }
    }

    fn of_kind(kind: u8, chunks: Bytes) -> io::Result<Self> {
        Ok(match kind {
            0 => Self::Index { chunks },
            1 => Self::Compact { chunks },
            2 => Self::Export {
                chunks,
                format: ExportFormat::Automerge,
            },
            3 => Self::Export {
                chunks,
                format: ExportFormat::Json,
            },
            _ => return Err(malformed()),
        })
    }

    fn chunks(&self) -> &Bytes {
        match self {
            Self::Index { chunks } | Self::Compact { chunks } | Self::Export { chunks, .. } => {
                chunks
            }
        }
    }
}

/// What the worker says once it has its limits: from then on what ends it is a job.
const READY: u8 = 7;

/// The server's side: waits until the worker is ready.
pub(super) async fn receive_ready(pipe: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    if pipe.read_u8().await? == READY {
        Ok(())
    } else {
        Err(malformed())
    }
}

/// The worker's side: says that it is ready.
pub(super) fn send_ready(pipe: &mut impl Write) -> io::Result<()> {
    pipe.write_all(&[READY])?;
    pipe.flush()
}

const DONE: u8 = 0;
const INVALID: u8 = 1;
const INDIGESTIBLE: u8 = 2;
const EXPORTED: u8 = 3;

/// The server's side: writes a job.
pub(super) async fn send_job(pipe: &mut (impl AsyncWrite + Unpin), job: &Job) -> io::Result<()> {
    let chunks = job.chunks();
    let mut head = vec![job.kind()];
    head.extend((chunks.len() as u64).to_le_bytes());
    if chunks.len() <= SHORT_BYTES {
        // one system call where most jobs are small
        head.extend_from_slice(chunks);
        return pipe.write_all(&head).await;
    }
    pipe.write_all(&head).await?;
    pipe.write_all(chunks).await
}

/// What is copied rather than written on its own.
const SHORT_BYTES: usize = 16 << 10;

/// The server's side: reads the reply to `job`.
pub(super) async fn receive_reply(
    pipe: &mut (impl AsyncRead + Unpin),
    job: &Job,
) -> io::Result<Reply> {
    let length = pipe.read_u64_le().await?;
    if length > FIELD_BYTES_MAX {
        return Err(malformed());
    }
    let mut bytes = Vec::new();
    let read = pipe.take(length).read_to_end(&mut bytes).await?;
    if read as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parse_reply(bytes.into(), matches!(job, Job::Export { .. })).ok_or_else(malformed)
}

fn parse_reply(bytes: Bytes, export: bool) -> Option<Reply> {
    let mut fields = Fields(bytes);
    let reply = match (fields.byte()?, export) {
        (DONE, false) => {
            let heads = fields.field()?;
            let (hashes, rest) = heads.as_chunks::<{ ChangeHash::BYTES }>();
            if !rest.is_empty() {
                return None;
            }
            Reply::Worked(WorkOutcome::Done {
                heads: hashes
                    .iter()
                    .map(|hash| ChangeHash::from_bytes(*hash))
                    .collect(),
                changes: fields.number()?,
                index: fields.field()?,
                snapshot: fields.field()?,
            })
        }
        (INVALID, _) => Reply::invalid(&fields.text()?),
        (INDIGESTIBLE, _) => Reply::indigestible(&fields.text()?),
        (EXPORTED, true) => Reply::Exported(fields.field()?),
        _ => return None,
    };
    fields.0.is_empty().then_some(reply)
}

struct Fields(Bytes);

impl Fields {
    fn byte(&mut self) -> Option<u8> {
        let first = *self.0.first()?;
        drop(self.0.split_to(1));
        Some(first)
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = *self.0.first_chunk::<8>()?;
        drop(self.0.split_to(8));
        Some(u64::from_le_bytes(bytes))
    }

    fn field(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok()?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn text(&mut self) -> Option<String> {
        self.field()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The worker's side: the next job; nothing once the server has closed the pipe.
pub(super) fn receive_job(pipe: &mut impl Read) -> io::Result<Option<Job>> {
    let mut head = [0; 9];
    match pipe.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [kind, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    let mut chunks = Vec::with_capacity(usize::try_from(length).map_err(|_| malformed())?);
    if pipe.take(length).read_to_end(&mut chunks)? as u64 != length {
        return Ok(None);
    }
    Job::of_kind(kind, chunks.into()).map(Some)
}

/// The worker's side: writes a reply.
pub(super) fn send_reply(pipe: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut out = vec![0; 8];
    match reply {
        Reply::Worked(WorkOutcome::Done {
            snapshot,
            heads,
            changes,
            index,
        }) => {
            out.push(DONE);
            let heads: Vec<u8> = heads.iter().flat_map(|head| *head.as_bytes()).collect();
            push_field(&mut out, &heads);
            out.extend(changes.to_le_bytes());
            push_field(&mut out, index);
            push_field(&mut out, snapshot);
        }
        Reply::Worked(WorkOutcome::Invalid { reason }) => {
            out.push(INVALID);
            push_field(&mut out, reason.as_bytes());
        }
        Reply::Worked(WorkOutcome::Indigestible { reason }) => {
            out.push(INDIGESTIBLE);
            push_field(&mut out, reason.as_bytes());
        }
        // what the server says of a worker that is not there
        Reply::Worked(WorkOutcome::Unavailable) => return Err(malformed()),
        Reply::Exported(bytes) => {
            out.push(EXPORTED);
            push_field(&mut out, bytes);
        }
    }
    let length = (out.len() as u64 - 8).to_le_bytes();
    if let Some(head) = out.first_chunk_mut::<8>() {
        *head = length;
    }
    pipe.write_all(&out)?;
    pipe.flush()
}

fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend((field.len() as u64).to_le_bytes());
    out.extend(field);
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "malformed message in the worker's pipe",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_in_at_one_end_comes_out_at_the_other() {
        let hash = ChangeHash::from_bytes([3; 32]);
        let done = WorkOutcome::Done {
            snapshot: vec![1; 70_000].into(),
            heads: vec![hash],
            changes: 7,
            index: b"index"[..].into(),
        };
        let index = Job::Index {
            chunks: vec![9; 20_000].into(),
        };
        let export = Job::Export {
            chunks: b"x"[..].into(),
            format: ExportFormat::Json,
        };
        let exported = Reply::Exported(b"{}"[..].into());
        for (job, reply) in [
            (&index, Reply::Worked(done)),
            (&index, Reply::invalid("bad")),
            (&export, Reply::indigestible("worse")),
            (&export, exported),
        ] {
            let mut pipe = vec![];
            send_job(&mut pipe, job).await.unwrap();
            let received = receive_job(&mut &pipe[..]).unwrap().unwrap();
            assert_eq!(
                (received.kind(), received.chunks()),
                (job.kind(), job.chunks())
            );
            let mut pipe = vec![];
            send_reply(&mut pipe, &reply).unwrap();
            assert_eq!(receive_reply(&mut &pipe[..], job).await.unwrap(), reply);
            for cut in [1, 8, 9, pipe.len() - 1] {
                assert!(receive_reply(&mut &pipe[..cut], job).await.is_err());
            }
        }
    }
}
