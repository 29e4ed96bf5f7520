//! What the catcher has received, in memory and in its folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use mail_parser::{HeaderValue, MessageParser};
use tokio::sync::watch;

/// A message that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// 1 for the first.
    pub number: usize,
    /// The envelope's sender; empty for a bounce.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The user that authenticated, if one did.
    pub user: Option<String>,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
    /// The bytes as they came.
    pub raw: Vec<u8>,
    /// The file that holds them.
    pub file: PathBuf,
}

impl Message {
    /// A header's text, decoded. For a header of another form (addresses, dates) as it stands in the message.
    pub fn header(&self, name: &str) -> Option<String> {
        let message = MessageParser::default().parse(&self.raw)?;
        match message.header(name)? {
            HeaderValue::Text(text) => Some(text.to_string()),
            _ => message.header_raw(name).map(|raw| raw.trim().to_owned()),
        }
    }

    /// The subject, decoded; empty if there is none.
    pub fn subject(&self) -> String {
        self.header("Subject").unwrap_or_default()
    }

    /// The plain text, decoded; empty if there is none.
    pub fn text(&self) -> String {
        let message = MessageParser::default().parse(&self.raw);
        message
            .and_then(|message| Some(message.body_text(0)?.into_owned()))
            .unwrap_or_default()
    }

    /// The HTML, decoded; empty if there is none.
    pub fn html(&self) -> String {
        let message = MessageParser::default().parse(&self.raw);
        message
            .and_then(|message| Some(message.body_html(0)?.into_owned()))
            .unwrap_or_default()
    }
}

/// One transaction and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The envelope's sender.
    pub from: String,
    /// The recipients that were accepted.
    pub to: Vec<String>,
    /// The recipients that were refused.
    pub refused: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message was kept under this number, and the client was told so.
    Accepted(usize),
    /// The client was given this reply code instead.
    Refused(u16),
    /// The connection was closed when the client wanted to send the message.
    ClosedBeforeData,
    /// The connection was closed after the message without a reply. It was kept under this number, or not kept.
    ClosedAfterData(Option<usize>),
    /// The message was kept under this number, and the client left before it was told.
    NotHeard(usize),
    /// The client gave it up (RSET, QUIT, or it just left) before the message was complete.
    Abandoned,
}

/// A transaction's message before it is kept.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) user: Option<String>,
    pub(super) encrypted: bool,
    pub(super) raw: Vec<u8>,
}

/// All that was received.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    kept: Mutex<Kept>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Message>,
    attempts: Vec<Attempt>,
    /// The last number in use: a folder of an earlier run is continued.
    last: usize,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let context = || format!("cannot keep mails in {}", folder.display());
        fs::create_dir_all(folder).with_context(context)?;
        let names = fs::read_dir(folder)
            .with_context(context)?
            .flatten()
            .map(|entry| entry.path());
        let numbers = names.filter(|path| path.extension().is_some_and(|ending| ending == "eml"));
        let last = numbers
            .filter_map(|path| path.file_stem()?.to_str()?.parse().ok())
            .max()
            .unwrap_or(0);
        let kept = Mutex::new(Kept {
            last,
            ..Kept::default()
        });
        Ok(Self {
            folder: folder.to_owned(),
            kept,
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.kept().messages.clone()
    }

    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.kept().attempts.clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Writes the message's files and returns its number.
    pub(super) fn keep(&self, received: Received) -> Result<usize> {
        let mut kept = self.kept();
        let number = kept.last + 1;
        let file = self.folder.join(format!("{number:05}.eml"));
        let context = || format!("cannot write {}", file.display());
        let envelope = serde_json::json!({
            "from": received.from,
            "to": received.to,
            "user": received.user,
            "encrypted": received.encrypted,
        });
        fs::write(file.with_extension("json"), format!("{envelope:#}\n")).with_context(context)?;
        // The message last and under its name in one step: whoever lists the folder sees whole mails.
        let partial = file.with_extension("part");
        fs::write(&partial, &received.raw)
            .and_then(|()| fs::rename(&partial, &file))
            .with_context(context)?;
        let Received {
            from,
            to,
            user,
            encrypted,
            raw,
        } = received;
        kept.last = number;
        kept.messages.push(Message {
            number,
            from,
            to,
            user,
            encrypted,
            raw,
            file,
        });
        drop(kept);
        self.changed.send_replace(());
        Ok(number)
    }

    pub(super) fn record(&self, attempt: Attempt) {
        tracing::info!(from = attempt.from, to = ?attempt.to, outcome = ?attempt.outcome, "mail");
        self.kept().attempts.push(attempt);
    }
}
