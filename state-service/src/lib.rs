//! The shared-state microservice: hosts a scenario on the engine and answers a REST API for it.
//!
//! A service of your own is a scenario and one line: `state_service::main::<MyScenario>()`.

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use common::{
    avro::Encoder,
    schema,
    shutdown::{self, Shutdown},
    telemetry,
    topics::{LARGE_RECORDS, Names, Spec, Topics},
};
use engine::{
    identity,
    instance::{self, Instance},
    intake::Limits,
    lookup::Lookup,
    memory::{Pool, Shares},
    scenario::{Scenario, ScenarioProcessor},
    store::Shared,
    task,
};
use tokio::{net::TcpListener, runtime::Handle, sync::watch};

use crate::schemas::Schemas;

/// Millions of objects come and go: glibc's allocator spends a fifth of a worker's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod cluster;
mod commands;
pub mod config;
mod http;
mod reset;
mod schemas;

pub use config::Config;

/// The whole of a service's `main`: reads the configuration, runs until a signal, and explains
/// itself if it cannot.
#[must_use]
pub fn main<S: Scenario>() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|word| word == "reset") {
        args.remove(1);
        return reset::main(S::NAME, args);
    }
    let config: Config<S> = common::config::parse();
    telemetry::init(&config.telemetry);
    small_pages();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let shutdown = shutdown::on_signal().context("signal handlers")?;
        run(config, shutdown).await
    });
    // Threads that wait for a broker must not keep the process.
    runtime.shutdown_background();
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    };
    shutdown::exit(code)
}

/// No huge pages: objects of all sizes that come and go leave them half empty. That takes a tenth more memory, and
/// saves nothing that could be measured. The allocator does not ask for them (its feature `no_thp`); some kernels give
/// them unasked.
fn small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay");
    }
}

/// Runs a service until `shutdown`, and leaves the application in order.
///
/// # Errors
/// When it cannot start, or cannot go on: the state directory is not usable, a topic is not what
/// it must be, the address is taken. A broker or registry that is away is waited for.
pub async fn run<S: Scenario>(config: Config<S>, shutdown: Shutdown) -> anyhow::Result<()> {
    let metrics = telemetry::metrics();
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let bound = listener.local_addr()?;
    let (app, shared) = watch::channel(http::Stage::Starting("waiting for Kafka".to_owned()));
    let serving = Shutdown::new();
    let server = tokio::spawn(http::serve::<S>(listener, shared, metrics, serving.clone()));
    tracing::info!(address = %bound, "listening");

    let endpoint = config.endpoint(bound);
    let result = tokio::select! {
        prepared = prepare(&config, &endpoint, &app) => match prepared {
            Ok(instance) => live(instance, &shutdown).await,
            Err(error) => Err(error),
        },
        () = shutdown.cancelled() => Ok(()),
    };
    serving.cancel();
    // Requests under way are answered, but a slow client does not hold the process.
    if tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .is_err()
    {
        tracing::warn!("some clients were still connected");
    }
    result
}

async fn live(instance: Instance, shutdown: &Shutdown) -> anyhow::Result<()> {
    tokio::select! {
        ended = instance.ended() => ended,
        () = shutdown.cancelled() => instance.stop().await,
    }
}

/// Starts the engine, waiting for whatever is away.
async fn prepare<S: Scenario>(
    config: &Config<S>,
    endpoint: &str,
    app: &watch::Sender<http::Stage<S>>,
) -> anyhow::Result<Instance> {
    let application_id = config.application_id().to_owned();
    let settings = &config.application;
    let identity = identity::claim(
        &settings.state_dir,
        &application_id,
        settings.instance_id.as_deref(),
    )?;
    tracing::info!(application_id, instance = identity.instance_id, "starting");
    let names = Names::of(&application_id);
    let topics = async {
        let partitions = ensure_topics(config, &names, app).await?;
        tracing::debug!("the topics are there");
        app.send_replace(http::Stage::Starting(
            "waiting for the schema registry".into(),
        ));
        anyhow::Ok(partitions)
    };
    let (schemas, partitions) = tokio::try_join!(Schemas::register(config, &names), topics)?;
    let Schemas {
        registry,
        codecs,
        dead_letters,
        commands,
    } = schemas;

    let scenario = Arc::new(S::new(config.rules.clone()));
    let max_skew_ms = i64::try_from(config.max_skew.as_millis())?;
    let shares = Shares::of(settings.memory_mb, settings.workers);
    let processor_codecs = Arc::clone(&codecs);
    let instance = instance::Settings {
        kafka: config.kafka.clone(),
        application_id,
        partitions,
        endpoint: endpoint.to_owned(),
        rack: settings.rack.clone(),
        rules: settings.rules(),
        restart_grace: settings.restart_grace,
        shared: Shared::on_disk(shares.stores),
        shares,
        workers: settings.workers,
        stuck_after: settings.stuck_after,
        commit_interval: settings.commit_interval,
        task: task_settings(config, &names, partitions, dead_letters, &shares),
        factory: Arc::new(move |_| {
            ScenarioProcessor::new(
                Arc::clone(&scenario),
                Arc::clone(&processor_codecs),
                max_skew_ms,
            )
        }),
        lookup: Lookup::new(registry.clone(), Handle::current()),
        names,
        identity,
    };
    // Joining reads the membership topics first, which waits for the brokers.
    let instance = tokio::task::spawn_blocking(move || Instance::start(instance)).await??;
    app.send_replace(http::Stage::Running(Arc::new(http::App {
        query: instance.query(),
        commands,
        codecs,
        registry,
        client: cluster::Client::default(),
        longest_object_id: settings.max_object_id_bytes,
    })));
    Ok(instance)
}

fn task_settings<S: Scenario>(
    config: &Config<S>,
    names: &Names,
    partitions: u32,
    dead_letters: Encoder<schema::DeadLetter>,
    shares: &Shares,
) -> task::Settings {
    task::Settings {
        source_topic: names.reports.as_str().into(),
        partitions,
        limits: Limits {
            object_id_bytes: config.application.max_object_id_bytes,
            record_bytes: config.application.max_record_bytes,
        },
        dead_letters,
        objects: Pool::of(shares.objects),
    }
}

/// Creates or checks the topics, for as long as the brokers are away, and returns the partitions
/// of the source.
async fn ensure_topics<S: Scenario>(
    config: &Config<S>,
    names: &Names,
    app: &watch::Sender<http::Stage<S>>,
) -> anyhow::Result<u32> {
    let settings = &config.application;
    let kafka = config
        .kafka
        .client(&format!("{}-admin", config.application_id()));
    let source = [spec(
        &names.reports,
        settings.partitions,
        false,
        false,
        Vec::new(),
    )];
    let replication = settings.replication_factor;
    loop {
        let error = match try_topics(&kafka, &source, names, replication).await {
            Ok(partitions) => return Ok(partitions),
            Err(error) => error,
        };
        // A topic that is not what it must be does not become so by waiting.
        if error.downcast_ref::<rdkafka::error::KafkaError>().is_none() && !is_away(&error) {
            return Err(error);
        }
        let why = format!("{error:#}");
        tracing::warn!(
            why,
            brokers = config.kafka.bootstrap_servers,
            "Kafka is not ready, trying again"
        );
        app.send_replace(http::Stage::Starting(format!("waiting for Kafka: {why}")));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn is_away(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(<dyn std::error::Error + 'static>::is::<rdkafka::error::KafkaError>)
        || error.to_string().contains("the brokers say nothing")
}

async fn try_topics(
    kafka: &rdkafka::ClientConfig,
    source: &[Spec],
    names: &Names,
    replication: i32,
) -> anyhow::Result<u32> {
    let timeout = Duration::from_secs(10);
    let topics = Topics::look(kafka, timeout)?;
    let counts = topics.ensure(source, replication).await?;
    let partitions = counts.first().copied().context("the source topic")?;
    let others = [
        (&names.states, partitions, true, true),
        (&names.changelog, partitions, true, true),
        (&names.dead_letters, partitions, false, false),
        (&names.instances, 1, true, true),
        (&names.plans, 1, true, true),
    ];
    let others = others.map(|(name, partitions, exact, compact)| {
        spec(name, partitions, exact, compact, vec![LARGE_RECORDS])
    });
    topics.ensure(&others, replication).await?;
    topics.close();
    Ok(partitions)
}

fn spec(
    name: &str,
    partitions: u32,
    exact: bool,
    compact: bool,
    config: Vec<(&'static str, &'static str)>,
) -> Spec {
    Spec {
        name: name.to_owned(),
        partitions,
        exact,
        compact,
        config,
    }
}
