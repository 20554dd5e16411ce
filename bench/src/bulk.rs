//! Many documents over one connection, a window of them on the way at a time: uploads and downloads.

use std::collections::HashMap;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use automerge::Automerge;
use automerge::sync::{Message, State, SyncDoc as _};
use bytes::Bytes;
use tokio::time::{Instant as Deadline, timeout_at};

use crate::client::Client;
use crate::history::Prepared;
use crate::sync;
use crate::wire::Incoming;

/// Documents on the way at once on one connection.
const WINDOW: usize = 32;
/// What is not done by then is not done: a slow server must not hold up the table.
pub(crate) const RUN_MAX: Duration = Duration::from_secs(240);
/// One of so many downloads is loaded into Automerge afterwards, to see that it is the document.
const CHECKED_ONE_IN: usize = 16;

/// How far one connection came.
#[derive(Default)]
pub(crate) struct Done {
    /// One for each finished document, from its first message to its last.
    pub(crate) times: Vec<Duration>,
    /// Why it ended before all were finished.
    pub(crate) broken: Option<anyhow::Error>,
}

/// Frames made ready before the clock runs: what opens the exchange of each document, and what follows.
pub(crate) struct Batch<'a> {
    client: Client,
    turns: Vec<Turn<'a>>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Push,
    Pull,
}

struct Turn<'a> {
    document: &'a Prepared,
    opening: Bytes,
    /// Push: the upload. Pull: the confirmation.
    second: Bytes,
}

struct UnderWay<'t, 'a> {
    turn: &'t Turn<'a>,
    since: Instant,
    answered: bool,
}

impl<'a> Batch<'a> {
    /// Uploads, to be sent when the server has answered the offer; done when it is acknowledged.
    pub(crate) fn push(client: Client, documents: &'a [Prepared]) -> Result<Self> {
        let turn = |document: &'a Prepared| {
            let opening = client.sync_frame(&document.id, &document.offer)?;
            Ok(Turn {
                document,
                opening,
                second: client.sync_frame(&document.id, &document.upload)?,
            })
        };
        let turns = documents.iter().map(turn).collect::<Result<_>>()?;
        Ok(Self {
            client,
            turns,
            kind: Kind::Push,
        })
    }

    /// Downloads; done when the message came that holds the document's head.
    pub(crate) fn pull(client: Client, documents: &'a [Prepared]) -> Result<Self> {
        let turn = |document: &'a Prepared| {
            let second = client.sync_frame(&document.id, &sync::confirm(&[document.head.0]))?;
            Ok(Turn {
                document,
                opening: client.request_frame(&document.id)?,
                second,
            })
        };
        let turns = documents.iter().map(turn).collect::<Result<_>>()?;
        Ok(Self {
            client,
            turns,
            kind: Kind::Pull,
        })
    }

    /// Runs to the end, or until [`RUN_MAX`], or until the server breaks off. Downloads come back as received.
    pub(crate) async fn run(mut self) -> (Done, Vec<(&'a Prepared, Bytes)>) {
        self.finish().await
    }

    /// As [`Self::run`], and stays connected.
    pub(crate) async fn run_and_stay(mut self) -> (Done, Client) {
        let (done, _) = self.finish().await;
        (done, self.client)
    }

    async fn finish(&mut self) -> (Done, Vec<(&'a Prepared, Bytes)>) {
        let (mut done, mut received) = (Done::default(), Vec::new());
        let deadline = Deadline::now() + RUN_MAX;
        let turns = std::mem::take(&mut self.turns);
        match timeout_at(
            deadline,
            self.exchange(&turns, &mut done.times, &mut received),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => done.broken = Some(error),
            Err(_) => done.broken = Some(anyhow::anyhow!("not done in {} s", RUN_MAX.as_secs())),
        }
        (done, received)
    }

    async fn exchange(
        &mut self,
        turns: &[Turn<'a>],
        times: &mut Vec<Duration>,
        received: &mut Vec<(&'a Prepared, Bytes)>,
    ) -> Result<()> {
        let mut waiting = turns.iter();
        let mut under_way = HashMap::new();
        loop {
            self.fill(&mut waiting, &mut under_way).await?;
            if under_way.is_empty() {
                return Ok(());
            }
            let (id, data) = match self.client.next().await? {
                Incoming::Sync { document, data } => (document, data),
                Incoming::Unavailable(document) => bail!("document {document} is unavailable"),
                Incoming::Error(message) => bail!("the server's error: {message}"),
                Incoming::Peer(_) | Incoming::Ephemeral(_) | Incoming::Other => continue,
            };
            let Some(open) = under_way.get_mut(id.as_str()) else {
                continue;
            };
            if self.is_done(&data, open.turn)? {
                times.push(open.since.elapsed());
                if self.kind == Kind::Pull {
                    received.push((open.turn.document, data));
                    self.client.send(open.turn.second.clone()).await?;
                }
                under_way.remove(id.as_str());
            } else if self.kind == Kind::Push && !open.answered {
                open.answered = true;
                self.client.send(open.turn.second.clone()).await?;
            }
        }
    }

    async fn fill<'t>(
        &mut self,
        waiting: &mut slice::Iter<'t, Turn<'a>>,
        under_way: &mut HashMap<&'a str, UnderWay<'t, 'a>>,
    ) -> Result<()> {
        while under_way.len() < WINDOW {
            let Some(turn) = waiting.next() else { break };
            let open = UnderWay {
                turn,
                since: Instant::now(),
                answered: false,
            };
            under_way.insert(turn.document.id.as_str(), open);
            self.client.send(turn.opening.clone()).await?;
        }
        Ok(())
    }

    fn is_done(&self, data: &[u8], turn: &Turn<'_>) -> Result<bool> {
        match self.kind {
            Kind::Push => Ok(sync::heads(data)?.contains(&turn.document.head.0)),
            Kind::Pull => sync::brings(data, &turn.document.head),
        }
    }
}

/// Loads some of what was received into Automerge, and fails if it is not what was uploaded.
pub(crate) fn check(received: &[(&Prepared, Bytes)]) -> Result<()> {
    received
        .iter()
        .step_by(CHECKED_ONE_IN)
        .try_for_each(|(document, data)| check_one(document, data))
}

/// As [`check`], of one download.
pub(crate) fn check_one(prepared: &Prepared, data: &[u8]) -> Result<()> {
    let mut document = Automerge::new();
    document.receive_sync_message(&mut State::new(), Message::decode(data)?)?;
    if document.get_heads() == [prepared.head] {
        Ok(())
    } else {
        bail!("document {} came back as another one", prepared.id)
    }
}
