package sharedstate.peer;

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;

/** One block cache for all stores of the process instead of 50 MiB for each, and larger write buffers. */
public final class RocksSettings implements RocksDBConfigSetter {
    static final String CACHE_MB = "peer.rocksdb.cache.mb";
    static final String WRITE_BUFFER_MB = "peer.rocksdb.write.buffer.mb";

    private static Cache cache;

    private BloomFilter filter;

    private static synchronized Cache shared(long bytes) {
        if (cache == null) {
            cache = new LRUCache(bytes);
        }
        return cache;
    }

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
        filter = new BloomFilter(10, false);
        BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
        table.setBlockCache(shared(mebibytes(configs, CACHE_MB)));
        table.setFilterPolicy(filter);
        options.setTableFormatConfig(table);
        options.setWriteBufferSize(mebibytes(configs, WRITE_BUFFER_MB));
    }

    private static long mebibytes(Map<String, Object> configs, String name) {
        return Long.parseLong(String.valueOf(configs.get(name))) << 20;
    }

    @Override
    public void close(String store, Options options) {
        filter.close();
    }
}
