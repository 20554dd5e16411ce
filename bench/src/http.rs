//! HTTP/1.1 over connections that stay open, no more of it than the server's answers need: a client that does more
//! would be measured with it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::client::ANSWER_WAIT_MAX;

/// The server's answers are a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        request.extend([*name, ": ", *value, "\r\n"]);
    }
    let length = body.len();
    request.push_str(&format!("Content-Length: {length}\r\n\r\n{body}"));
    request.into_bytes()
}

/// What the server says to a request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The header `DPoP-Nonce`.
    pub(crate) nonce: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A connection: where requests go, and where answers come from in the same order.
pub(crate) struct Connection {
    pub(crate) requests: OwnedWriteHalf,
    pub(crate) answers: Answers<OwnedReadHalf>,
}

impl Connection {
    /// Connects, from this address of the machine.
    pub(crate) async fn open(server: SocketAddr, from: Ipv4Addr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let (answers, requests) = stream.into_split();
        Ok(Self {
            requests,
            answers: Answers {
                source: answers,
                unread: Vec::new(),
            },
        })
    }

    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.requests.write_all(request).await?;
        let waited = timeout(ANSWER_WAIT_MAX, self.answers.next()).await;
        waited.with_context(|| format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs()))?
    }
}

/// The answers on a connection.
pub(crate) struct Answers<R> {
    source: R,
    unread: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Answers<R> {
    /// The next one, however long it takes.
    pub(crate) async fn next(&mut self) -> Result<Answer> {
        loop {
            if let Some((answer, length)) = parse(&self.unread)? {
                self.unread.drain(..length);
                return Ok(answer);
            }
            ensure!(self.unread.len() < ANSWER_BYTES_MAX, "an answer too long");
            let read = self.source.read_buf(&mut self.unread).await?;
            ensure!(read > 0, "the server closed the connection");
        }
    }
}

/// An answer and its length, once all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>> {
    let Some(head_length) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = bytes.get(..head_length).unwrap_or_default();
    let mut lines = std::str::from_utf8(head)?.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("an answer without a status")?.parse()?;
    let (mut nonce, mut body_length) = (None, 0);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("content-length") {
            body_length = value.parse()?;
        } else if name.eq_ignore_ascii_case("dpop-nonce") {
            nonce = Some(value.to_owned());
        }
    }
    let length = head_length + 4 + body_length;
    let Some(body) = bytes.get(head_length + 4..length) else {
        return Ok(None);
    };
    let answer = Answer {
        status,
        nonce,
        body: body.to_vec(),
    };
    Ok(Some((answer, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_that_come_in_one_piece_are_told_apart() {
        let two = "HTTP/1.1 401 Unauthorized\r\nDPoP-Nonce: n\r\nContent-Length: 2\r\n\r\n{}\
                   HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let mut answers = Answers {
            source: two.as_bytes(),
            unread: Vec::new(),
        };
        let first = answers.next().await.unwrap();
        assert_eq!((first.status, first.nonce.as_deref()), (401, Some("n")));
        assert_eq!(first.body, b"{}");
        assert_eq!(answers.next().await.unwrap().status, 200);
        assert!(answers.next().await.is_err(), "the end");
    }

    #[test]
    fn half_an_answer_is_waited_for() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).unwrap().is_none(), "{length}");
        }
        assert!(parse(whole).unwrap().is_some());
    }
}
