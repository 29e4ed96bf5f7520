//! The schema registry: there, away, slow.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use devkit::Registry;
use reqwest::{Client, Response};

async fn subjects(client: &Client, registry: &Registry) -> reqwest::Result<Response> {
    client
        .get(format!("{}/subjects", registry.url()))
        .timeout(Duration::from_secs(1))
        .send()
        .await
}

// One test: the registry takes seconds to start.
#[tokio::test]
async fn the_registry_keeps_schemas_until_it_is_stopped() {
    let started = Instant::now();
    let registry = Registry::start().await.unwrap();
    eprintln!("the registry was ready after {:?}", started.elapsed());
    let client = Client::builder().no_proxy().build().unwrap();
    let url = registry.url().to_owned();

    let register = client
        .post(format!("{url}/subjects/a-value/versions"))
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .body(r#"{"schema": "{\"type\": \"string\"}"}"#);
    assert!(
        register
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("\"id\"")
    );
    let known = subjects(&client, &registry)
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(known, r#"["a-value"]"#);

    registry.pause().await.unwrap();
    assert!(subjects(&client, &registry).await.unwrap_err().is_timeout());
    registry.resume().await.unwrap();
    assert_eq!(
        subjects(&client, &registry)
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        r#"["a-value"]"#
    );

    registry.stop().await.unwrap();
    assert!(subjects(&client, &registry).await.unwrap_err().is_connect());
    registry.restart().await.unwrap();
    assert_eq!(registry.url(), url);
    assert_eq!(
        subjects(&client, &registry)
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "[]"
    );
}
