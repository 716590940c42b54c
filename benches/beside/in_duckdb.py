"""The task of beside.py in DuckDB: in_duckdb.py FILE OUT CORES writes OUT/usage.jsonl, latency.jsonl and callers.jsonl."""

import sys

import duckdb

file, out, cores = sys.argv[1:]
database = duckdb.connect(config={"threads": int(cores)})
# A record that was sent again counts once.
database.execute(
    """
    CREATE TEMP TABLE once AS
    SELECT DISTINCT ON (requestId) apiKey, requestTime, status, CAST(round(latencyMs * 1000) AS BIGINT) AS us, ip
    FROM read_json(?, format = 'newline_delimited', columns = {
        requestId: 'VARCHAR', requestTime: 'BIGINT', apiKey: 'VARCHAR', status: 'INTEGER', latencyMs: 'DOUBLE', ip: 'VARCHAR'
    })
    """,
    [file],
)
VIEWS = {
    "usage": (
        60,
        "count(*) AS calls, count(*) FILTER (WHERE status BETWEEN 400 AND 599 AND status <> 499) AS errors",
    ),
    "latency": (300, "count(us) AS calls, quantile_disc(us, 0.99) AS p99_us"),
    "callers": (86400, "count(DISTINCT ip) AS callers"),
}
for view, (seconds, columns) in VIEWS.items():
    # A key becomes its id once a group, and not once a call.
    database.execute(
        f"""
        COPY (
            SELECT coalesce(left(sha256(apiKey), 32), 'anonymous') AS key_id, * EXCLUDE apiKey
            FROM (
                SELECT apiKey, requestTime // ({seconds} * 1000) * {seconds} AS window_start, {columns}
                FROM once
                GROUP BY ALL
            )
        ) TO '{out}/{view}.jsonl' (FORMAT json)
        """
    )
