#!/usr/bin/env bash
# Everything that has to hold before a change is merged, cheapest first; stops at the first stage that fails, and ends
# with a table of what each stage took. `make test` runs it after the set-up.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

# Tests that start no server, then the tools that start servers, then the stories on real servers.
with_servers=(e2e devkit)
target=$(cargo metadata --no-deps --locked --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

names=() times=() current=
table() {
  local status=$? i total=0
  printf '\n%-52s %8s\n' "stage" "seconds"
  for i in "${!names[@]}"; do
    printf '%-52s %8d\n' "${names[$i]}" "${times[$i]}"
    total=$((total + times[i]))
  done
  printf '%-52s %8d\n' "total" "$total"
  if [ -n "$current" ]; then
    printf '\nFAILED in stage: %s\n' "$current" >&2
    [ "$status" != 0 ] || status=1
  else
    printf '\nall stages passed\n'
  fi
  exit "$status"
}
trap table EXIT
trap 'exit 130' INT TERM

stage() { # name, command...
  local name=$1 start=$SECONDS status=0
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  current=$name
  "$@" || status=$?
  names+=("$name") times+=($((SECONDS - start)))
  if [ "$status" != 0 ]; then exit "$status"; fi
  current=
}

stage "format" cargo fmt --all --check
stage "lints" cargo clippy --locked --workspace --all-targets -- -D warnings
stage "build" cargo build --locked --workspace --bins
stage "unit, property, golden and doc tests" cargo test --locked --workspace "${with_servers[@]/#/--exclude=}"
stage "the test servers' own tests" cargo test --locked -p devkit
stage "stories on real Kafka, registry and mail" "$target/debug/devkit" exec -- cargo test --locked -p e2e
if [ "$(uname -sm)" = "Linux x86_64" ]; then
  stage "instructions of a report" scripts/instructions.sh
else
  printf '\ninstructions are not counted: what is accepted was counted on Linux x86_64\n'
fi
stage "a cluster that is broken at random for 3 minutes" "$target/debug/soak" --minutes 3 --seed 7
