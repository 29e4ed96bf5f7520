//! The `devkit` program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEVKIT: &str = env!("CARGO_BIN_EXE_devkit");
const PATIENCE: Duration = Duration::from_secs(30);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts Kafka, but no registry, with `folder` for temporary files.
fn up(folder: &Path) -> (Child, String) {
    let mut child = Command::new(DEVKIT)
        .arg("up")
        .env("TMPDIR", folder)
        .env("SCHEMA_REGISTRY_URL", "http://not.used")
        .env("DEVKIT_JAVA", "wheel")
        .env_remove("KAFKA_BOOTSTRAP")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let bootstrap = lines.next().unwrap().unwrap();
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "export SCHEMA_REGISTRY_URL=http://not.used"
    );
    (
        child,
        bootstrap
            .strip_prefix("export KAFKA_BOOTSTRAP=")
            .unwrap()
            .to_owned(),
    )
}

/// The programs that run in a folder below this one.
fn running_below(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let inside =
        |path: &PathBuf| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    processes.map(|entry| entry.path()).filter(inside).collect()
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.to_string_lossy().contains("devkit-"))
        .collect()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn servers_die_with_a_killed_parent_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut devkit, bootstrap) = up(folder.path());
    assert!(TcpStream::connect(&bootstrap).is_ok());
    assert!(!running_below(folder.path()).is_empty());

    signal(&devkit, rustix::process::Signal::KILL);
    devkit.wait().unwrap();
    eventually("the broker is gone", || {
        running_below(folder.path()).is_empty()
    });
    assert!(TcpStream::connect(&bootstrap).is_err());
    eventually("its data is gone", || leftovers(folder.path()).is_empty());
}

#[test]
fn servers_are_stopped_in_order_on_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let (mut devkit, bootstrap) = up(folder.path());
    signal(&devkit, rustix::process::Signal::INT);
    assert!(devkit.wait().unwrap().success());
    assert!(TcpStream::connect(&bootstrap).is_err());
    assert!(running_below(folder.path()).is_empty());
    assert_eq!(leftovers(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn exec_uses_running_servers_and_exits_as_the_program_did() {
    let output = Command::new(DEVKIT)
        .args([
            "exec",
            "--",
            "sh",
            "-c",
            "echo $KAFKA_BOOTSTRAP $SCHEMA_REGISTRY_URL; exit 7",
        ])
        .env("KAFKA_BOOTSTRAP", "kafka.example:9092")
        .env("SCHEMA_REGISTRY_URL", "http://registry.example")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "kafka.example:9092 http://registry.example\n"
    );
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let mut exec = Command::new(DEVKIT);
    exec.args(["exec", "--", "no-such-program"])
        .env("KAFKA_BOOTSTRAP", "x")
        .env("SCHEMA_REGISTRY_URL", "y");
    let output = exec.output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no-such-program"),
        "{output:?}"
    );
}

#[test]
fn help_teaches() {
    let output = Command::new(DEVKIT).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    for word in [
        "KAFKA_BOOTSTRAP",
        "SHARED_STATE_CACHE",
        "devkit exec -- cargo test",
        "mail",
    ] {
        assert!(help.contains(word), "{word} in\n{help}");
    }
}
