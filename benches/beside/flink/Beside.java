import java.util.Arrays;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.functions.AggregateFunction;

/**
 * The task of beside.py as a job of Flink SQL, in one process with a cluster of its own:
 *
 * <pre>
 * Beside FILE OUT CORES            a batch over a file
 * Beside BROKERS/TOPIC OUT CORES   a stream of a topic, up to its present end
 * </pre>
 *
 * It writes the folders OUT/usage, OUT/latency and OUT/callers, of JSON lines.
 */
public final class Beside {
    /**
     * The 99th percentile of a group by nearest rank: the smallest value with at least 99 % of the group at or below it.
     * Flink's own PERCENTILE interpolates, so its rows would differ from the others'.
     */
    public static final class P99 extends AggregateFunction<Long, P99.Group> {
        public static final class Group {
            public long[] values = new long[8];
            public int count;
        }

        @Override
        public Group createAccumulator() {
            return new Group();
        }

        public void accumulate(Group group, Long value) {
            if (value == null) {
                return;
            }
            if (group.count == group.values.length) {
                group.values = Arrays.copyOf(group.values, 2 * group.count);
            }
            group.values[group.count++] = value;
        }

        public void merge(Group group, Iterable<Group> others) {
            for (Group other : others) {
                for (int i = 0; i < other.count; i++) {
                    accumulate(group, other.values[i]);
                }
            }
        }

        @Override
        public Long getValue(Group group) {
            if (group.count == 0) {
                return null;
            }
            long[] sorted = Arrays.copyOf(group.values, group.count);
            Arrays.sort(sorted);
            return sorted[(int) ((group.count * 99L + 99) / 100) - 1];
        }
    }

    private static final String CALLS = """
            CREATE TABLE calls (
                requestId STRING, requestTime BIGINT, apiKey STRING, status INT, latencyMs DOUBLE, ip STRING,
                called_at AS TO_TIMESTAMP_LTZ(requestTime, 3), read_at AS PROCTIME(),
                WATERMARK FOR called_at AS called_at - INTERVAL '5' SECOND
            ) WITH (%s, 'format' = 'json')""";

    private static final String FILE = "'connector' = 'filesystem', 'path' = '%s'";

    private static final String TOPIC = """
            'connector' = 'kafka', 'properties.bootstrap.servers' = '%s', 'topic' = '%s',
            'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'""";

    /** Each call once: a repeated record is the same in all members. */
    private static final String ONCE_OF_FILE = """
            CREATE TEMPORARY VIEW once AS
            SELECT DISTINCT requestId, apiKey, status, latencyMs, ip, called_at FROM calls""";

    /** Each call once, by the time at which it was read: so it is known at once, and keeps its event time. */
    private static final String ONCE_OF_TOPIC = """
            CREATE TEMPORARY VIEW once AS
            SELECT apiKey, status, latencyMs, ip, called_at
            FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY requestId ORDER BY read_at) AS nth FROM calls)
            WHERE nth = 1""";

    private static final String SINK = """
            CREATE TABLE %1$s (key_id STRING, window_start BIGINT, %2$s)
            WITH ('connector' = 'filesystem', 'path' = '%3$s/%1$s', 'format' = 'json')""";

    /** A key becomes its id once a group, and not once a call. */
    private static final String VIEW = """
            INSERT INTO %1$s
            SELECT COALESCE(SUBSTR(SHA256(apiKey), 1, 32), 'anonymous'), UNIX_TIMESTAMP(CAST(window_start AS STRING)), %3$s
            FROM (
                SELECT apiKey, window_start, %4$s
                FROM TUMBLE(TABLE once, DESCRIPTOR(called_at), INTERVAL %2$s)
                GROUP BY apiKey, window_start, window_end
            )""";

    public static void main(String[] args) {
        String from = args[0];
        String out = args[1];
        int slash = from.indexOf('/');
        boolean stream = slash > 0;
        // A cluster in one process has 128 MiB for sorting and grouping unless it is told otherwise, and copies each row
        // between operators.
        Configuration cluster = new Configuration();
        cluster.setString("taskmanager.memory.managed.size", "1g");
        cluster.setString("pipeline.object-reuse", "true");
        cluster.setString("parallelism.default", args[2]);
        EnvironmentSettings.Builder settings = EnvironmentSettings.newInstance().withConfiguration(cluster);
        TableEnvironment tables = TableEnvironment.create(
                (stream ? settings.inStreamingMode() : settings.inBatchMode()).build());
        tables.getConfig().set("table.local-time-zone", "UTC");
        // How long a request id is remembered, and how often results become visible.
        tables.getConfig().set("table.exec.state.ttl", "1 h");
        tables.getConfig().set("execution.checkpointing.interval", "10 s");
        tables.createTemporarySystemFunction("P99", P99.class);
        tables.executeSql(CALLS.formatted(
                stream ? TOPIC.formatted(from.substring(0, slash), from.substring(slash + 1)) : FILE.formatted(from)));
        tables.executeSql(stream ? ONCE_OF_TOPIC : ONCE_OF_FILE);
        tables.executeSql(SINK.formatted("usage", "calls BIGINT, errors BIGINT", out));
        tables.executeSql(SINK.formatted("latency", "calls BIGINT, p99_us BIGINT", out));
        tables.executeSql(SINK.formatted("callers", "callers BIGINT", out));

        StatementSet all = tables.createStatementSet();
        all.addInsertSql(VIEW.formatted("usage", "'1' MINUTE", "calls, errors", """
                COUNT(*) AS calls, COUNT(*) FILTER (WHERE status BETWEEN 400 AND 599 AND status <> 499) AS errors"""));
        all.addInsertSql(VIEW.formatted("latency", "'5' MINUTE", "calls, p99_us", """
                COUNT(*) AS calls, P99(CAST(ROUND(latencyMs * 1000) AS BIGINT)) AS p99_us"""));
        all.addInsertSql(VIEW.formatted("callers", "'1' DAY", "callers", "COUNT(DISTINCT ip) AS callers"));
        try {
            all.execute().await();
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
        // Threads of the cluster would keep the process for seconds.
        System.exit(0);
    }
}
