#!/usr/bin/env bash
# Builds the RocksDB that the workspace links, once per version and compiler, and prints the folder it is in.
#
# Left alone, the crate `librocksdb-sys` compiles RocksDB file by file, 343 of them, and again for
# every target directory. The same sources as a CMake unity build (24 files to a compiler run) need a fifth of the CPU
# time, and the result is kept outside of the checkout:
#
#   ${XDG_CACHE_HOME:-~/.cache}/shared-state/rocksdb-<version>-<hash>/librocksdb.a
#
# The crate links it where ROCKSDB_LIB_DIR names that folder and ROCKSDB_STATIC is set; scripts/env.sh sets both.
# The hash covers whatever changes the result: sources, compiler, flags. Messages go to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'RocksDB: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- which sources: those of the crates that Cargo.lock names
locked() { awk -v name="\"$1\"" '$1 == "name" { hit = $3 == name } hit && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock; }
version=$(locked librocksdb-sys) lz4_version=$(locked lz4-sys)
if [ -z "$version" ] || [ -z "$lz4_version" ]; then die "Cargo.lock names no librocksdb-sys or no lz4-sys"; fi

# ---- where it goes
cxx=${CXX:-c++}
command -v "$cxx" >/dev/null || die "no C++ compiler ($cxx); \`make setup\` installs one"
options=(
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=24
  -DROCKSDB_BUILD_SHARED=OFF -DPORTABLE=1 -DFAIL_ON_WARNINGS=OFF
  -DWITH_TESTS=OFF -DWITH_BENCHMARK_TOOLS=OFF -DWITH_TOOLS=OFF -DWITH_CORE_TOOLS=OFF -DWITH_TRACE_TOOLS=OFF
  -DWITH_GFLAGS=OFF -DWITH_LIBURING=OFF
)
hash=$(
  { echo "$version $lz4_version ${options[*]} ${CXXFLAGS:-}"; uname -sm; "$cxx" --version; } | cksum | cut -d ' ' -f 1
)
out="${XDG_CACHE_HOME:-$HOME/.cache}/shared-state/rocksdb-${version#*+}-$hash"
if [ -f "$out/librocksdb.a" ]; then
  echo "$out"
  exit
fi

# ---- the sources themselves: cargo downloads them, and knows where it put them
command -v cmake >/dev/null || die "cmake is missing; \`make setup\` installs it"
say "building version ${version#*+}, once for this compiler; about 11 CPU minutes"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --locked --target "$host"
source_of() {
  cargo metadata --locked --offline --filter-platform "$host" --format-version 1 |
    grep -o "\"manifest_path\":\"[^\"]*/$1-[0-9][^\"/]*/Cargo.toml\"" | head -n 1 | sed 's/.*:"//; s|/Cargo.toml"$||'
}
rocksdb=$(source_of librocksdb-sys)/rocksdb
lz4=$(source_of lz4-sys)/liblz4/lib
[ -f "$rocksdb/CMakeLists.txt" ] || die "no CMakeLists.txt in $rocksdb"
[ -f "$lz4/lz4.h" ] || die "no lz4.h in $lz4"

# ---- the build, in a folder of its own, so that an interrupted or a parallel one leaves nothing half done
mkdir -p "$out"
build=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT TERM
log=$build/log
fail() { tail -n 40 "$log" >&2; die "the build failed; its last lines are above"; }

# LZ4 comes from the lz4-sys crate when Rust links, so only its headers are needed here.
cmake -S "$rocksdb" -B "$build" -G 'Unix Makefiles' "${options[@]}" \
  -DCMAKE_CXX_FLAGS="${CXXFLAGS:-} -w -DLZ4 -I$lz4" >"$log" 2>&1 || fail

# A unity file takes up to 1.5 GB to compile: no more at once than there is memory for.
jobs=$(getconf _NPROCESSORS_ONLN)
if [ -r /proc/meminfo ]; then
  fit=$(awk '$1 == "MemAvailable:" { print int($2 / 1500000) }' /proc/meminfo)
  [ "$fit" -ge "$jobs" ] || jobs=$((fit > 1 ? fit : 1))
fi
cmake --build "$build" --target rocksdb --parallel "$jobs" 2>&1 | tee -a "$log" |
  sed -n -u 's/^\(\[ *[0-9]*%\]\) Building.*/RocksDB: \1/p' >&2 || fail

mv "$build/librocksdb.a" "$out/librocksdb.a"
say "ready in $out"
echo "$out"
