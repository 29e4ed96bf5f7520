#!/usr/bin/env bash
# Checks that everything needed to build and test is there, and installs what is not: by apt-get on Debian and Ubuntu; on
# other systems it names what is missing. With everything in place it takes a moment and says one line.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- system packages: what for, how to tell, and how Debian calls it
has_libclang() { # where bindgen looks for it
  local pattern file
  for pattern in ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib/llvm*/lib /usr/lib /usr/lib64 /usr/lib/*-linux-gnu /usr/local/lib \
    /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib /Library/Developer/CommandLineTools/usr/lib; do
    for file in "$pattern"/libclang.so* "$pattern"/libclang-*.so* "$pattern"/libclang.dylib; do
      # libclang-cpp is another library.
      if [ -e "$file" ] && [[ $file != */libclang-cpp* ]]; then return; fi
    done
  done
  return 1
}
has_openssl() { have pkg-config && pkg-config --exists openssl; }
# Instructions are counted where their number is known (see scripts/instructions.sh).
has_valgrind() { [ "$(uname -sm)" != "Linux x86_64" ] || have valgrind; }
has_python() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

missing=() packages=()
need() { # what it is for, the Debian packages
  missing+=("$1")
  shift
  packages+=("$@")
}
check() {
  missing=() packages=()
  have cc && have c++ || need "a C and a C++ compiler (Kafka's client, RocksDB)" g++
  have make || need "make (Kafka's client, RocksDB)" make
  have cmake || need "CMake (RocksDB)" cmake
  have pkg-config || need "pkg-config (to find OpenSSL)" pkg-config
  has_openssl || need "OpenSSL's headers (TLS)" libssl-dev
  has_libclang || need "libclang (to read RocksDB's header)" libclang-dev
  has_valgrind || need "valgrind (tests count instructions)" valgrind
  has_python || need "Python 3 with venv (one test runs a Python producer)" python3 python3-venv
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo ${unattended:+-n} "$@"; fi; }
install() {
  local command="apt-get install -y --no-install-recommends ${packages[*]}" unattended=1
  if [ -t 0 ] && [ -z "${CI:-}" ]; then unattended=; fi
  if ! have apt-get; then
    die "please install these with your system's package manager, then run this again. Debian's names: ${packages[*]}"
  fi
  if [ "$(id -u)" != 0 ]; then
    have sudo || die "neither root nor sudo: run as root: apt-get update && $command"
    if [ -z "$unattended" ]; then
      local answer
      read -r -p "setup: install ${packages[*]} with sudo apt-get? [Y/n] " answer
      case $answer in [nN]*) die "nothing installed; the command is: $command" ;; esac
    fi
  fi
  say "installing ${packages[*]} with apt-get; one to three minutes"
  local log
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive $command; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt-get failed (its whole output: $log); the command was: apt-get update && $command"
  fi
  rm -f "$log"
}

check
if [ ${#missing[@]} -gt 0 ]; then
  for what in "${missing[@]}"; do say "missing: $what"; done
  install
  check
  [ ${#missing[@]} = 0 ] || die "still missing after the installation: ${missing[*]}"
fi

# ---- Rust
channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
  die "cargo is in ~/.cargo/bin, which is not in PATH: run \`. ~/.cargo/env\` first"
fi
have cargo || die "Rust is missing. Install it with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
if have rustup && ! rustup run "$channel" rustc --version >/dev/null 2>&1; then
  say "downloading Rust $channel through rustup; a minute"
  rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt
fi
version=$(cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n' "$channel" "$version" | sort -V | head -n 1)" != "$channel" ]; then
  die "Rust $version is too old: $channel or newer is needed. With rustup (https://rustup.rs) the right one comes by itself"
fi

# ---- RocksDB
. scripts/env.sh
say "ready: Rust $version, RocksDB in ${ROCKSDB_LIB_DIR:-cargo\'s hands}"
