package sharedstate.peer;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.errors.InvalidStateStoreException;
import org.apache.kafka.streams.errors.InvalidStateStorePartitionException;
import org.apache.kafka.streams.state.QueryableStoreTypes;

/** Answers queries about what is in this process: nothing is routed to other instances. */
final class HttpApi {
    private final HttpServer server;
    private final ExecutorService threads = Executors.newFixedThreadPool(4);
    private final int partitions;
    private final VoteProcessor.Counters counters;
    private volatile KafkaStreams streams;

    HttpApi(int port, int partitions, VoteProcessor.Counters counters) throws IOException {
        this.partitions = partitions;
        this.counters = counters;
        // Without it an answer on a kept connection waits 40 ms for an acknowledgement.
        System.setProperty("sun.net.httpserver.nodelay", "true");
        server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 128);
        server.setExecutor(threads);
        server.createContext("/state/", exchange -> {
            String path = exchange.getRequestURI().getPath();
            state(exchange, path.substring("/state/".length()).getBytes(StandardCharsets.UTF_8));
        });
        server.createContext("/ready", exchange -> {
            KafkaStreams.State state = state();
            answer(exchange, state == KafkaStreams.State.RUNNING ? 200 : 503, problem(state.name()));
        });
        server.createContext("/stats", exchange -> answer(exchange, 200, stats()));
        server.createContext("/tasks", exchange -> answer(exchange, 200, tasks()));
        server.start();
    }

    int port() {
        return server.getAddress().getPort();
    }

    void serve(KafkaStreams streams) {
        this.streams = streams;
    }

    void stop() {
        server.stop(0);
        threads.shutdownNow();
    }

    private KafkaStreams.State state() {
        return streams == null ? KafkaStreams.State.CREATED : streams.state();
    }

    private void state(HttpExchange exchange, byte[] key) throws IOException {
        if (streams == null) {
            answer(exchange, 503, problem("starting"));
            return;
        }
        int partition = Utils.toPositive(Utils.murmur2(key)) % partitions;
        try {
            byte[] row = streams.store(StoreQueryParameters.fromNameAndType(
                                    VoteProcessor.STORE, QueryableStoreTypes.<byte[], byte[]>keyValueStore())
                            .withPartition(partition))
                    .get(key);
            if (row == null) {
                answer(exchange, 404, problem("not known"));
            } else {
                answer(exchange, 200, States.json(key, row));
            }
        } catch (InvalidStateStorePartitionException e) {
            answer(exchange, 404, problem("partition " + partition + " is not here"));
        } catch (InvalidStateStoreException | IllegalStateException e) {
            answer(exchange, 503, problem(e.getMessage()));
        }
    }

    private ObjectNode stats() throws IOException {
        ObjectNode stats = Json.MAPPER.createObjectNode();
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        stats.put("state", state().name());
        stats.put("cpu_seconds", system.getProcessCpuTime() / 1e9);
        try (var lines = Files.lines(Path.of("/proc/self/status"))) {
            lines.filter(line -> line.startsWith("VmRSS:"))
                    .map(line -> line.replaceAll("[^0-9]", ""))
                    .forEach(kib -> stats.put("rss_mib", Long.parseLong(kib) / 1024));
        }
        stats.put("records", counters.processed.sum());
        stats.put("ignored", counters.ignored.sum());
        stats.put("rejected", counters.rejected.sum());
        stats.put("transitions", counters.transitions.sum());
        return stats;
    }

    /** Apart from the rest: for the lags Streams asks the broker. */
    private ObjectNode tasks() {
        ObjectNode tasks = Json.MAPPER.createObjectNode();
        if (streams != null && streams.state().isRunningOrRebalancing()) {
            int active = 0;
            int standby = 0;
            for (var thread : streams.metadataForLocalThreads()) {
                active += thread.activeTasks().size();
                standby += thread.standbyTasks().size();
            }
            long lag = streams.allLocalStorePartitionLags().values().stream()
                    .flatMap(store -> store.values().stream())
                    .mapToLong(info -> info.offsetLag())
                    .sum();
            tasks.put("active_tasks", active).put("standby_tasks", standby).put("lag", lag);
        }
        return tasks;
    }

    private static ObjectNode problem(String detail) {
        return Json.MAPPER.createObjectNode().put("detail", detail);
    }

    private static void answer(HttpExchange exchange, int status, ObjectNode body) throws IOException {
        try (exchange) {
            byte[] bytes = Json.MAPPER.writeValueAsBytes(body);
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(status, bytes.length);
            exchange.getResponseBody().write(bytes);
        }
    }
}
