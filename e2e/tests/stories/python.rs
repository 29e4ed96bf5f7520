//! A foreign client: confluent-kafka for Python, with its own Avro and this registry.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{Application, PATIENCE, story, until};

const SITE: &str = "shop.example.com";

/// A Python with the example's requirements, made once in the cache.
fn python() -> Result<PathBuf> {
    let example = example();
    let requirements = std::fs::read_to_string(example.join("requirements.txt"))?;
    let cache = devkit::Cache::open()?;
    let version: String = requirements
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let folder = cache.dir().join(format!("python-{version}"));
    let python = folder.join("bin/python");
    if folder.join("complete").exists() {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder))
    .context("a Python with venv is needed: apt-get install python3-venv")?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "-r"])
        .arg(example.join("requirements.txt")))?;
    std::fs::write(folder.join("complete"), "")?;
    Ok(python)
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python-agent")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{error}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn agent(app: &Application, python: &Path, args: &[&str]) -> Result<String> {
    run(Command::new(python)
        .arg(example().join("agent.py"))
        .args(["--application", app.id()])
        .args(args)
        .env("KAFKA_BOOTSTRAP", app.bootstrap())
        .env("SCHEMA_REGISTRY_URL", app.registry_url()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_agent_reports_and_reads_states() -> Result<()> {
    story("python", async |app| {
        let python = tokio::task::spawn_blocking(python).await??;
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        for name in ["python-1", "python-2"] {
            let at = agent(
                app,
                &python,
                &["report", SITE, "UNDER_ATTACK", "--agent", name],
            )?;
            let partition = common::partitioner::partition_of(SITE.as_bytes(), 8);
            ensure!(
                at.starts_with(&format!("{partition} ")),
                "partitioned as we do: {at}"
            );
        }
        let api = service.api().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the reports count", PATIENCE, look, |v| {
            v.as_deref() == Some("UNDER_ATTACK")
        })
        .await?;
        ensure!(app.topics()?.dead_letters().await?.is_empty());
        let states = agent(app, &python, &["watch", "--count", "2"])?;
        let last: serde_json::Value = serde_json::from_str(states.lines().last().unwrap_or(""))?;
        ensure!(
            last["verdict"] == "UNDER_ATTACK" && last["votes"][0]["agent_id"] == "python-1",
            "{states}"
        );
        Ok(())
    })
    .await
}
