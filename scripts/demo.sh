#!/usr/bin/env bash
# Builds the programs and runs the demo: real Kafka, registry and mail, two instances, a simulated attack.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
echo "demo: building the programs; the first time, some minutes" >&2
cargo build --locked --workspace --bins
target=$(cargo metadata --no-deps --locked --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
exec "$target/debug/demo" "$@"
