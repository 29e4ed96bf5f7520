package sharedstate.peer;

import java.io.IOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.atomic.LongAdder;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.util.Utf8;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import sharedstate.Cause;
import sharedstate.siteattack.SiteAttackReport;
import sharedstate.siteattack.SiteAttackVerdict;

/** The vote: the rules of scenarios/site-attack, with the same lazy timer per object. */
final class VoteProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    static final String STORE = "objects";

    /** Due objects and, after a restart, rows looked at in one punctuation: it must not hold up the reports. */
    private static final int PER_PUNCTUATION = 5_000;

    /** What all tasks of the process have done. */
    static final class Counters {
        final LongAdder processed = new LongAdder();
        final LongAdder ignored = new LongAdder();
        final LongAdder rejected = new LongAdder();
        final LongAdder transitions = new LongAdder();
    }

    /** The rules. */
    record Rules(long freshnessMs, int quorum, long maxSkewMs, long checkMs) {}

    private final Rules rules;
    private final Counters counters;
    private final Reports reports;
    private final States states;
    private final Expiries expiries = new Expiries();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;
    /** The scan that brings the timers back; null when it is over. */
    private KeyValueIterator<byte[], byte[]> scan;
    private boolean scanned;

    VoteProcessor(Rules rules, Counters counters, Reports.Schemas schemas, int stateSchemaId) {
        this.rules = rules;
        this.counters = counters;
        reports = new Reports(schemas);
        states = new States(stateSchemaId);
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        store = context.getStateStore(STORE);
        context.schedule(Duration.ofMillis(rules.checkMs()), PunctuationType.WALL_CLOCK_TIME, this::punctuate);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        counters.processed.increment();
        byte[] key = record.key();
        SiteAttackReport report;
        try {
            report = reports.decode(record.value());
        } catch (IOException | AvroRuntimeException e) {
            report = null;
        }
        long nowMs = context.currentSystemTimeMs();
        if (report == null || key == null || !same(key, (Utf8) report.getObjectId())
                || report.getObservedAtMs() - nowMs > rules.maxSkewMs()) {
            // Where the service writes a dead letter.
            counters.rejected.increment();
            return;
        }
        Utf8 agent = (Utf8) report.getAgentId();
        long expiry = report.getObservedAtMs() + rules.freshnessMs();
        boolean counted = expiry > nowMs;
        int verdict = report.getVerdict() == SiteAttackVerdict.CLEAR ? Row.CLEAR : Row.UNDER_ATTACK;
        byte[] row = Row.take(
                store.get(key),
                agent.getBytes(),
                agent.getByteLength(),
                report.getObservedAtMs(),
                report.getSequence(),
                verdict,
                counted);
        if (row == null) {
            counters.ignored.increment();
            return;
        }
        settle(key, row, Cause.VOTE, counted ? expiry : Long.MAX_VALUE, nowMs, record.timestamp());
    }

    /** Brings a row that has changed up to date: expiries, decision, transition, timer. */
    private void settle(byte[] key, byte[] row, Cause cause, long firstExpiry, long nowMs, long timestamp) {
        long armed = Row.timer(row);
        // Nothing expires before the armed timer, so until then the report alone needs a look.
        if (armed <= nowMs) {
            firstExpiry = Row.expire(row, rules.freshnessMs(), nowMs);
        }
        boolean transition = Row.decide(row, rules.quorum(), cause, nowMs);
        if (firstExpiry != Long.MAX_VALUE && (armed == Row.NO_TIMER || armed > firstExpiry)) {
            Row.setTimer(row, firstExpiry);
            expiries.add(firstExpiry, key);
        }
        store.put(key, row);
        if (transition) {
            counters.transitions.increment();
            try {
                context.forward(new Record<>(key, states.encode(key, row), timestamp));
            } catch (IOException e) {
                throw new SerializationException("a state cannot be written", e);
            }
        }
    }

    private void punctuate(long nowMs) {
        bringTimersBack();
        for (Expiries.Due due : expiries.takeDue(nowMs, PER_PUNCTUATION)) {
            byte[] held = store.get(due.key());
            if (held == null || Row.timer(held) != due.dueMs()) {
                continue;
            }
            byte[] row = held.clone();
            Row.setTimer(row, Row.NO_TIMER);
            settle(due.key(), row, Cause.EXPIRY, Long.MAX_VALUE, nowMs, nowMs);
        }
    }

    private void bringTimersBack() {
        if (scanned) {
            return;
        }
        if (scan == null) {
            scan = store.all();
        }
        for (int left = PER_PUNCTUATION; left > 0 && scan.hasNext(); left--) {
            KeyValue<byte[], byte[]> entry = scan.next();
            long due = Row.timer(entry.value);
            if (due != Row.NO_TIMER) {
                expiries.add(due, entry.key);
            }
        }
        if (!scan.hasNext()) {
            endScan();
        }
    }

    private void endScan() {
        if (scan != null) {
            scan.close();
            scan = null;
        }
        scanned = true;
    }

    @Override
    public void close() {
        endScan();
    }

    private static boolean same(byte[] key, Utf8 objectId) {
        int length = objectId.getByteLength();
        return key.length == length && Arrays.equals(key, 0, length, objectId.getBytes(), 0, length);
    }
}
