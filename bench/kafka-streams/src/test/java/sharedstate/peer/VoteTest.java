package sharedstate.peer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TestOutputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import sharedstate.Basis;
import sharedstate.Cause;
import sharedstate.State;
import sharedstate.siteattack.SiteAttackReport;
import sharedstate.siteattack.SiteAttackVerdict;

/** The rules, on the real topology without a broker. */
final class VoteTest {
    private static final long NOW = 1_700_000_000_000L;
    private static final String SITE = "shop.example.com";
    private static final int REPORT_ID = 7;
    private static final int STATE_ID = 8;

    @TempDir
    Path folder;

    private final VoteProcessor.Counters counters = new VoteProcessor.Counters();
    private TopologyTestDriver driver;
    private TestInputTopic<byte[], byte[]> reports;
    private TestOutputTopic<byte[], byte[]> states;

    @BeforeEach
    void start() throws IOException {
        Main.customCoders();
        Settings settings = Settings.parse(new String[] {"state.dir=" + folder, "quorum=2", "freshness.ms=60000"});
        var topology = Main.topology(settings, counters, id -> SiteAttackReport.getClassSchema(), STATE_ID);
        driver = new TopologyTestDriver(topology, settings.streams(1), Instant.ofEpochMilli(NOW));
        reports = driver.createInputTopic(settings.reports(), new ByteArraySerializer(), new ByteArraySerializer());
        states = driver.createOutputTopic(settings.states(), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    @AfterEach
    void stop() {
        driver.close();
    }

    @Test
    void aMajorityDecidesAndOnlyChangesArePublished() throws IOException {
        report("b", SiteAttackVerdict.UNDER_ATTACK, NOW, 1);
        report("a", SiteAttackVerdict.CLEAR, NOW, 1);
        report("c", SiteAttackVerdict.UNDER_ATTACK, NOW, 1);
        report("d", SiteAttackVerdict.UNDER_ATTACK, NOW, 1);
        List<State> published = published();
        assertEquals(3, published.size());
        assertState(published.get(0), "UNDETERMINED", null, Basis.NO_QUORUM, Cause.VOTE, 1, "b");
        assertState(published.get(1), "UNDETERMINED", "UNDETERMINED", Basis.TIE, Cause.VOTE, 2, "a", "b");
        assertState(published.get(2), "UNDER_ATTACK", "UNDETERMINED", Basis.VOTES, Cause.VOTE, 3, "a", "b", "c");
    }

    @Test
    void anOlderReportAndARepeatChangeNothing() throws IOException {
        report("a", SiteAttackVerdict.CLEAR, NOW, 5);
        report("b", SiteAttackVerdict.CLEAR, NOW, 1);
        published();
        report("a", SiteAttackVerdict.UNDER_ATTACK, NOW - 1, 6);
        report("a", SiteAttackVerdict.UNDER_ATTACK, NOW, 4);
        report("a", SiteAttackVerdict.UNDER_ATTACK, NOW, 5);
        assertTrue(published().isEmpty());
        assertEquals(3, counters.ignored.sum());
        report("a", SiteAttackVerdict.UNDER_ATTACK, NOW, 6);
        assertState(published().get(0), "UNDETERMINED", "CLEAR", Basis.TIE, Cause.VOTE, 3, "a", "b");
    }

    @Test
    void silentAgentsStopVoting() throws IOException {
        report("a", SiteAttackVerdict.CLEAR, NOW, 1);
        report("b", SiteAttackVerdict.CLEAR, NOW, 1);
        published();
        driver.advanceWallClockTime(Duration.ofSeconds(50));
        report("b", SiteAttackVerdict.CLEAR, NOW + 50_000, 2);
        assertTrue(published().isEmpty());
        driver.advanceWallClockTime(Duration.ofSeconds(11));
        assertState(published().get(0), "UNDETERMINED", "CLEAR", Basis.NO_QUORUM, Cause.EXPIRY, 3, "b");
        driver.advanceWallClockTime(Duration.ofMinutes(10));
        // One vote or none: there is no quorum either way.
        assertTrue(published().isEmpty());
    }

    @Test
    void aReportThatIsStaleOnArrivalDoesNotCount() throws IOException {
        report("a", SiteAttackVerdict.CLEAR, NOW - 60_000, 1);
        assertState(published().get(0), "UNDETERMINED", null, Basis.NO_QUORUM, Cause.VOTE, 1);
    }

    @Test
    void whatIsNoGoodReportIsRejected() throws IOException {
        byte[] good = framed("a", SiteAttackVerdict.CLEAR, NOW, 1);
        byte[] cut = Arrays.copyOf(good, 12);
        byte[] key = SITE.getBytes(StandardCharsets.UTF_8);
        reports.pipeInput(key, new byte[] {1, 2});
        reports.pipeInput(key, cut);
        reports.pipeInput("other".getBytes(StandardCharsets.UTF_8), good);
        report("a", SiteAttackVerdict.CLEAR, NOW + 10_001, 1);
        assertTrue(published().isEmpty());
        assertEquals(4, counters.rejected.sum());
        report("a", SiteAttackVerdict.CLEAR, NOW + 10_000, 1);
        assertEquals(1, published().size());
    }

    private void report(String agent, SiteAttackVerdict verdict, long at, long sequence) throws IOException {
        reports.pipeInput(SITE.getBytes(StandardCharsets.UTF_8), framed(agent, verdict, at, sequence));
    }

    private static byte[] framed(String agent, SiteAttackVerdict verdict, long at, long sequence) throws IOException {
        SiteAttackReport report = SiteAttackReport.newBuilder()
                .setObjectId(SITE)
                .setAgentId(agent)
                .setVerdict(verdict)
                .setObservedAtMs(at)
                .setSequence(sequence)
                .build();
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.writeBytes(ByteBuffer.allocate(5).put((byte) 0).putInt(REPORT_ID).array());
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(bytes, null);
        new SpecificDatumWriter<>(SiteAttackReport.class).write(report, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }

    private List<State> published() throws IOException {
        List<State> all = new ArrayList<>();
        for (byte[] value : states.readValuesToList()) {
            ByteBuffer frame = ByteBuffer.wrap(value);
            assertEquals(0, frame.get());
            assertEquals(STATE_ID, frame.getInt());
            all.add(new SpecificDatumReader<>(State.class)
                    .read(null, DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null)));
        }
        return all;
    }

    private static void assertState(
            State state, String verdict, String previous, Basis basis, Cause cause, long version, String... voters) {
        assertEquals(SITE, state.getObjectId().toString());
        assertEquals("site-attack", state.getScenario().toString());
        assertEquals(verdict, state.getVerdict().toString());
        assertEquals(previous, state.getPreviousVerdict() == null ? null : state.getPreviousVerdict().toString());
        assertEquals(basis, state.getBasis());
        assertEquals(cause, state.getCause());
        assertEquals(version, state.getVersion());
        assertEquals(
                List.of(voters),
                state.getVotes().stream().map(vote -> vote.getAgentId().toString()).toList());
    }
}
