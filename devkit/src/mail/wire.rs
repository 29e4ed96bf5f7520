//! Lines and replies, in plain text or encrypted.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::dots::Body;
use crate::tls::Certificate;

/// A command line is at most 512 bytes by the book; authentication may take longer ones.
const MAX_LINE: u64 = 16 << 10;
const MAX_MESSAGE: usize = 64 << 20;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The connection to a client.
pub(super) struct Wire(BufReader<Box<dyn Stream>>);

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }

    /// The same connection, encrypted from now on.
    pub(super) async fn encrypt(self, certificate: &Certificate) -> Result<Self> {
        // What was sent in plain text ahead must not be taken for encrypted.
        if !self.0.buffer().is_empty() {
            bail!("the client sent more without waiting for TLS");
        }
        let stream = certificate.acceptor.accept(self.0.into_inner()).await?;
        Ok(Self(BufReader::new(Box::new(stream))))
    }

    /// The next line without its end; none when the client has left.
    pub(super) async fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.0)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            return Ok(None);
        }
        if !line.ends_with(b"\n") {
            bail!("the client sent a line without end");
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    /// The message that follows `DATA`.
    pub(super) async fn body(&mut self) -> Result<Vec<u8>> {
        let mut body = Body::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.0.read_until(b'\n', &mut line).await? == 0 {
                bail!("the client left in the middle of a message");
            }
            if body.take(&line) {
                return Ok(body.into_bytes());
            }
            if body.len() > MAX_MESSAGE {
                bail!("the message is longer than {MAX_MESSAGE} bytes");
            }
        }
    }

    pub(super) async fn reply(&mut self, code: u16, text: &str) -> Result<()> {
        self.reply_lines(code, &[text]).await
    }

    /// A reply of several lines.
    pub(super) async fn reply_lines(&mut self, code: u16, lines: &[&str]) -> Result<()> {
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            let separator = if index + 1 == lines.len() { ' ' } else { '-' };
            text.push_str(&format!("{code}{separator}{line}\r\n"));
        }
        self.0.write_all(text.as_bytes()).await?;
        Ok(self.0.flush().await?)
    }

    /// Waits so long, while a client that loses patience may leave. Returns whether it is still there.
    pub(super) async fn outlasts(&mut self, delay: Duration) -> bool {
        let mut more = [0];
        delay.is_zero()
            || tokio::time::timeout(delay, self.0.read(&mut more))
                .await
                .is_err()
    }
}
