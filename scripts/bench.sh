#!/usr/bin/env bash
# Builds everything in release and measures shared-state beside Kafka Streams. Arguments are those of `bench run`; if the
# first is another command of bench (check, tune, takeover, document, flame), it is run instead.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

command -v mvn >/dev/null || die "Maven is missing, which builds the Kafka Streams peer. On Debian: apt-get install maven"
case ${1:-run} in
  run | check | tune | takeover | document | flame | help) ;;
  *) set -- run "$@" ;;
esac
if [ $# = 0 ]; then set -- run; fi

# The peer is built again when something of it is newer than its jar.
peer=bench/kafka-streams/target/peer/kafka-streams-peer-0.1.0.jar
if [ ! -f "$peer" ] || [ -n "$(find bench/kafka-streams/src bench/kafka-streams/pom.xml schemas -newer "$peer" -print -quit)" ]; then
  say "building the Kafka Streams peer; the first time, a minute or two"
  (cd bench/kafka-streams && mvn -q -B -DskipTests clean package)
fi

if [ "$1" = flame ]; then
  # perf walks frame pointers: programs of their own, that keep them.
  export RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" CFLAGS="${CFLAGS:-} -fno-omit-frame-pointer"
  CARGO_TARGET_DIR=$(cargo metadata --no-deps --locked --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/frames
  export CARGO_TARGET_DIR
fi
say "building the programs in release; the first time, ten minutes or more"
cargo build --locked --release -p bench -p state-service -p agent-sim
target=$(cargo metadata --no-deps --locked --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
exec "$target/release/bench" "$@"
