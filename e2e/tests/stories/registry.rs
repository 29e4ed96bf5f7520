//! A registry behind TLS and a password, as hosted ones are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use common::schema::SiteAttackVerdict::Clear;
use devkit::tls::Certificate;
use e2e::{PATIENCE, story, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::report;

const SITE: &str = "shop.example.com";
/// `alerts:correct horse`, as HTTP basic authentication has it.
const AUTHORIZATION: &str = "Basic YWxlcnRzOmNvcnJlY3QgaG9yc2U=";

/// Takes connections over TLS and passes on those whose first request knows the password.
async fn guard(
    listener: TcpListener,
    certificate: Certificate,
    registry: String,
    let_in: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = certificate.acceptor.clone();
        let (registry, let_in) = (registry.clone(), Arc::clone(&let_in));
        tokio::spawn(async move {
            let mut client = acceptor.accept(client).await?;
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                ensure!(client.read_buf(&mut request).await? > 0, "no request");
            }
            let head = String::from_utf8_lossy(&request).into_owned();
            if !head.contains(AUTHORIZATION) {
                client
                    .write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
                    .await?;
                return Ok(());
            }
            let_in.fetch_add(1, Ordering::Relaxed);
            let mut upstream = TcpStream::connect(&registry).await?;
            upstream.write_all(&request).await?;
            copy_bidirectional(&mut client, &mut upstream).await?;
            Ok(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_behind_tls_and_a_password_is_used() -> Result<()> {
    story("secured", async |app| {
        let certificate = Certificate::make()?;
        let folder = app.folder();
        let ca = folder.join("ca.pem").display().to_string();
        std::fs::write(&ca, &certificate.ca_pem)?;
        let password = folder.join("password").display().to_string();
        std::fs::write(&password, "correct horse\n")?;
        let rest = app.registry_url().strip_prefix("http://");
        let (registry, path) = rest
            .and_then(|r| r.split_once('/'))
            .context("the registry's URL")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}/{path}", listener.local_addr()?.port());
        let let_in = Arc::new(AtomicUsize::new(0));
        tokio::spawn(guard(
            listener,
            certificate,
            registry.to_owned(),
            Arc::clone(&let_in),
        ));

        let flags = [
            ("quorum", "1"),
            ("schema-registry-url", url.as_str()),
            ("schema-registry-user", "alerts"),
            ("schema-registry-password-file", password.as_str()),
            ("schema-registry-ca-file", ca.as_str()),
        ];
        let service = app.state_service("a", &flags)?;
        service.ready().await?;
        app.topics()?
            .report(&report(SITE, "waf-1", Clear, 1))
            .await?;
        let api = service.api().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;
        ensure!(
            let_in.load(Ordering::Relaxed) > 0,
            "nobody came through the guard"
        );
        Ok(())
    })
    .await
}
