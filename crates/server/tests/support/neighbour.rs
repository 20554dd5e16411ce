//! Other servers, such as a directory or a PDS, when they are not well.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{interval, timeout},
};

/// How a neighbour is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// Nobody is there, or hangs up without a word.
    Down,
    Silent,
    /// A byte a second.
    Slow,
    Broken,
    Nonsense,
}

pub const STATES: [State; 5] = [
    State::Down,
    State::Silent,
    State::Slow,
    State::Broken,
    State::Nonsense,
];

/// Where a neighbour in this state is.
pub async fn neighbour(state: State) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    if state != State::Down {
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    if request(&mut stream).await.is_some() {
                        answer(stream, state).await;
                    }
                });
            }
        });
    }
    url
}

/// One request, head and body; nothing if whoever began it is gone.
pub async fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut request, mut buffer) = (String::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut buffer).await.ok()?;
        if read == 0 {
            return None;
        }
        request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        if let Some((head, body)) = request.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(request);
            }
        }
    }
}

/// Answers a request as a neighbour in this state does.
pub async fn answer(mut stream: TcpStream, state: State) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
    let text = match state {
        State::Down | State::Silent => String::new(),
        State::Slow => head.to_owned(),
        State::Broken => "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}".into(),
        State::Nonsense => format!("{head}{}", "\u{1b}]0;owned\u{7}[".repeat(100)),
    };
    if stream.write_all(text.as_bytes()).await.is_err() {
        return;
    }
    let (mut seconds, mut rest) = (interval(Duration::from_secs(1)), [0; 64]);
    if !matches!(state, State::Slow | State::Silent) {
        return;
    }
    loop {
        seconds.tick().await;
        // a byte a second, or none: until the other end has had enough
        let byte: &[u8] = if state == State::Slow { b" " } else { b"" };
        let gone = timeout(Duration::from_millis(1), stream.read(&mut rest)).await;
        if matches!(gone, Ok(Ok(0) | Err(_))) || stream.write_all(byte).await.is_err() {
            return;
        }
    }
}
