"""Asks DuckDB and PostgreSQL what docs/sql.md asks, and compares the answers: see run.sh.

Of each folder of views it also recounts, row by row, what the views and their current versions must have.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import duckdb

SCRATCH = Path(sys.argv[1])
WRITE = sys.argv[2:] == ["--write"]
DOCUMENT = Path("docs/sql.md").resolve()
SCHEMAS = {path.name.split(".")[0]: json.loads(path.read_text()) for path in Path("schemas").glob("*.json")}
BLOCK = re.compile(r"```sql\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


class DuckDb:
    """DuckDB over a folder, as its own shell would be."""

    name = "DuckDB"

    def __init__(self, folder):
        os.chdir(folder)
        self.connection = duckdb.connect()
        self.connection.execute(Path("views.duckdb.sql").read_text())

    def rows(self, query):
        out = SCRATCH / "answer.csv"
        self.connection.execute(f"COPY ({query.rstrip().rstrip(';')}) TO '{out}' (HEADER, NULLSTR 'NULL')")
        return list(csv.reader(io.StringIO(out.read_text())))


class PostgreSql:
    """PostgreSQL with the tables of a folder, by psql."""

    name = "PostgreSQL"

    def __init__(self, folder):
        os.chdir(folder)
        # A second time loads the files anew.
        for _ in range(2):
            psql("-f", "views.postgresql.sql")

    def rows(self, query):
        settings = "SET search_path = keytide; SET TIME ZONE 'UTC';"
        answer = psql("--csv", "-P", "null=NULL", "-c", settings, "-c", query)
        return list(csv.reader(io.StringIO(answer)))


def psql(*arguments):
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"sql: {' '.join(command)}: {ended.stderr}")
    return ended.stdout


def table(rows):
    """Rows as aligned text, under a line of names. PostgreSQL writes t and f for true and false."""
    words = {"t": "true", "f": "false"}
    rows = [[words.get(cell, cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def fail(problem):
    sys.exit(f"sql: {problem}")


def ask(database, text, write=False):
    """Compares each answer of the document with that of a database, or writes it there; returns the document."""

    def answered(match):
        query, documented = match.groups()
        answer = table(database.rows(query))
        if answer != documented and not write:
            fail(f"{database.name} answers otherwise than docs/sql.md:\n{query}\n{answer}\nnot\n{documented}")
        return f"```sql\n{query}```\n\n```text\n{answer}```"

    return BLOCK.sub(answered, text)


def written(folder, view):
    """The rows of a view in JSON lines, as they were written."""
    rows = []
    for path in sorted([*folder.glob(f"{view}.jsonl"), *folder.glob(f"{view}-*.jsonl")]):
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def expected_of(view, column, value):
    """The value of a column in a form to which `of_cell` brings a cell of a CSV."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return value
    if SCHEMAS[view]["properties"][column].get("format") == "date-time":
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return str(value)


def of_cell(expected, cell):
    """A cell as the value that is expected there."""
    if isinstance(expected, (dict, list)):
        return json.loads(cell)
    if isinstance(expected, datetime):
        return datetime.fromisoformat(re.sub(r"\+00$", "+00:00", cell)).astimezone(timezone.utc)
    return {"t": "true", "f": "false"}.get(cell, cell) if expected in ("true", "false") else cell


def recount(database, folder, lines):
    """Compares every view, and its current rows, with the rows that were written to `lines`."""
    counted = 0
    for view, schema in SCHEMAS.items():
        columns, key = schema["required"], schema["x-key"]
        rows = written(lines, view)
        newest = {}
        for row in sorted(rows, key=lambda row: row.get("version", 0)):
            newest[tuple(str(row[column]) for column in key)] = row
        current = [row for row in newest.values() if not row.get("retracted")]
        order = ", ".join(f'"{column}"' for column in key)
        listed = ", ".join(f'"{column}"' for column in columns)
        count = database.rows(f'SELECT count(*) AS "rows" FROM "{view}"')[1][0]
        if int(count) != len(rows):
            fail(f"{database.name} has {count} rows of {view} in {folder}, and {len(rows)} were written")
        found = database.rows(f'SELECT {listed} FROM "current_{view}" ORDER BY {order}')
        if found[0] != columns or len(found) - 1 != len(current):
            fail(f"{database.name} has {len(found) - 1} current rows of {view} in {folder}, not {len(current)}")
        at_key = {}
        for row in current:
            at_key[tuple(expected_of(view, column, row[column]) for column in key)] = row
        for cells in found[1:]:
            first = current[0]
            key_cells = tuple(
                of_cell(expected_of(view, column, first[column]), cell) for column, cell in zip(key, cells)
            )
            row = at_key[key_cells]
            for column, cell in zip(columns, cells):
                expected = expected_of(view, column, row[column])
                if of_cell(expected, cell) != expected:
                    fail(f"{database.name} has {cell} in {column} of {view} in {folder}, not {expected}")
        counted += len(found) - 1
    print(f"{database.name}: {counted} rows of {folder.name} are those that were written")


def main():
    text = DOCUMENT.read_text()
    questions = len(BLOCK.findall(text))
    if questions < 10:
        fail(f"docs/sql.md has {questions} questions with answers")
    json_lines, parquet, live = SCRATCH / "jsonl", SCRATCH / "parquet", SCRATCH / "demo" / "views"

    asked = DuckDb(json_lines)
    text = ask(asked, text, WRITE)
    if WRITE:
        DOCUMENT.write_text(text)
    recount(asked, json_lines, json_lines)
    asked = DuckDb(parquet)
    ask(asked, text)
    recount(asked, parquet, json_lines)
    asked = PostgreSql(json_lines)
    ask(asked, text)
    recount(asked, json_lines, json_lines)
    print(f"{questions} questions of docs/sql.md are answered as it says")

    # A live job's folder, with a row that is taken back, and one that a restart published again.
    newest = max(live.glob("subscription_usage-*.jsonl"))
    rows = [json.loads(line) for line in newest.read_text().splitlines()]
    key = {column: rows[0][column] for column in SCHEMAS["subscription_usage"]["x-key"]}
    again = {column: rows[-1][column] for column in SCHEMAS["subscription_usage"]["required"]}
    version = rows[-1]["version"]
    with newest.open("a") as file:
        for row in (again | {"calls": again["calls"] + 1}, key | {"retracted": True}):
            version += 1
            file.write(json.dumps(row | {"tick": 0, "version": version}) + "\n")
    for database in (DuckDb, PostgreSql):
        recount(database(live), live, live)


main()
