package sharedstate.peer;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.streams.StreamsConfig;

/**
 * What the peer can be told, as {@code name=value} arguments or in a properties file: {@code config=FILE}. An argument
 * wins over the file.
 */
final class Settings {
    private static final Map<String, String> DEFAULTS = new TreeMap<>(Map.ofEntries(
            Map.entry("bootstrap.servers", "localhost:9092"),
            Map.entry("schema.registry.url", "http://localhost:8081"),
            Map.entry("application.id", "site-attack"),
            Map.entry("partitions", "8"),
            Map.entry("http.port", "0"),
            Map.entry("state.dir", "kafka-streams-state"),
            Map.entry("threads", "1"),
            Map.entry("commit.interval.ms", "100"),
            // 0 switches caching off.
            Map.entry("cache.mb", "256"),
            Map.entry("standby.replicas", "0"),
            // Kafka's defaults. The interval of heartbeats follows: a third of the session, at most 3 s.
            Map.entry("session.timeout.ms", "45000"),
            // remain: as Streams does by default. leave: tell the group, so that others take over at once.
            Map.entry("on.close", "remain"),
            Map.entry("freshness.ms", "60000"),
            Map.entry("quorum", "2"),
            Map.entry("max.skew.ms", "10000"),
            Map.entry("expiry.check.ms", "250"),
            // One RocksDB block cache and one write-buffer budget for all stores; 0 leaves Streams' own settings.
            Map.entry("rocksdb.cache.mb", "64"),
            Map.entry("rocksdb.write.buffer.mb", "16")));

    /** Clients as somebody who likes throughput sets them; {@code streams.*} arguments win. */
    private static final Map<String, Object> TUNED = Map.ofEntries(
            Map.entry(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2),
            Map.entry(StreamsConfig.REPLICATION_FACTOR_CONFIG, -1),
            Map.entry(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 2000),
            Map.entry(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 4000),
            Map.entry(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20),
            Map.entry(StreamsConfig.consumerPrefix(ConsumerConfig.RECEIVE_BUFFER_CONFIG), 1 << 20),
            Map.entry(StreamsConfig.mainConsumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest"),
            Map.entry(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10),
            Map.entry(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 50),
            Map.entry(StreamsConfig.producerPrefix(ProducerConfig.SEND_BUFFER_CONFIG), 1 << 20),
            Map.entry("enable.metrics.push", false));

    private final Map<String, String> own = new TreeMap<>(DEFAULTS);
    private final Map<String, String> passed = new TreeMap<>();

    static Settings parse(String[] arguments) throws IOException {
        Settings settings = new Settings();
        for (String argument : arguments) {
            if (argument.startsWith("config=")) {
                Properties file = new Properties();
                try (Reader reader = Files.newBufferedReader(Path.of(argument.substring("config=".length())))) {
                    file.load(reader);
                }
                file.forEach((name, value) -> settings.set((String) name, (String) value));
            }
        }
        for (String argument : arguments) {
            int equals = argument.indexOf('=');
            if (equals < 0) {
                throw new IllegalArgumentException(
                        "write name=value instead of " + argument + "; names: " + DEFAULTS.keySet() + ", config, streams.*");
            }
            if (!argument.startsWith("config=")) {
                settings.set(argument.substring(0, equals), argument.substring(equals + 1));
            }
        }
        return settings;
    }

    private void set(String name, String value) {
        if (name.startsWith("streams.")) {
            passed.put(name.substring("streams.".length()), value);
        } else if (DEFAULTS.containsKey(name)) {
            own.put(name, value);
        } else {
            throw new IllegalArgumentException(
                    "there is no setting " + name + "; there are: " + DEFAULTS.keySet() + ", config, streams.*");
        }
    }

    String text(String name) {
        return own.get(name);
    }

    long number(String name) {
        try {
            return Long.parseLong(own.get(name));
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException(name + " must be a number, not " + own.get(name), e);
        }
    }

    String applicationId() {
        return own.get("application.id");
    }

    String reports() {
        return applicationId() + ".reports";
    }

    String states() {
        return applicationId() + ".states";
    }

    boolean caching() {
        return number("cache.mb") > 0;
    }

    /** Settings for Kafka Streams. */
    Properties streams(int httpPort) {
        Properties all = new Properties();
        all.putAll(TUNED);
        all.put(StreamsConfig.APPLICATION_ID_CONFIG, applicationId());
        all.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, text("bootstrap.servers"));
        all.put(StreamsConfig.STATE_DIR_CONFIG, text("state.dir"));
        all.put(StreamsConfig.APPLICATION_SERVER_CONFIG, "127.0.0.1:" + httpPort);
        all.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, (int) number("threads"));
        all.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, number("commit.interval.ms"));
        all.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, number("cache.mb") << 20);
        all.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, (int) number("standby.replicas"));
        long session = number("session.timeout.ms");
        all.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), (int) session);
        all.put(
                StreamsConfig.mainConsumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG),
                (int) Math.min(3000, session / 3));
        if (number("rocksdb.cache.mb") > 0) {
            all.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, RocksSettings.class);
            all.put(RocksSettings.CACHE_MB, number("rocksdb.cache.mb"));
            all.put(RocksSettings.WRITE_BUFFER_MB, number("rocksdb.write.buffer.mb"));
        }
        all.putAll(passed);
        return all;
    }

    @Override
    public String toString() {
        return own + " streams " + passed;
    }
}
