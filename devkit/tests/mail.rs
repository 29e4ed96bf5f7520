//! The mail catcher as a real client sees it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use devkit::mail::{At, Outcome, Tls};
use devkit::{Answer, MailCatcher, MailOptions};
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls as ClientTls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);
type Transport = AsyncSmtpTransport<Tokio1Executor>;

async fn catcher(options: MailOptions) -> MailCatcher {
    MailCatcher::start(options).await.unwrap()
}

/// A client that keeps no connection from one mail to the next.
fn client(catcher: &MailCatcher, tls: ClientTls) -> Transport {
    Transport::builder_dangerous("localhost")
        .port(catcher.port())
        .tls(tls)
        .timeout(Some(PATIENCE))
        .build()
}

fn trusting(catcher: &MailCatcher) -> TlsParameters {
    let ca = Certificate::from_pem(catcher.ca_pem().unwrap().as_bytes()).unwrap();
    TlsParameters::builder("localhost".to_owned())
        .add_root_certificate(ca)
        .build()
        .unwrap()
}

fn mail(to: &[&str], subject: &str, body: &str) -> Message {
    let mut builder = Message::builder().from("Sender <sender@example.org>".parse().unwrap());
    for to in to {
        builder = builder.to(to.parse().unwrap());
    }
    builder
        .subject(subject)
        .header(ContentType::TEXT_PLAIN)
        .body(body.to_owned())
        .unwrap()
}

fn simple(subject: &str) -> Message {
    mail(&["a@example.org"], subject, "text")
}

#[tokio::test]
async fn a_mail_is_kept_as_it_was_sent() {
    let catcher = catcher(MailOptions::default()).await;
    let body = "Grüße\r\n.\r\n..two\r\n.hidden\r\nend";
    let sent = mail(&["a@example.org", "b@example.org"], "Größe: ✓", body);
    client(&catcher, ClientTls::None)
        .send(sent.clone())
        .await
        .unwrap();

    let kept = catcher
        .wait_for(|mail| mail.subject() == "Größe: ✓", PATIENCE)
        .await
        .unwrap();
    assert_eq!(kept.from, "sender@example.org");
    assert_eq!(kept.to, ["a@example.org", "b@example.org"]);
    assert_eq!(kept.text().trim_end(), body);
    assert_eq!(kept.header("From").unwrap(), "Sender <sender@example.org>");
    assert_eq!(
        String::from_utf8_lossy(&kept.raw).trim_end(),
        String::from_utf8_lossy(&sent.formatted()).trim_end()
    );
    assert_eq!(std::fs::read(&kept.file).unwrap(), kept.raw);
    let envelope = std::fs::read_to_string(kept.file.with_extension("json")).unwrap();
    assert!(envelope.contains("b@example.org"), "{envelope}");
}

#[tokio::test]
async fn waiting_in_vain_says_what_did_come() {
    let catcher = catcher(MailOptions::default()).await;
    client(&catcher, ClientTls::None)
        .send(simple("one"))
        .await
        .unwrap();
    let error = catcher
        .wait_for_count(2, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("a@example.org"), "{error:#}");
}

#[tokio::test]
async fn refusals_are_given_where_the_script_says_once_each() {
    let catcher = catcher(MailOptions::default()).await;
    let client = client(&catcher, ClientTls::None);
    for at in [At::Mail, At::Rcpt, At::Data] {
        catcher.script([
            Answer::Temporary(at, "later".into()),
            Answer::Permanent(at, "never".into()),
        ]);
        assert!(client.send(simple("x")).await.unwrap_err().is_transient());
        assert!(client.send(simple("x")).await.unwrap_err().is_permanent());
    }
    catcher.script([Answer::Refuse(At::Data, 452, "full".into())]);
    assert!(client.send(simple("x")).await.unwrap_err().is_transient());
    assert!(catcher.messages().is_empty());
    assert_eq!(
        catcher.attempts().last().unwrap().outcome,
        Outcome::Refused(452)
    );
    client.send(simple("x")).await.unwrap();
    assert_eq!(catcher.messages().len(), 1);
}

#[tokio::test]
async fn a_refused_recipient_is_remembered() {
    let catcher = catcher(MailOptions::default()).await;
    let client = client(&catcher, ClientTls::None);
    catcher.refuse("Nobody@example.org");
    assert!(
        client
            .send(mail(&["nobody@example.org"], "x", ""))
            .await
            .unwrap_err()
            .is_permanent()
    );
    client.send(simple("x")).await.unwrap();
    let attempts = catcher.attempts();
    assert_eq!(attempts[0].refused, ["nobody@example.org"]);
    assert_eq!(attempts[1].outcome, Outcome::Accepted(1));
    catcher.behave();
    client
        .send(mail(&["nobody@example.org"], "x", ""))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connection_closed_before_or_after_the_message_leaves_the_client_in_doubt() {
    let catcher = catcher(MailOptions::default()).await;
    let client = client(&catcher, ClientTls::None);
    let after = |keep| Answer::CloseAfterData { keep };
    catcher.script([Answer::CloseBeforeData, after(true), after(false)]);
    for _ in 0..3 {
        let error = client.send(simple("x")).await.unwrap_err();
        assert!(error.status().is_none(), "no reply: {error:?}");
    }
    let outcomes: Vec<_> = catcher
        .attempts()
        .into_iter()
        .map(|attempt| attempt.outcome)
        .collect();
    let expected = [
        Outcome::ClosedBeforeData,
        Outcome::ClosedAfterData(Some(1)),
        Outcome::ClosedAfterData(None),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(catcher.messages().len(), 1);
}

#[tokio::test]
async fn a_slow_reply_comes_late_or_is_not_heard() {
    let catcher = catcher(MailOptions::default()).await;
    let client = client(&catcher, ClientTls::None);
    catcher.script([
        Answer::Slow(Duration::from_millis(200)),
        Answer::Slow(Duration::from_mins(10)),
    ]);
    let started = Instant::now();
    client.send(simple("late")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));

    let sending = tokio::spawn(async move { client.send(simple("unheard")).await });
    catcher
        .wait_for(|mail| mail.subject() == "unheard", PATIENCE)
        .await
        .unwrap();
    sending.abort();
    let deadline = Instant::now() + PATIENCE;
    while catcher.attempts().len() < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(catcher.attempts()[1].outcome, Outcome::NotHeard(2));
}

#[tokio::test]
async fn encryption_is_offered_required_or_there_from_the_start() {
    for (tls, plain_may_send) in [
        (Tls::Offered, true),
        (Tls::Required, false),
        (Tls::Implicit, false),
    ] {
        let catcher = catcher(MailOptions {
            tls,
            ..MailOptions::default()
        })
        .await;
        let parameters = trusting(&catcher);
        let wanted = match tls {
            Tls::Implicit => ClientTls::Wrapper(parameters),
            _ => ClientTls::Required(parameters),
        };
        client(&catcher, wanted)
            .send(simple("secret"))
            .await
            .unwrap();
        assert!(catcher.messages()[0].encrypted, "{tls:?}");

        // Without the authority the client must not believe the server.
        let distrusting = TlsParameters::new("localhost".to_owned()).unwrap();
        let wanted = match tls {
            Tls::Implicit => ClientTls::Wrapper(distrusting),
            _ => ClientTls::Required(distrusting),
        };
        assert!(client(&catcher, wanted).send(simple("x")).await.is_err());
        if tls != Tls::Implicit {
            let plain = client(&catcher, ClientTls::None).send(simple("open")).await;
            assert_eq!(plain.is_ok(), plain_may_send, "{tls:?}");
        }
    }
}

#[tokio::test]
async fn only_who_knows_the_password_may_send() {
    let credentials = Some(("user".to_owned(), "pass word".to_owned()));
    let catcher = catcher(MailOptions {
        credentials,
        ..MailOptions::default()
    })
    .await;
    let with = |password: &str, mechanism| {
        Transport::builder_dangerous("localhost")
            .port(catcher.port())
            .credentials(Credentials::new("user".to_owned(), password.to_owned()))
            .authentication(vec![mechanism])
            .build()
    };
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        with("pass word", mechanism)
            .send(simple("x"))
            .await
            .unwrap();
        assert!(
            with("guess", mechanism)
                .send(simple("x"))
                .await
                .unwrap_err()
                .is_permanent()
        );
    }
    assert!(
        client(&catcher, ClientTls::None)
            .send(simple("x"))
            .await
            .is_err()
    );
    let users: Vec<_> = catcher
        .messages()
        .into_iter()
        .map(|mail| mail.user)
        .collect();
    assert_eq!(users, [Some("user".to_owned()), Some("user".to_owned())]);
}

#[tokio::test]
async fn the_protocol_is_followed_line_by_line() {
    let catcher = catcher(MailOptions::default()).await;
    let mut stream = BufReader::new(TcpStream::connect(catcher.address()).await.unwrap());
    let dialogue = [
        ("", "220"),
        ("MAIL FROM:<a@b.c>", "503"),
        ("HELO me", "250"),
        ("RCPT TO:<x@y.z>", "503"),
        ("MAIL FROM:a@b.c", "501"),
        ("mail from:<a@b.c>", "250"),
        ("MAIL FROM:<a@b.c>", "503"),
        ("DATA", "554"),
        ("RSET", "250"),
        ("NOOP", "250"),
        ("MAIL FROM:<> BODY=8BITMIME", "250"),
        ("RCPT TO:<x@y.z>", "250"),
        ("DATA", "354"),
        ("Subject: bounce\r\n\r\n..\r\n.", "250"),
        ("STARTTLS", "502"),
        ("QUIT", "221"),
    ];
    for (command, code) in dialogue {
        if !command.is_empty() {
            stream
                .write_all(format!("{command}\r\n").as_bytes())
                .await
                .unwrap();
        }
        let mut reply = String::new();
        stream.read_line(&mut reply).await.unwrap();
        assert!(reply.starts_with(code), "{command}: {reply}");
    }
    let kept = catcher.messages().remove(0);
    assert_eq!(
        (kept.from.as_str(), kept.raw.as_slice()),
        ("", &b"Subject: bounce\r\n\r\n.\r\n"[..])
    );
    let abandoned = &catcher.attempts()[0];
    assert_eq!(
        (abandoned.from.as_str(), &abandoned.outcome),
        ("a@b.c", &Outcome::Abandoned)
    );
}

#[tokio::test]
async fn a_folder_of_an_earlier_run_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=2 {
        let folder = Some(folder.path().to_owned());
        let catcher = catcher(MailOptions {
            folder,
            ..MailOptions::default()
        })
        .await;
        client(&catcher, ClientTls::None)
            .send(simple("x"))
            .await
            .unwrap();
        assert_eq!(catcher.messages()[0].number, number);
    }
    assert!(folder.path().join("00002.eml").exists());
}
