//! The jars that a broker runs from: `kafka-jars.txt` names them, Maven Central has them.

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Download, Source};

/// The version of Apache Kafka.
pub const VERSION: &str = "4.3.1";

const LIST: &str = include_str!("../../kafka-jars.txt");

/// The pinned jars in the order of the class path.
///
/// # Errors
/// The list that was built in cannot be read.
pub fn downloads() -> Result<Vec<Download>> {
    parse(LIST)
}

/// Downloads what is missing and returns the class path.
pub(super) async fn class_path(cache: &Cache) -> Result<String> {
    let jars = cache
        .fetch(&format!("Apache Kafka {VERSION}"), &downloads()?)
        .await?;
    let paths = jars.iter().map(|jar| {
        jar.to_str()
            .with_context(|| format!("{} is not UTF-8", jar.display()))
    });
    Ok(paths.collect::<Result<Vec<_>>>()?.join(":"))
}

fn parse(list: &str) -> Result<Vec<Download>> {
    let lines = list
        .lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| {
            parse_line(line)
                .with_context(|| format!("line {} of the list of jars: {line:?}", index + 1))
        })
        .collect()
}

fn parse_line(line: &str) -> Result<Download> {
    let [sha256, size, coordinates] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!("it is not `sha256 size group:artifact:version`");
    };
    let [group, artifact, version] = coordinates.split(':').collect::<Vec<_>>()[..] else {
        bail!("it does not end in `group:artifact:version`");
    };
    if sha256.len() != 64
        || !sha256
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        bail!("its checksum is not 64 hexadecimal digits");
    }
    let file = format!("{artifact}-{version}.jar");
    Ok(Download {
        source: Source::Maven(format!(
            "{}/{artifact}/{version}/{file}",
            group.replace('.', "/")
        )),
        file: ["jars", &file].iter().collect(),
        sha256: sha256.to_owned(),
        size: size.parse().context("its size is not a number")?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_sound() {
        let jars = downloads().unwrap();
        assert!(
            jars.iter()
                .any(|jar| jar.file.ends_with(format!("kafka_2.13-{VERSION}.jar")))
        );
        assert_eq!(
            jars.iter()
                .map(|jar| &jar.file)
                .collect::<BTreeSet<_>>()
                .len(),
            jars.len()
        );
    }

    #[test]
    fn a_line_becomes_a_path_below_the_repository() {
        let hash = "0".repeat(64);
        let jar = parse(&format!(
            "# jars\n\n{hash} 12 org.apache.kafka:kafka_2.13:4.3.1\n"
        ))
        .unwrap()
        .remove(0);
        let path = "org/apache/kafka/kafka_2.13/4.3.1/kafka_2.13-4.3.1.jar";
        assert_eq!((jar.source, jar.size), (Source::Maven(path.to_owned()), 12));
    }

    #[test]
    fn a_bad_line_is_named() {
        let hash = "0".repeat(64);
        for line in [
            format!("{hash} org:a:1"),
            format!("{hash} x org:a:1"),
            format!("{hash} 1 org:a"),
            "00 1 a:b:c".into(),
        ] {
            let error = format!("{:#}", parse(&format!("# jars\n{line}")).unwrap_err());
            assert!(error.contains("line 2"), "{error}");
        }
    }
}
