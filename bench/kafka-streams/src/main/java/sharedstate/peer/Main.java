package sharedstate.peer;

import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.specific.SpecificData;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import sharedstate.State;
import sharedstate.siteattack.SiteAttackReport;

/** Runs the scenario site-attack on Kafka Streams until SIGTERM. */
public final class Main {
    private static final Logger LOG = LoggerFactory.getLogger(Main.class);

    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Settings settings = Settings.parse(arguments);
        LOG.info("starting with {}", settings);
        customCoders();
        Registry registry = new Registry(settings.text("schema.registry.url"));
        int partitions = Topics.ensure(settings);
        registry.register(settings.reports(), SiteAttackReport.getClassSchema());
        int stateId = registry.register(settings.states(), State.getClassSchema());

        VoteProcessor.Counters counters = new VoteProcessor.Counters();
        HttpApi http = new HttpApi((int) settings.number("http.port"), partitions, counters);
        LOG.info("listening address=127.0.0.1:{}", http.port());
        Topology topology = topology(settings, counters, registry::byId, stateId);
        KafkaStreams streams = new KafkaStreams(topology, settings.streams(http.port()));
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            LOG.info("state={} before={}", now, before);
            if (now == KafkaStreams.State.NOT_RUNNING || now == KafkaStreams.State.ERROR) {
                ended.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(streams, settings), "shutdown"));
        http.serve(streams);
        streams.start();
        ended.await();
        http.stop();
        if (streams.state() == KafkaStreams.State.ERROR) {
            // The hook has nothing to close any more.
            Runtime.getRuntime().halt(1);
        }
    }

    /** The generated classes' own code instead of a walk over the schema; about half the time. */
    static void customCoders() {
        SpecificData.getForClass(SiteAttackReport.class).setCustomCoders(true);
        SpecificData.getForClass(State.class).setCustomCoders(true);
    }

    static Topology topology(Settings settings, VoteProcessor.Counters counters, Reports.Schemas schemas, int stateId) {
        var rules = new VoteProcessor.Rules(
                settings.number("freshness.ms"),
                (int) settings.number("quorum"),
                settings.number("max.skew.ms"),
                settings.number("expiry.check.ms"));
        StoreBuilder<KeyValueStore<byte[], byte[]>> store = Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore(VoteProcessor.STORE), Serdes.ByteArray(), Serdes.ByteArray())
                .withLoggingEnabled(Map.of());
        store = settings.caching() ? store.withCachingEnabled() : store.withCachingDisabled();
        var bytes = Serdes.ByteArray();
        return new Topology()
                .addSource("reports", bytes.deserializer(), bytes.deserializer(), settings.reports())
                .addProcessor("vote", () -> new VoteProcessor(rules, counters, schemas, stateId), "reports")
                .addStateStore(store, "vote")
                .addSink("states", settings.states(), bytes.serializer(), bytes.serializer(), "vote");
    }

    private static void close(KafkaStreams streams, Settings settings) {
        boolean leave = settings.text("on.close").equals("leave");
        CloseOptions options = CloseOptions.timeout(Duration.ofSeconds(30));
        if (leave) {
            options = options.withGroupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP);
        }
        boolean clean = streams.close(options);
        LOG.info("closed in order={} left={}", clean, leave);
    }
}
