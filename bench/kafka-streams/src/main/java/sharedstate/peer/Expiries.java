package sharedstate.peer;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * When objects have to be looked at again because a vote expires: one entry per object, in memory. A row tells which of
 * its entries is in force, so nothing is ever removed; after a restart one scan of the store brings the entries back.
 */
final class Expiries {
    /** A due object. */
    record Due(byte[] key, long dueMs) {}

    private final TreeMap<Long, List<byte[]>> byTime = new TreeMap<>();

    void add(long dueMs, byte[] key) {
        byTime.computeIfAbsent(dueMs, time -> new ArrayList<>(1)).add(key);
    }

    /** Up to {@code limit} entries that are due (and the rest of the last one's millisecond), earliest first. */
    List<Due> takeDue(long nowMs, int limit) {
        List<Due> due = new ArrayList<>();
        while (due.size() < limit && !byTime.isEmpty() && byTime.firstKey() <= nowMs) {
            Map.Entry<Long, List<byte[]>> first = byTime.pollFirstEntry();
            first.getValue().forEach(key -> due.add(new Due(key, first.getKey())));
        }
        return due;
    }
}
