package sharedstate.peer;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.avro.util.Utf8;
import sharedstate.State;
import sharedstate.Vote;

/** What others see of an object: the published state and the answer to a query. One per task: it keeps buffers. */
final class States {
    private static final Utf8 SCENARIO = new Utf8("site-attack");
    private static final String[] NAMES = {"UNDETERMINED", "CLEAR", "UNDER_ATTACK"};
    private static final Utf8[] VERDICTS = Arrays.stream(NAMES).map(Utf8::new).toArray(Utf8[]::new);

    private final byte[] frame;
    private final SpecificDatumWriter<State> writer = new SpecificDatumWriter<>(State.class);
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(1024);
    private BinaryEncoder encoder;

    States(int schemaId) {
        frame = ByteBuffer.allocate(5).put((byte) 0).putInt(schemaId).array();
    }

    /** The state of a row, framed. */
    byte[] encode(byte[] key, byte[] row) throws IOException {
        State state = new State();
        state.setObjectId(new Utf8(key));
        state.setScenario(SCENARIO);
        state.setVerdict(VERDICTS[Row.verdict(row)]);
        int previous = Row.previous(row);
        state.setPreviousVerdict(previous < 0 ? null : VERDICTS[previous]);
        state.setBasis(Row.basis(row));
        state.setCause(Row.cause(row));
        state.setSinceMs(Row.since(row));
        state.setVersion(Row.version(row));
        state.setVotes(votes(row));
        bytes.reset();
        bytes.writeBytes(frame);
        encoder = EncoderFactory.get().binaryEncoder(bytes, encoder);
        writer.write(state, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }

    private static List<Vote> votes(byte[] row) {
        List<Vote> votes = new ArrayList<>(Row.count(row));
        int at = Row.VOTES;
        for (int left = Row.count(row); left > 0; left--) {
            if (Row.counted(row, at)) {
                int agent = Row.agent(at);
                Utf8 id = new Utf8(Arrays.copyOfRange(row, agent, agent + Row.agentLength(row, at)));
                Utf8 verdict = VERDICTS[Row.vote(row, at)];
                votes.add(new Vote(id, verdict, 1L, Row.observedAt(row, at), Row.sequence(row, at)));
            }
            at = Row.next(row, at);
        }
        return votes;
    }

    /** The state of a row as the REST API of shared-state tells it. */
    static ObjectNode json(byte[] key, byte[] row) {
        ObjectNode state = Json.MAPPER.createObjectNode();
        state.put("object_id", new String(key, StandardCharsets.UTF_8));
        state.put("scenario", SCENARIO.toString());
        state.put("verdict", NAMES[Row.verdict(row)]);
        int previous = Row.previous(row);
        state.put("previous_verdict", previous < 0 ? null : NAMES[previous]);
        state.put("basis", Row.basis(row).name());
        state.put("cause", Row.cause(row).name());
        state.put("since_ms", Row.since(row));
        state.put("version", Row.version(row));
        ArrayNode votes = state.putArray("votes");
        for (Vote vote : votes(row)) {
            votes.addObject()
                    .put("agent_id", vote.getAgentId().toString())
                    .put("verdict", vote.getVerdict().toString())
                    .put("weight", vote.getWeight())
                    .put("observed_at_ms", vote.getObservedAtMs())
                    .put("sequence", vote.getSequence());
        }
        state.putNull("override");
        return state;
    }
}
