# Sourced from the project's root: makes cargo link the RocksDB of scripts/build-rocksdb.sh, which builds it where it is
# missing. A ROCKSDB_LIB_DIR that is set already is left alone; so is ROCKSDB_COMPILE, which asks the crate to compile its own.
if [ -z "${ROCKSDB_LIB_DIR:-}" ] && [ -z "${ROCKSDB_COMPILE:-}" ]; then
  ROCKSDB_LIB_DIR=$(scripts/build-rocksdb.sh) || exit 1
  ROCKSDB_STATIC=1
  export ROCKSDB_LIB_DIR ROCKSDB_STATIC
fi
