//! What is written into a broker's folder before it starts: `server.properties` and how to log.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use tokio::sync::Mutex;

use super::{Broker, JVM, KafkaOptions};
use crate::java::Java;
use crate::port::Port;
use crate::process::{Home, Program, write};

pub(super) const TOOL_LOG_FILE: &str = "tools-log4j2.properties";
const BROKER_LOG_FILE: &str = "log4j2.properties";

/// Settings that do not depend on the number of brokers: quick to start, quick to react, nothing by accident.
const COMMON: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    // A test that misspells a topic hears of it.
    ("auto.create.topics.enable", "false"),
    // Consumer groups start at once, instead of after 3 s.
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.num.partitions", "5"),
    ("transaction.state.log.num.partitions", "5"),
    ("share.coordinator.state.topic.num.partitions", "3"),
    // Retention and compaction that a test can wait for.
    ("log.retention.check.interval.ms", "1000"),
    ("log.cleaner.backoff.ms", "500"),
    ("log.initial.task.delay.ms", "1000"),
    // A killed broker is let back in when its session has expired (9 s otherwise).
    ("broker.session.timeout.ms", "4000"),
    ("broker.heartbeat.interval.ms", "500"),
    // Elections among processes on one machine.
    ("controller.quorum.election.timeout.ms", "500"),
    ("controller.quorum.election.backoff.max.ms", "500"),
    ("controller.quorum.fetch.timeout.ms", "2000"),
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
];

/// Makes the brokers' folders and settings.
pub(super) fn layout(
    options: &KafkaOptions,
    home: &Home,
    java: &Java,
    class_path: &str,
) -> Result<Vec<Broker>> {
    write(
        &home.path().join(TOOL_LOG_FILE),
        &log4j("WARN", "SYSTEM_ERR"),
    )?;
    let reserve = |_| Ok([Port::reserve()?, Port::reserve()?]);
    let ports = (0..options.brokers)
        .map(reserve)
        .collect::<Result<Vec<_>>>()?;
    let voters = ports
        .iter()
        .enumerate()
        .map(|(index, [_, port])| format!("{}@127.0.0.1:{}", index + 1, port.number()));
    let voters = voters.collect::<Vec<_>>().join(",");
    let make = |(index, ports): (usize, [Port; 2])| {
        let id = index + 1;
        let folder = home.path().join(format!("broker-{id}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let address = format!("127.0.0.1:{}", ports[0].number());
        let controller = format!("127.0.0.1:{}", ports[1].number());
        let mut all = properties(id, options.brokers, &address, &controller, &voters);
        all.push((
            "log.dirs".to_owned(),
            folder.join("data").display().to_string(),
        ));
        all.extend(options.properties.iter().cloned());
        write(&folder.join("server.properties"), &render(&all))?;
        write(&folder.join(BROKER_LOG_FILE), &log4j("INFO", "SYSTEM_OUT"))?;

        let jvm = options
            .jvm
            .clone()
            .unwrap_or_else(|| JVM.map(str::to_owned).to_vec());
        let log = format!("-Dlog4j2.configurationFile={BROKER_LOG_FILE}");
        let rest = [
            log.as_str(),
            "-cp",
            class_path,
            "kafka.Kafka",
            "server.properties",
        ]
        .map(str::to_owned);
        let program = Program {
            name: format!("Kafka broker {id}"),
            executable: java.executable.clone(),
            arguments: jvm.into_iter().chain(rest).collect(),
            environment: Vec::new(),
            log: folder.join("server.log"),
            leftover: home.leftover(),
            folder,
        };
        Ok(Broker {
            address,
            program,
            process: Mutex::new(None),
            _ports: ports,
        })
    };
    ports.into_iter().enumerate().map(make).collect()
}

fn properties(
    id: usize,
    brokers: usize,
    address: &str,
    controller: &str,
    voters: &str,
) -> Vec<(String, String)> {
    let replicas = brokers.min(3).to_string();
    let in_sync = if brokers >= 3 { "2" } else { "1" };
    let id = id.to_string();
    let listeners = format!("PLAINTEXT://{address},CONTROLLER://{controller}");
    let advertised = format!("PLAINTEXT://{address}");
    let own = [
        ("node.id", id.as_str()),
        ("broker.rack", &format!("rack-{id}")),
        ("listeners", &listeners),
        ("advertised.listeners", &advertised),
        ("controller.quorum.voters", voters),
        ("default.replication.factor", &replicas),
        ("min.insync.replicas", in_sync),
        ("offsets.topic.replication.factor", &replicas),
        ("transaction.state.log.replication.factor", &replicas),
        ("transaction.state.log.min.isr", in_sync),
        (
            "share.coordinator.state.topic.replication.factor",
            &replicas,
        ),
        ("share.coordinator.state.topic.min.isr", in_sync),
    ];
    let all = COMMON.iter().chain(&own);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A Java properties file. The last of several settings of one name wins, as Java has it.
fn render(properties: &[(String, String)]) -> String {
    properties
        .iter()
        .fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}={}", value.replace('\\', "\\\\"));
            text
        })
}

fn log4j(level: &str, target: &str) -> String {
    [
        &format!("rootLogger.level = {level}"),
        "rootLogger.appenderRef.out.ref = out",
        "appender.out.type = Console",
        "appender.out.name = out",
        &format!("appender.out.target = {target}"),
        "appender.out.layout.type = PatternLayout",
        "appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} %m%n",
        "",
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_keep_two_replicas_in_sync_and_one_keeps_one() {
        let of = |brokers, name: &str| {
            let all = properties(1, brokers, "127.0.0.1:1", "127.0.0.1:2", "1@127.0.0.1:2");
            all.into_iter().find(|(key, _)| key == name).unwrap().1
        };
        for (brokers, replicas, in_sync) in
            [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (5, "3", "2")]
        {
            assert_eq!(
                of(brokers, "transaction.state.log.replication.factor"),
                replicas
            );
            assert_eq!(of(brokers, "transaction.state.log.min.isr"), in_sync);
        }
    }

    #[test]
    fn properties_are_written_as_java_reads_them() {
        assert_eq!(
            render(&[("a.b".to_owned(), "c\\d=e".to_owned())]),
            "a.b=c\\\\d=e\n"
        );
    }
}
