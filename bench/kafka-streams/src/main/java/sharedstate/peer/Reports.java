package sharedstate.peer;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DatumReader;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import sharedstate.siteattack.SiteAttackReport;

/** Decodes reports. One per task: it keeps one record and reads every report into it. */
final class Reports {
    /** Where schemas come from. */
    interface Schemas {
        Schema byId(int id) throws IOException;
    }

    private final Schemas schemas;
    private final Map<Integer, DatumReader<SiteAttackReport>> readers = new HashMap<>();
    private int lastId = -1;
    private DatumReader<SiteAttackReport> last;
    private BinaryDecoder decoder;
    private SiteAttackReport report;

    Reports(Schemas schemas) {
        this.schemas = schemas;
    }

    /** The report in these bytes, valid until the next call; null if they hold something else. */
    SiteAttackReport decode(byte[] value) throws IOException {
        if (value == null || value.length < 5 || value[0] != 0) {
            return null;
        }
        int id = ByteBuffer.wrap(value, 1, 4).getInt();
        if (id != lastId) {
            // Once per schema: from here on its id is known.
            if (!readers.containsKey(id)) {
                readers.put(id, reader(schemas.byId(id)));
            }
            last = readers.get(id);
            lastId = id;
        }
        if (last == null) {
            return null;
        }
        decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
        report = last.read(report, decoder);
        return report;
    }

    private static DatumReader<SiteAttackReport> reader(Schema writer) {
        Schema own = SiteAttackReport.getClassSchema();
        return writer.getFullName().equals(own.getFullName()) ? new SpecificDatumReader<>(writer, own) : null;
    }
}
