#!/usr/bin/env bash
# Builds the programs and runs a soak: breaks a cluster on purpose and checks that nothing was lost, doubled or wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
echo "soak: building the programs; the first time, some minutes" >&2
cargo build --locked -p soak -p state-service
target=$(cargo metadata --no-deps --locked --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
exec "$target/debug/soak" "$@"
