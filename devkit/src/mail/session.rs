//! One SMTP connection.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::net::TcpStream;

use super::message::{Attempt, Outcome, Received};
use super::wire::Wire;
use super::{Answer, At, Shared, Tls};
use crate::tls::Certificate;

struct Session<'a> {
    shared: &'a Shared,
    /// The certificate as long as the client can still ask for TLS.
    starttls: Option<&'a Certificate>,
    wire: Wire,
    encrypted: bool,
    greeted: bool,
    user: Option<String>,
    transaction: Option<Transaction>,
}

/// From `MAIL FROM` to the end of `DATA`.
struct Transaction {
    from: String,
    to: Vec<String>,
    refused: Vec<String>,
    answer: Answer,
}

/// Whether the connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Command,
    Close,
    StartTls,
}

/// Serves a connection until its end.
pub(super) async fn serve(
    stream: TcpStream,
    certificate: Option<&Certificate>,
    shared: &Shared,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let implicit = certificate.filter(|_| shared.tls == Tls::Implicit);
    let mut wire = Wire::plain(stream);
    if let Some(certificate) = implicit {
        wire = wire.encrypt(certificate).await?;
    }
    let mut session = Session {
        shared,
        starttls: certificate.filter(|_| implicit.is_none()),
        wire,
        encrypted: implicit.is_some(),
        greeted: false,
        user: None,
        transaction: None,
    };
    session
        .reply(220, "devkit mail catcher: nothing leaves this machine")
        .await?;
    loop {
        let ended = session.run().await;
        session.abandon();
        let (Next::StartTls, Some(certificate)) = (ended?, session.starttls.take()) else {
            return Ok(());
        };
        // RFC 3207: both sides forget what they knew.
        let wire = session.wire.encrypt(certificate).await?;
        session = Session {
            wire,
            encrypted: true,
            greeted: false,
            user: None,
            ..session
        };
    }
}

impl Session<'_> {
    /// Obeys commands until the connection ends or is to be encrypted.
    async fn run(&mut self) -> Result<Next> {
        while let Some(line) = self.wire.line().await? {
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            match self
                .command(&verb.to_ascii_uppercase(), argument.trim())
                .await?
            {
                Next::Command => {}
                other => return Ok(other),
            }
        }
        Ok(Next::Close)
    }

    async fn command(&mut self, verb: &str, argument: &str) -> Result<Next> {
        match verb {
            "EHLO" => self.extensions().await?,
            "HELO" => {
                self.greet();
                self.reply(250, "devkit").await?;
            }
            "STARTTLS" if self.starttls.is_some() => {
                self.reply(220, "go ahead").await?;
                return Ok(Next::StartTls);
            }
            "AUTH" => self.authenticate(argument).await?,
            "MAIL" => return self.mail(argument).await,
            "RCPT" => self.recipient(argument).await?,
            "DATA" => return self.data().await,
            "RSET" => {
                self.abandon();
                self.reply(250, "forgotten").await?;
            }
            "NOOP" => self.reply(250, "fine").await?,
            "VRFY" => self.reply(252, "try and see").await?,
            "QUIT" => {
                self.reply(221, "bye").await?;
                return Ok(Next::Close);
            }
            _ => self.reply(502, "not a command of this server").await?,
        }
        Ok(Next::Command)
    }

    fn greet(&mut self) {
        self.abandon();
        self.greeted = true;
    }

    async fn extensions(&mut self) -> Result<()> {
        self.greet();
        let mut lines = vec!["devkit", "8BITMIME", "SMTPUTF8", "PIPELINING"];
        if self.starttls.is_some() {
            lines.push("STARTTLS");
        }
        if self.shared.credentials.is_some() {
            lines.push("AUTH PLAIN LOGIN");
        }
        self.wire.reply_lines(250, &lines).await
    }

    async fn authenticate(&mut self, argument: &str) -> Result<()> {
        let Some((user, password)) = &self.shared.credentials else {
            return self.reply(503, "nobody has to authenticate here").await;
        };
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let given = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                let response = self.challenge(initial, "").await?;
                let mut parts = response.split('\0').skip(1).map(str::to_owned);
                parts.next().zip(parts.next())
            }
            "LOGIN" => {
                let user = self.challenge(initial, "VXNlcm5hbWU6").await?;
                Some((user, self.challenge("", "UGFzc3dvcmQ6").await?))
            }
            _ => return self.reply(504, "only PLAIN and LOGIN").await,
        };
        match given {
            Some((given_user, given_password))
                if given_user == *user && given_password == *password =>
            {
                self.user = Some(given_user);
                self.reply(235, "welcome").await
            }
            _ => self.reply(535, "wrong user or password").await,
        }
    }

    /// The client's response to a challenge, decoded; its initial response if it sent one.
    async fn challenge(&mut self, initial: &str, challenge: &str) -> Result<String> {
        let response = match initial {
            "" => {
                self.reply(334, challenge).await?;
                self.wire.line().await?.unwrap_or_default()
            }
            "=" => String::new(),
            initial => initial.to_owned(),
        };
        let decoded = openssl::base64::decode_block(response.trim()).unwrap_or_default();
        Ok(String::from_utf8_lossy(&decoded).into_owned())
    }

    async fn mail(&mut self, argument: &str) -> Result<Next> {
        let complaint = if !self.greeted {
            Some((503, "say EHLO first"))
        } else if self.shared.tls == Tls::Required && !self.encrypted {
            Some((530, "say STARTTLS first"))
        } else if self.shared.credentials.is_some() && self.user.is_none() {
            Some((530, "authenticate first"))
        } else if self.transaction.is_some() {
            Some((503, "a mail is being sent already"))
        } else {
            None
        };
        if let Some((code, text)) = complaint {
            self.reply(code, text).await?;
            return Ok(Next::Command);
        }
        let Some(from) = path(argument, "FROM:") else {
            self.reply(501, "that is not FROM:<address>").await?;
            return Ok(Next::Command);
        };
        let answer = self
            .shared
            .script()
            .answers
            .pop_front()
            .unwrap_or(Answer::Accept);
        let refusal = refusal(&answer, At::Mail);
        self.transaction = Some(Transaction {
            from,
            to: Vec::new(),
            refused: Vec::new(),
            answer,
        });
        match refusal {
            Some((code, text)) => {
                self.end(Outcome::Refused(code));
                self.reply(code, &text).await?;
            }
            None => self.reply(250, "sender accepted").await?,
        }
        Ok(Next::Command)
    }

    async fn recipient(&mut self, argument: &str) -> Result<()> {
        let Some(transaction) = &mut self.transaction else {
            return self.reply(503, "say MAIL first").await;
        };
        let Some(to) = path(argument, "TO:").filter(|to| !to.is_empty()) else {
            return self.reply(501, "that is not TO:<address>").await;
        };
        let unknown = self
            .shared
            .script()
            .refused
            .contains(&to.to_ascii_lowercase());
        let scripted = refusal(&transaction.answer, At::Rcpt);
        let refusal = scripted.or_else(|| unknown.then(|| (550, format!("no mailbox {to} here"))));
        match refusal {
            Some((code, text)) => {
                transaction.refused.push(to);
                self.reply(code, &text).await
            }
            None => {
                transaction.to.push(to);
                self.reply(250, "recipient accepted").await
            }
        }
    }

    async fn data(&mut self) -> Result<Next> {
        let answer = match &self.transaction {
            None => {
                self.reply(503, "say MAIL first").await?;
                return Ok(Next::Command);
            }
            Some(transaction) if transaction.to.is_empty() => {
                self.reply(554, "no valid recipient").await?;
                return Ok(Next::Command);
            }
            Some(transaction) => transaction.answer.clone(),
        };
        if answer == Answer::CloseBeforeData {
            self.end(Outcome::ClosedBeforeData);
            return Ok(Next::Close);
        }
        self.reply(354, "go on, end with a dot").await?;
        let raw = self.wire.body().await?;
        if let Some((code, text)) = refusal(&answer, At::Data) {
            self.end(Outcome::Refused(code));
            self.reply(code, &text).await?;
            return Ok(Next::Command);
        }
        match answer {
            Answer::CloseAfterData { keep } => {
                let number = if keep { Some(self.keep(raw)?) } else { None };
                self.end(Outcome::ClosedAfterData(number));
                Ok(Next::Close)
            }
            Answer::Slow(delay) => self.accept(raw, delay).await,
            _ => self.accept(raw, Duration::ZERO).await,
        }
    }

    async fn accept(&mut self, raw: Vec<u8>, delay: Duration) -> Result<Next> {
        let number = self.keep(raw)?;
        if !self.wire.outlasts(delay).await {
            self.end(Outcome::NotHeard(number));
            return Ok(Next::Close);
        }
        self.end(Outcome::Accepted(number));
        self.reply(250, &format!("kept as {number:05}.eml")).await?;
        Ok(Next::Command)
    }

    fn keep(&self, raw: Vec<u8>) -> Result<usize> {
        let (from, to) = match &self.transaction {
            Some(transaction) => (transaction.from.clone(), transaction.to.clone()),
            None => bail!("no transaction"),
        };
        let (user, encrypted) = (self.user.clone(), self.encrypted);
        self.shared.store.keep(Received {
            from,
            to,
            user,
            encrypted,
            raw,
        })
    }

    /// Ends the transaction and records how.
    fn end(&mut self, outcome: Outcome) {
        if let Some(Transaction {
            from, to, refused, ..
        }) = self.transaction.take()
        {
            self.shared.store.record(Attempt {
                from,
                to,
                refused,
                outcome,
            });
        }
    }

    fn abandon(&mut self) {
        self.end(Outcome::Abandoned);
    }

    async fn reply(&mut self, code: u16, text: &str) -> Result<()> {
        self.wire.reply(code, text).await
    }
}

/// The refusal that the script wants at this command.
fn refusal(answer: &Answer, now: At) -> Option<(u16, String)> {
    match answer {
        Answer::Temporary(at, text) if *at == now => Some((451, text.clone())),
        Answer::Permanent(at, text) if *at == now => Some((550, text.clone())),
        Answer::Refuse(at, code, text) if *at == now => Some((*code, text.clone())),
        _ => None,
    }
}

/// The address in `FROM:<address> PARAMETERS`.
fn path(argument: &str, keyword: &str) -> Option<String> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    let rest = head
        .eq_ignore_ascii_case(keyword)
        .then(|| rest.trim_start())?;
    Some(rest.strip_prefix('<')?.split_once('>')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn addresses_are_read_from_mail_and_rcpt() {
        let cases = [
            ("FROM:<a@b.c>", Some("a@b.c")),
            ("from: <a@b.c> SIZE=12 BODY=8BITMIME", Some("a@b.c")),
            ("FROM:<>", Some("")),
            ("FROM:a@b.c", None),
            ("TO:<a@b.c>", None),
            ("", None),
        ];
        for (argument, address) in cases {
            assert_eq!(path(argument, "FROM:").as_deref(), address, "{argument}");
        }
    }
}
