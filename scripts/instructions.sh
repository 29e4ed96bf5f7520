#!/usr/bin/env bash
# Counts the instructions of a report under callgrind, and fails when there are over 5% more than accepted, or over 5%
# fewer (so that the next growth shows). `scripts/instructions.sh --accept` writes what is counted as accepted.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
accepted=scenarios/site-attack/benches/instructions.tsv
cases=(10-agents 1000-agents)
command -v valgrind >/dev/null || { echo 'valgrind is missing: install the package valgrind' >&2; exit 1; }

binary=$(cargo bench --locked -p site-attack --bench instructions --no-run --message-format=json |
  sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

count() { # case, function: instructions in it and in whatever it calls
  valgrind --tool=callgrind --collect-atstart=no --toggle-collect="*Drain::$2*" \
    --callgrind-out-file="$out/callgrind" "$binary" "$1" >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
  sed -n 's/^\(totals\|summary\): //p' "$out/callgrind" | head -n 1
}

failed=0
for case in "${cases[@]}"; do
  for function in process cut; do
    counted=$(count "$case" "$function")
    # 20,000 reports are counted.
    printf '%s\t%s\t%d\n' "$case" "$function" $((counted / 20000)) >>"$out/counted"
  done
done
printf '%-12s %-8s %10s %10s\n' case function counted accepted
while IFS=$'\t' read -r case function counted; do
  limit=$(awk -F '\t' -v c="$case" -v f="$function" '$1 == c && $2 == f { print $3 }' "$accepted" 2>/dev/null || true)
  printf '%-12s %-8s %10d %10s\n' "$case" "$function" "$counted" "${limit:-none}"
  if [ -z "$limit" ] || [ $((counted * 100)) -gt $((limit * 105)) ] || [ $((counted * 100)) -lt $((limit * 95)) ]; then failed=1; fi
done <"$out/counted"
if [ "${1:-}" = --accept ]; then
  cp "$out/counted" "$accepted"
elif [ "$failed" = 1 ]; then
  echo "instructions per report differ from $accepted by more than 5%: find out why, or accept them with --accept" >&2
  exit 1
fi
