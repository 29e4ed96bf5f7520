//! What is done with a record: mails for all its recipients, or a dead letter. Nothing is skipped.

use std::{sync::Arc, time::Duration};

use common::{schema::State, shutdown::Shutdown};
use lettre::message::Mailbox;
use metrics::{counter, histogram};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    dead_letters::DeadLetters,
    health::{Health, Part},
    mail::{Mail, Writer},
    record::{Error, Reader, Record},
    routes::Routes,
    smtp::{
        Client, Connection,
        answer::{Answer, Verdict},
    },
};

/// Everything that delivering takes; one for all partitions.
pub struct Deliver {
    /// Decodes.
    pub reader: Reader,
    /// Who is mailed.
    pub routes: Routes,
    /// Writes mails.
    pub writer: Writer,
    /// Sends them,
    pub smtp: Client,
    /// over so many connections at once.
    pub connections: Arc<Semaphore>,
    /// Where the hopeless go.
    pub dead_letters: DeadLetters,
    /// Told what works.
    pub health: Health,
    /// Pause after a failure: the first, and the longest.
    pub pauses: (Duration, Duration),
}

/// Told to stop between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stopped;

impl Deliver {
    /// Works on `record` until everything about it is done (`true`): each mail accepted, or written
    /// to the dead letters. That takes as long as it takes; once `stop` is cancelled there is no
    /// further attempt (`false`). Dropping the future gives up the attempt in hand, too.
    ///
    /// # Errors
    /// When something fails that no other attempt can mend.
    pub async fn record(&self, record: &Record, stop: &Shutdown) -> anyhow::Result<bool> {
        let outcome = match &record.value {
            None => "tombstone",
            Some(value) => match self.read(value, stop).await {
                Err(Stopped) => return Ok(false),
                Ok(Ok(state)) => match self.state(record, &state, stop).await? {
                    Ok(outcome) => outcome,
                    Err(Stopped) => return Ok(false),
                },
                Ok(Err((reason, detail))) => {
                    tracing::error!(
                        topic = record.topic,
                        partition = record.partition,
                        offset = record.offset,
                        reason,
                        "a record is not a state, it goes to the dead letters: {detail}"
                    );
                    counter!("notifier_undecodable_total", "reason" => reason).increment(1);
                    self.dead_letters.write(record, reason, &detail).await?;
                    "dead-letter"
                }
            },
        };
        counter!("notifier_records_total", "outcome" => outcome).increment(1);
        Ok(true)
    }

    /// The state, once the registry can be asked; otherwise reason and explanation.
    async fn read(
        &self,
        value: &[u8],
        stop: &Shutdown,
    ) -> Result<Result<State, (&'static str, String)>, Stopped> {
        let mut pause = self.pauses.0;
        loop {
            match self.reader.read(value).await {
                Ok(state) => {
                    self.health.works(Part::Registry);
                    return Ok(Ok(state));
                }
                Err(Error::Undecodable(reason, detail)) => return Ok(Err((reason, detail))),
                Err(Error::Unavailable(why)) => {
                    tracing::warn!("waiting for the schema registry: {why}");
                    self.health.fails(Part::Registry, &why);
                }
            }
            self.wait(&mut pause, stop).await?;
        }
    }

    async fn state(
        &self,
        record: &Record,
        state: &State,
        stop: &Shutdown,
    ) -> anyhow::Result<Result<&'static str, Stopped>> {
        let mut pending = Vec::new();
        for to in self.routes.recipients(state) {
            let mail = self.writer.write(state, &to)?;
            pending.push((to, mail));
        }
        if pending.is_empty() {
            return Ok(Ok("no-mail"));
        }
        let mut pause = self.pauses.0;
        loop {
            pending = self.round(record, state, pending).await?;
            if pending.is_empty() {
                return Ok(Ok("mailed"));
            }
            if let Err(stopped) = self.wait(&mut pause, stop).await {
                return Ok(Err(stopped));
            }
        }
    }

    /// Waits for `pause` and makes it longer.
    async fn wait(&self, pause: &mut Duration, stop: &Shutdown) -> Result<(), Stopped> {
        tokio::select! {
            () = stop.cancelled() => return Err(Stopped),
            () = tokio::time::sleep(*pause) => {}
        }
        *pause = (*pause * 2).min(self.pauses.1);
        Ok(())
    }

    /// One attempt at each of `pending`, in order; what is left must be tried again. One recipient
    /// that has to wait does not keep the others waiting.
    async fn round(
        &self,
        record: &Record,
        state: &State,
        pending: Vec<(Mailbox, Mail)>,
    ) -> anyhow::Result<Vec<(Mailbox, Mail)>> {
        let _permit = self.connections.acquire().await?;
        let mut left = Vec::new();
        let mut connection: Option<Connection> = None;
        let mut pending = pending.into_iter();
        while let Some((to, mail)) = pending.next() {
            let mut open = match connection.take() {
                Some(open) => open,
                None => match self.smtp.connect().await {
                    Ok(open) => open,
                    Err(answer) => {
                        self.no_connection(&answer);
                        left.push((to, mail));
                        left.extend(pending);
                        return Ok(left);
                    }
                },
            };
            let started = Instant::now();
            let answer = open.send(&mail).await;
            match answer.verdict {
                Verdict::Accepted => {
                    histogram!("notifier_mail_seconds").record(started.elapsed());
                    self.accepted(state, &to, &mail);
                    connection = Some(open);
                }
                Verdict::Refused => self.refused(record, &to, &mail, &answer).await?,
                Verdict::Retry | Verdict::Unknown => {
                    self.again(&to, &mail, &answer);
                    left.push((to, mail));
                }
            }
        }
        if let Some(open) = connection {
            open.quit().await;
        }
        Ok(left)
    }

    fn no_connection(&self, answer: &Answer) {
        tracing::warn!("no connection to the mail server, trying again: {answer}");
        counter!("notifier_connect_failures_total").increment(1);
        self.health.fails(Part::Smtp, answer);
    }

    fn accepted(&self, state: &State, to: &Mailbox, mail: &Mail) {
        tracing::info!(
            recipient = %to.email,
            subject = mail.subject,
            object_id = state.object_id,
            version = state.version,
            message_id = mail.message_id,
            "mail sent"
        );
        counter!("notifier_mails_sent_total").increment(1);
        self.health.works(Part::Smtp);
    }

    fn again(&self, to: &Mailbox, mail: &Mail, answer: &Answer) {
        let kind = answer.verdict.label();
        tracing::warn!(
            recipient = %to.email,
            subject = mail.subject,
            message_id = mail.message_id,
            kind,
            "mail not accepted, trying again: {answer}"
        );
        counter!("notifier_mail_retries_total", "kind" => kind).increment(1);
        self.health.fails(Part::Smtp, answer);
    }

    async fn refused(
        &self,
        record: &Record,
        to: &Mailbox,
        mail: &Mail,
        answer: &Answer,
    ) -> anyhow::Result<()> {
        tracing::error!(
            recipient = %to.email,
            subject = mail.subject,
            message_id = mail.message_id,
            "mail refused for good, it goes to the dead letters: {answer}"
        );
        counter!("notifier_mails_refused_total").increment(1);
        self.health.works(Part::Smtp);
        let detail = format!("{}: {answer}", to.email);
        self.dead_letters
            .write(record, "mail-refused", &detail)
            .await
    }
}
