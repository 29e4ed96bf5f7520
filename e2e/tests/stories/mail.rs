//! From an agent's report to the mail, and what the mail server may do to it.

use anyhow::{Result, ensure};
use common::schema::SiteAttackVerdict::{Clear, UnderAttack};
use devkit::{
    Answer, MailCatcher, MailOptions,
    mail::{At, Tls},
};
use e2e::{Application, PATIENCE, Service, story, until};

use crate::report;

const ROUTES: &str = r#"
[[routes]]
name = "operators"
recipients = ["ops@example.com", "night@example.com"]
transitions = ["* -> UNDER_ATTACK", "UNDER_ATTACK -> *"]
"#;
const SITE: &str = "shop.example.com";
const AGENTS: [&str; 3] = ["waf-1", "waf-2", "probe-1"];

async fn catcher() -> Result<MailCatcher> {
    MailCatcher::start(MailOptions::default()).await
}

async fn notifier(app: &Application, catcher: &MailCatcher) -> Result<Service> {
    let url = format!("smtp://{}", catcher.address());
    let notifier = app.notifier("notifier", &url, ROUTES, &[("retry-pause", "50ms")])?;
    notifier.ready().await?;
    Ok(notifier)
}

/// All agents say this of the site.
async fn all_say(
    app: &Application,
    verdict: common::schema::SiteAttackVerdict,
    sequence: i64,
) -> Result<()> {
    let topics = app.topics()?;
    for agent in AGENTS {
        topics
            .report(&report(SITE, agent, verdict, sequence))
            .await?;
    }
    Ok(())
}

async fn verdict_is(service: &Service, verdict: &str) -> Result<()> {
    let api = service.api().await?;
    let look = async || Ok(api.get(SITE).await?.map(|state| state.verdict));
    until("the verdict", PATIENCE, look, |v| {
        v.as_deref() == Some(verdict)
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_every_agent_reaches_the_state_and_the_mail() -> Result<()> {
    story("mail", async |app| {
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        let catcher = catcher().await?;
        let _notifier = notifier(app, &catcher).await?;

        all_say(app, Clear, 1).await?;
        verdict_is(&service, "CLEAR").await?;
        all_say(app, UnderAttack, 2).await?;
        verdict_is(&service, "UNDER_ATTACK").await?;

        let reports = service.api().await?.reports(SITE).await?;
        let agents: Vec<&str> = reports.iter().map(|r| r.agent_id.as_str()).collect();
        ensure!(agents == ["probe-1", "waf-1", "waf-2"], "{agents:?}");
        ensure!(
            reports
                .iter()
                .all(|r| r.report["attack_kind"] == "http-flood")
        );

        let mails = catcher.wait_for_count(2, PATIENCE).await?;
        let mut to: Vec<String> = mails.iter().flat_map(|m| m.to.clone()).collect();
        to.sort();
        ensure!(to == ["night@example.com", "ops@example.com"], "{to:?}");
        for mail in mails {
            let subject = mail.subject();
            ensure!(
                subject.contains(SITE) && subject.contains("UNDER_ATTACK"),
                "{subject}"
            );
            let text = mail.text();
            ensure!(
                text.contains("waf-1"),
                "the evidence is in the text:\n{text}"
            );
            ensure!(mail.html().contains("waf-1"));
        }

        all_say(app, Clear, 3).await?;
        let mails = catcher.wait_for_count(4, PATIENCE).await?;
        ensure!(mails.len() == 4, "two recipients, two changes");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_with_trouble_gets_every_mail_in_the_end() -> Result<()> {
    story("mail-trouble", async |app| {
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        let catcher = catcher().await?;
        catcher.script([
            Answer::Temporary(At::Rcpt, "450 4.2.1 try later".into()),
            Answer::CloseBeforeData,
            Answer::Temporary(At::Data, "451 4.3.0 try later".into()),
            Answer::CloseAfterData { keep: true },
        ]);
        let notifier = notifier(app, &catcher).await?;
        all_say(app, Clear, 1).await?;
        verdict_is(&service, "CLEAR").await?;
        all_say(app, UnderAttack, 2).await?;

        // The mail whose connection was lost after DATA came twice, with one Message-ID.
        let mails = catcher.wait_for_count(3, PATIENCE).await?;
        let mut ids: Vec<_> = mails
            .iter()
            .map(|m| m.header("Message-ID").unwrap_or_default().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        ensure!(ids.len() == 2, "two recipients, two Message-IDs: {ids:?}");

        // Only then are the offsets committed.
        let group = format!("{}.notifier", app.id());
        let topics = app.topics()?;
        let states = topics.names().states.clone();
        let look = async || {
            let committed = topics.committed(&group, &states).await?;
            let last = topics.states().await?;
            let expected = last.iter().map(|(record, _)| record.offset + 1).max();
            Ok((committed.values().copied().max(), expected))
        };
        until("the offsets are committed", PATIENCE, look, |(c, e)| c >= e).await?;
        drop(notifier);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mail_is_a_dead_letter_and_the_others_go_on() -> Result<()> {
    story("mail-refused", async |app| {
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        let catcher = catcher().await?;
        catcher.refuse("night@example.com");
        let _notifier = notifier(app, &catcher).await?;
        all_say(app, Clear, 1).await?;
        verdict_is(&service, "CLEAR").await?;
        all_say(app, UnderAttack, 2).await?;
        let mails = catcher.wait_for_count(1, PATIENCE).await?;
        ensure!(mails[0].to == ["ops@example.com"], "{:?}", mails[0].to);

        let topics = app.topics()?;
        let letters = format!("{}.notifier.dead-letters", app.id());
        let look = async || {
            let letters = topics
                .decoded::<common::schema::DeadLetter>(&letters, common::schema::DEAD_LETTER)
                .await?;
            Ok(letters
                .into_iter()
                .filter_map(|(_, letter)| letter.map(|l| l.reason))
                .collect::<Vec<_>>())
        };
        until("the dead letter", PATIENCE, look, |r| {
            r == &["mail-refused"]
        })
        .await?;
        Ok(())
    })
    .await
}

/// Over TLS, with a password from a file, trusting only the server's own authority.
async fn mails_over(name: &str, tls: Tls, scheme: &str) -> Result<()> {
    story(name, async |app| {
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        let catcher = MailCatcher::start(MailOptions {
            tls,
            credentials: Some(("alerts".into(), "correct horse".into())),
            ..MailOptions::default()
        })
        .await?;
        let folder = app.folder();
        let password = folder.join("password").display().to_string();
        std::fs::write(&password, "correct horse\n")?;
        let ca = folder.join("ca.pem").display().to_string();
        std::fs::write(&ca, catcher.ca_pem().unwrap_or_default())?;
        let url = format!("{scheme}://localhost:{}", catcher.port());
        let flags = [
            ("smtp-user", "alerts"),
            ("smtp-password-file", password.as_str()),
            ("smtp-ca-file", ca.as_str()),
            ("retry-pause", "50ms"),
        ];
        let _notifier = app.notifier("notifier", &url, ROUTES, &flags)?;
        all_say(app, Clear, 1).await?;
        verdict_is(&service, "CLEAR").await?;
        all_say(app, UnderAttack, 2).await?;
        for mail in catcher.wait_for_count(2, PATIENCE).await? {
            ensure!(mail.encrypted, "{mail:?}");
            ensure!(mail.user.as_deref() == Some("alerts"), "{:?}", mail.user);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_out_by_starttls() -> Result<()> {
    mails_over("starttls", Tls::Required, "smtp+starttls").await
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_out_by_implicit_tls() -> Result<()> {
    mails_over("smtps", Tls::Implicit, "smtps").await
}
