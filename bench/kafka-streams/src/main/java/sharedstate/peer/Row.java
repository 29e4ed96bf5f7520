package sharedstate.peer;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.Arrays;
import sharedstate.Basis;
import sharedstate.Cause;

/**
 * One object in one row of the store: its state and the latest report of each agent, packed, so that a report costs one
 * get, one scan and one put. All methods work on the bytes.
 *
 * <pre>
 *  0 layout  1 verdict  2 previous  3 basis  4 cause  5 since (8)  13 version (8)  21 timer (8)  29 votes (2)
 * 31 votes, sorted by agent id: length (2), agent id, observed at (8), sequence (8), flags (1)
 * </pre>
 *
 * A verdict is 0 for UNDETERMINED, else 1 + its place in the schema; {@code previous} is 0 for none, else 1 + a verdict.
 */
final class Row {
    static final int UNDETERMINED = 0;
    static final int CLEAR = 1;
    static final int UNDER_ATTACK = 2;
    /** No timer is armed. */
    static final long NO_TIMER = 0;

    private static final byte LAYOUT = 1;
    private static final int VERDICT = 1;
    private static final int PREVIOUS = 2;
    private static final int BASIS = 3;
    private static final int CAUSE = 4;
    private static final int SINCE = 5;
    private static final int VERSION = 13;
    private static final int TIMER = 21;
    private static final int COUNT = 29;
    static final int VOTES = 31;
    private static final int AFTER_ID = 17;

    // Flags of a vote: its verdict, and whether it counts (so that such a byte is negative).
    private static final int VOTE = 0x7f;
    private static final int COUNTED = 0x80;

    private static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.BIG_ENDIAN);
    private static final VarHandle SHORT = MethodHandles.byteArrayViewVarHandle(short[].class, ByteOrder.BIG_ENDIAN);

    private Row() {}

    static int verdict(byte[] row) {
        return row[VERDICT];
    }

    /** -1 if there was none. */
    static int previous(byte[] row) {
        return row[PREVIOUS] - 1;
    }

    static Basis basis(byte[] row) {
        return Basis.values()[row[BASIS]];
    }

    static Cause cause(byte[] row) {
        return Cause.values()[row[CAUSE]];
    }

    static long since(byte[] row) {
        return (long) LONG.get(row, SINCE);
    }

    static long version(byte[] row) {
        return (long) LONG.get(row, VERSION);
    }

    static long timer(byte[] row) {
        return (long) LONG.get(row, TIMER);
    }

    static void setTimer(byte[] row, long dueMs) {
        LONG.set(row, TIMER, dueMs);
    }

    static int count(byte[] row) {
        return (short) SHORT.get(row, COUNT);
    }

    // A vote, by where it begins.

    static int agentLength(byte[] row, int at) {
        return (short) SHORT.get(row, at) & 0xffff;
    }

    static int agent(int at) {
        return at + 2;
    }

    static int next(byte[] row, int at) {
        return at + 2 + agentLength(row, at) + AFTER_ID;
    }

    static long observedAt(byte[] row, int at) {
        return (long) LONG.get(row, at + 2 + agentLength(row, at));
    }

    static long sequence(byte[] row, int at) {
        return (long) LONG.get(row, at + 10 + agentLength(row, at));
    }

    static int vote(byte[] row, int at) {
        return row[next(row, at) - 1] & VOTE;
    }

    static boolean counted(byte[] row, int at) {
        return row[next(row, at) - 1] < 0;
    }

    /**
     * Makes this report its agent's latest: returns a new row, or null if the agent has reported this or something newer
     * already. {@code row} is null for an object not seen before.
     */
    static byte[] take(
            byte[] row, byte[] agent, int length, long observedAtMs, long sequence, int verdict, boolean counted) {
        int at = VOTES;
        boolean replaces = false;
        if (row != null) {
            for (int left = count(row); left > 0; left--) {
                int held = agentLength(row, at);
                int order = Arrays.compareUnsigned(row, at + 2, at + 2 + held, agent, 0, length);
                if (order == 0) {
                    long heldAt = observedAt(row, at);
                    if (observedAtMs < heldAt || observedAtMs == heldAt && sequence <= sequence(row, at)) {
                        return null;
                    }
                    replaces = true;
                    break;
                }
                if (order > 0) {
                    break;
                }
                at = next(row, at);
            }
        }
        byte[] changed;
        if (replaces) {
            changed = row.clone();
        } else {
            int size = 2 + length + AFTER_ID;
            int before = row == null ? VOTES : row.length;
            changed = new byte[before + size];
            if (row == null) {
                changed[0] = LAYOUT;
            } else {
                System.arraycopy(row, 0, changed, 0, at);
                System.arraycopy(row, at, changed, at + size, row.length - at);
            }
            SHORT.set(changed, COUNT, (short) (count(changed) + 1));
            SHORT.set(changed, at, (short) length);
            System.arraycopy(agent, 0, changed, at + 2, length);
        }
        LONG.set(changed, at + 2 + length, observedAtMs);
        LONG.set(changed, at + 10 + length, sequence);
        changed[at + 18 + length] = (byte) (verdict | (counted ? COUNTED : 0));
        return changed;
    }

    /** Takes out the votes that have expired; returns the first expiry of the others, or {@link Long#MAX_VALUE}. */
    static long expire(byte[] row, long freshnessMs, long nowMs) {
        long first = Long.MAX_VALUE;
        int at = VOTES;
        for (int left = count(row); left > 0; left--) {
            int next = next(row, at);
            if (row[next - 1] < 0) {
                long expiry = observedAt(row, at) + freshnessMs;
                if (expiry <= nowMs) {
                    row[next - 1] &= VOTE;
                } else {
                    first = Math.min(first, expiry);
                }
            }
            at = next;
        }
        return first;
    }

    /** Counts and decides; true if that is a transition. */
    static boolean decide(byte[] row, int quorum, Cause cause, long nowMs) {
        int clear = 0;
        int attack = 0;
        int at = VOTES;
        for (int left = count(row); left > 0; left--) {
            int next = next(row, at);
            int flags = row[next - 1];
            if (flags < 0) {
                if ((flags & VOTE) == UNDER_ATTACK) {
                    attack++;
                } else {
                    clear++;
                }
            }
            at = next;
        }
        int verdict = UNDETERMINED;
        Basis basis = Basis.VOTES;
        if (clear + attack < quorum) {
            basis = Basis.NO_QUORUM;
        } else if (clear == attack) {
            basis = Basis.TIE;
        } else {
            verdict = clear > attack ? CLEAR : UNDER_ATTACK;
        }
        long version = version(row);
        if (version > 0 && row[VERDICT] == verdict && row[BASIS] == basis.ordinal()) {
            return false;
        }
        row[PREVIOUS] = (byte) (version == 0 ? 0 : 1 + row[VERDICT]);
        row[VERDICT] = (byte) verdict;
        row[BASIS] = (byte) basis.ordinal();
        row[CAUSE] = (byte) cause.ordinal();
        LONG.set(row, SINCE, nowMs);
        LONG.set(row, VERSION, version + 1);
        return true;
    }
}
