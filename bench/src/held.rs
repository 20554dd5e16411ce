//! A document at a real client: Automerge itself, and its own sync state. Dearer than the messages made beforehand that
//! most scenarios send, and right in whatever comes.

use anyhow::{Context as _, Result};
use automerge::sync::{Message, State, SyncDoc as _};
use automerge::{Automerge, ChangeHash, ReadDoc as _};

use crate::client::Client;

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) document: Automerge,
    state: State,
}

impl Held {
    pub(crate) fn new(document: Automerge) -> Self {
        Self {
            document,
            state: State::new(),
        }
    }

    /// Forgets what was said on the last connection.
    pub(crate) fn reconnected(&mut self) {
        self.state = State::new();
    }

    pub(crate) fn hear(&mut self, data: &[u8]) -> Result<()> {
        self.document
            .receive_sync_message(&mut self.state, Message::decode(data)?)?;
        Ok(())
    }

    /// Sends what Automerge has to say now, if it has.
    pub(crate) async fn tell(&mut self, client: &mut Client, id: &str) -> Result<()> {
        if let Some(message) = self.document.generate_sync_message(&mut self.state) {
            let frame = client.sync_frame(id, &Message::encode(message))?;
            client.send(frame).await?;
        }
        Ok(())
    }

    /// Whether the server has said that it holds what this client holds, and no more.
    pub(crate) fn is_in_step(&self) -> bool {
        self.state.their_heads.as_deref() == Some(self.document.get_heads().as_slice())
    }

    /// Asks for a document of which nothing is here.
    pub(crate) async fn pull(&mut self, client: &mut Client, id: &str) -> Result<()> {
        client.send(client.request_frame(id)?).await?;
        // the same message, so that the state knows that it was said
        self.document
            .generate_sync_message(&mut self.state)
            .context("a first message is always due")?;
        self.until_in_step(client, id).await
    }

    pub(crate) async fn until_in_step(&mut self, client: &mut Client, id: &str) -> Result<()> {
        while !self.is_in_step() {
            let (about, data) = client.next_sync().await?;
            if about == id {
                self.hear(&data)?;
                self.tell(client, id).await?;
            }
        }
        Ok(())
    }

    /// How many of these heads are not in the document.
    pub(crate) fn missing(&self, heads: &[ChangeHash]) -> usize {
        self.document.get_missing_deps(heads).len()
    }
}
