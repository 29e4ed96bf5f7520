//! A mail server that delivers nothing: it keeps what it is given, and misbehaves when told to.
//!
//! It speaks SMTP as RFC 5321 has it, with STARTTLS or TLS from the start, and AUTH PLAIN and LOGIN. Every
//! message that it accepts becomes a file: `00001.eml` with the bytes as they came (dots unstuffed), next to it
//! `00001.json` with the envelope. What goes wrong is scripted: a queue of [`Answer`]s, one for each transaction
//! (that is, for each `MAIL FROM`), and a set of recipients to refuse.

mod dots;
mod message;
mod session;
mod wire;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::message::Store;
pub use self::message::{Attempt, Message, Outcome};
use crate::tls::Certificate;

/// How to start a [`MailCatcher`]. The default: a free port, a temporary folder, no TLS, anybody may send.
#[derive(Clone, Debug, Default)]
pub struct MailOptions {
    /// Where messages are kept. By default a temporary folder, removed at the end.
    pub folder: Option<PathBuf>,
    /// The port on 127.0.0.1; 0 is any free one.
    pub port: u16,
    /// How connections are encrypted.
    pub tls: Tls,
    /// User and password that a client must authenticate with before it may send.
    pub credentials: Option<(String, String)>,
}

/// How connections are encrypted. The certificate is made at the start; see [`MailCatcher::ca_pem`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    #[default]
    None,
    /// The client may ask for it (STARTTLS).
    Offered,
    /// The client must ask for it (STARTTLS) before it may send.
    Required,
    /// From the first byte.
    Implicit,
}

/// The command at which a scripted refusal is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`, every one of the transaction.
    Rcpt,
    /// After the message: the reply that ends `DATA`.
    Data,
}

/// What happens to one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is accepted.
    Accept,
    /// It is refused for now: `451` and this text.
    Temporary(At, String),
    /// It is refused for good: `550` and this text.
    Permanent(At, String),
    /// A refusal with a code of your own.
    Refuse(At, u16, String),
    /// The connection is closed when `DATA` is asked for: the message has not been sent.
    CloseBeforeData,
    /// The connection is closed when the whole message has been received, without a reply: the client cannot
    /// know whether it was accepted. `keep` says whether it was.
    CloseAfterData {
        /// Whether the message counts as accepted.
        keep: bool,
    },
    /// It is accepted, and the reply takes so long. The message is kept before the wait, as a server does that
    /// has taken responsibility.
    Slow(Duration),
}

/// A running mail catcher. Dropping it closes all connections.
#[derive(Debug)]
pub struct MailCatcher {
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    _temporary: Option<tempfile::TempDir>,
}

/// What the connections share with the handle.
#[derive(Debug)]
struct Shared {
    tls: Tls,
    credentials: Option<(String, String)>,
    script: Mutex<Script>,
    store: Store,
    /// Ends the connections when the catcher is dropped.
    running: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    refused: BTreeSet<String>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MailCatcher {
    /// Starts listening on 127.0.0.1.
    ///
    /// # Errors
    /// The port is taken, the folder cannot be made, or no certificate could be made.
    pub async fn start(options: MailOptions) -> Result<Self> {
        let (folder, temporary) = match options.folder {
            Some(folder) => (folder, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("devkit-mail-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let store = Store::open(&folder)?;
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await;
        let listener =
            listener.with_context(|| format!("cannot listen on 127.0.0.1:{}", options.port))?;
        let address = listener.local_addr()?;
        let certificate = match options.tls {
            Tls::None => None,
            _ => Some(Arc::new(Certificate::make()?)),
        };
        let shared = Arc::new(Shared {
            tls: options.tls,
            credentials: options.credentials,
            script: Mutex::default(),
            store,
            running: watch::Sender::new(()),
        });
        let accepting = tokio::spawn(accept(listener, certificate.clone(), Arc::clone(&shared)));
        Ok(Self {
            address,
            certificate,
            shared,
            accepting,
            _temporary: temporary,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate, as PEM, of the authority that signed the server's, which is for `localhost` and
    /// `127.0.0.1`. A client that is to trust the server gets it. None without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.certificate
            .as_ref()
            .map(|certificate| certificate.ca_pem.as_str())
    }

    /// The folder with the messages.
    pub fn folder(&self) -> &Path {
        self.shared.store.folder()
    }

    /// Adds answers to the queue. Each transaction takes one; when there is none, it is accepted.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.script().answers.extend(answers);
    }

    /// How many scripted answers have not been used yet.
    pub fn scripted(&self) -> usize {
        self.shared.script().answers.len()
    }

    /// Refuses this recipient with `550` from now on; other recipients of the same transaction are not affected.
    pub fn refuse(&self, recipient: &str) {
        self.shared
            .script()
            .refused
            .insert(recipient.to_ascii_lowercase());
    }

    /// Forgets scripted answers and refused recipients.
    pub fn behave(&self) {
        *self.shared.script() = Script::default();
    }

    /// The messages accepted so far, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.shared.store.messages()
    }

    /// All transactions so far with what became of them, those that were refused or broken off too.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.store.attempts()
    }

    /// Waits for a message that `wanted` accepts, and returns the first; one that is there already counts.
    ///
    /// # Errors
    /// None came in time: the error lists what did come.
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&Message) -> bool,
        patience: Duration,
    ) -> Result<Message> {
        let found = self.wait_until(
            |messages| messages.iter().find(|m| wanted(m)).cloned(),
            patience,
        );
        found.await.context("the awaited mail did not come")
    }

    /// Waits until there are at least `count` messages, and returns all of them.
    ///
    /// # Errors
    /// Fewer came in time: the error lists them.
    pub async fn wait_for_count(&self, count: usize, patience: Duration) -> Result<Vec<Message>> {
        let enough = |messages: &[Message]| (messages.len() >= count).then(|| messages.to_vec());
        self.wait_until(enough, patience)
            .await
            .with_context(|| format!("fewer than {count} mails came"))
    }

    async fn wait_until<T>(
        &self,
        found: impl Fn(&[Message]) -> Option<T>,
        patience: Duration,
    ) -> Result<T> {
        let mut changes = self.shared.store.changes();
        let search = async {
            loop {
                if let Some(found) = found(&self.messages()) {
                    return found;
                }
                if changes.changed().await.is_err() {
                    // The sender lives as long as `self`.
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(patience, search).await {
            Ok(found) => Ok(found),
            Err(_) => bail!("within {patience:?}; what came: {:#?}", self.attempts()),
        }
    }
}

impl Drop for MailCatcher {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.running.send_replace(());
    }
}

async fn accept(listener: TcpListener, certificate: Option<Arc<Certificate>>, shared: Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the mail catcher cannot accept a connection");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let (shared, certificate) = (Arc::clone(&shared), certificate.clone());
        let mut end = shared.running.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                ended = session::serve(stream, certificate.as_deref(), &shared) => if let Err(error) = ended {
                    tracing::debug!(%peer, error = format!("{error:#}"), "a mail connection broke");
                },
                _ = end.changed() => {}
            }
        });
    }
}
