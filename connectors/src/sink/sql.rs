//! Statements that show a folder with views to DuckDB and PostgreSQL: [`DUCKDB`] and [`POSTGRESQL`].
//!
//! Each view has an explicit table, also one without a file, so queries don't depend on what happened to be written.
//! `current_VIEW` has the newest version of each key's row, without rows that were taken back. It has the same columns
//! in every folder. Types and columns come from [`columns`]. Names are quoted, as `window` and `offset` are words of SQL.

use std::fmt::Write as _;

use keytide_config::{FileFormat, View};

use super::columns::columns;
use crate::columnar::{Column, ColumnKind};

/// The name of the statements for DuckDB.
pub const DUCKDB: &str = "views.duckdb.sql";
/// The name of the statements for `psql`.
pub const POSTGRESQL: &str = "views.postgresql.sql";

/// The files of a view in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewFiles {
    pub view: View,
    /// The patterns that its files match, each of one format; empty if there is no file.
    pub patterns: Vec<(FileFormat, String)>,
}

/// Returns the statements for DuckDB and for PostgreSQL, about folders of a live job or of a bounded run.
#[must_use]
pub fn statements(files: &[ViewFiles], is_live: bool) -> [(&'static str, String); 2] {
    [(DUCKDB, duckdb(files, is_live)), (POSTGRESQL, postgresql(files, is_live))]
}

fn duckdb(files: &[ViewFiles], is_live: bool) -> String {
    let mut sql = String::from(
        "-- The views of this folder for DuckDB: cd to the folder, then: duckdb -init views.duckdb.sql\n\
         -- docs/sql.md explains them. A row belongs to one window: filter \"window\", or you count several times.\n\
         SET TimeZone = 'UTC';\n",
    );
    for ViewFiles { view, patterns } in files {
        let listed = listed(*view, is_live);
        let name = quoted(view.name());
        let mut parts: Vec<String> = patterns
            .iter()
            .map(|(format, pattern)| match format {
                FileFormat::JsonLines => {
                    let types: Vec<String> = listed
                        .iter()
                        .map(|column| format!("'{}': '{}'", column.name, duckdb_type(column.kind)))
                        .collect();
                    format!(
                        "SELECT * FROM read_json('{pattern}', format = 'newline_delimited', columns = {{\n    {}\n}})",
                        types.join(",\n    ")
                    )
                }
                FileFormat::Parquet => {
                    format!("SELECT {} FROM read_parquet('{pattern}')", names(listed))
                }
            })
            .collect();
        if parts.is_empty() {
            let nulls: Vec<String> = listed
                .iter()
                .map(|column| {
                    format!("CAST(NULL AS {}) AS {}", duckdb_type(column.kind), quoted(&column.name))
                })
                .collect();
            parts.push(format!("SELECT {} WHERE false", nulls.join(", ")));
        }
        let _ = write!(
            sql,
            "\n-- {}\nCREATE OR REPLACE VIEW {name} AS\n{};\n{}",
            columns(*view).description,
            parts.join("\nUNION ALL\n"),
            current(*view, is_live)
        );
    }
    sql
}

fn postgresql(files: &[ViewFiles], is_live: bool) -> String {
    let mut sql = String::from(
        "-- The views of this folder for PostgreSQL, as tables in the schema keytide of the database that psql is \
         connected\n\
         -- to: cd to the folder, then: psql -v ON_ERROR_STOP=1 -f views.postgresql.sql\n\
         -- Each run loads the files anew. docs/sql.md explains the tables. A row belongs to one window: filter\n\
         -- \"window\", or you count several times.\n\
         SET client_encoding = 'UTF8';\n\
         SET TIME ZONE 'UTC';\n\
         SET client_min_messages = 'warning';\n\
         CREATE SCHEMA IF NOT EXISTS keytide;\n\
         SET search_path = keytide;\n\
         CREATE TEMPORARY TABLE IF NOT EXISTS keytide_line (line text NOT NULL);\n\
         BEGIN;\n",
    );
    for ViewFiles { view, patterns } in files {
        let listed = listed(*view, is_live);
        let name = quoted(view.name());
        let types: Vec<String> = listed
            .iter()
            .map(|column| {
                let null = if column.is_optional { "" } else { " NOT NULL" };
                format!("{} {}{null}", quoted(&column.name), postgresql_type(column.kind))
            })
            .collect();
        let _ = write!(
            sql,
            "\n-- {}\nDROP VIEW IF EXISTS {};\nDROP TABLE IF EXISTS {name};\nCREATE TABLE {name} (\n    {}\n);\n",
            columns(*view).description,
            quoted(&format!("current_{}", view.name())),
            types.join(",\n    ")
        );
        for (format, pattern) in patterns {
            match format {
                // No character of JSON is \x01 or \x02, so each line is one value. PostgreSQL has no character NUL.
                FileFormat::JsonLines => {
                    let _ = write!(
                        sql,
                        "TRUNCATE keytide_line;\n\
                         \\copy keytide_line FROM PROGRAM 'cat {pattern}' WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER \
                         E'\\x02')\n\
                         INSERT INTO {name} SELECT {} FROM keytide_line,\n    jsonb_populate_record(NULL::{name}, \
                         replace(line, '\\u0000', '\\ufffd')::jsonb) AS line_row;\n",
                        listed
                            .iter()
                            .map(|column| format!("line_row.{}", quoted(&column.name)))
                            .collect::<Vec<_>>()
                            .join(", ")
                    );
                }
                FileFormat::Parquet => {
                    let _ = writeln!(
                        sql,
                        "-- {pattern} is Parquet, which PostgreSQL doesn't read: docs/sql.md says how DuckDB copies it."
                    );
                }
            }
        }
        sql.push_str(&current(*view, is_live).replacen("CREATE OR REPLACE VIEW", "CREATE VIEW", 1));
    }
    sql.push_str("\nCOMMIT;\n");
    sql
}

fn listed(view: View, is_live: bool) -> &'static [Column] {
    if is_live { &columns(view).live } else { &columns(view).common }
}

/// Returns the statement of `current_VIEW`. A bounded run writes one version of each row.
fn current(view: View, is_live: bool) -> String {
    let (name, current) = (quoted(view.name()), quoted(&format!("current_{}", view.name())));
    let common = names(&columns(view).common);
    if !is_live {
        return format!("CREATE OR REPLACE VIEW {current} AS\nSELECT {common} FROM {name};\n");
    }
    let key: Vec<String> = view.key().iter().map(|column| quoted(column)).collect();
    let key = key.join(", ");
    let retracted = columns(view).live.iter().any(|column| column.name == "retracted");
    format!(
        "CREATE OR REPLACE VIEW {current} AS\nSELECT {common} FROM (\n    SELECT DISTINCT ON ({key}) * FROM {name}\n    \
         ORDER BY {key}, \"version\" DESC NULLS LAST\n) AS newest{};\n",
        if retracted { "\nWHERE \"retracted\" IS NOT TRUE" } else { "" }
    )
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

/// Returns a name of our own, none of which has a quote.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn duckdb_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "VARCHAR",
        ColumnKind::Json => "JSON",
        ColumnKind::Integer => "BIGINT",
        ColumnKind::Boolean => "BOOLEAN",
        ColumnKind::Time => "TIMESTAMP WITH TIME ZONE",
    }
}

fn postgresql_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "text",
        ColumnKind::Json => "jsonb",
        ColumnKind::Integer => "bigint",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Time => "timestamp with time zone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(patterns: &[(FileFormat, &str)]) -> Vec<ViewFiles> {
        let patterns = patterns.iter().map(|(format, pattern)| (*format, (*pattern).to_owned()));
        let mut files = View::ALL.map(|view| ViewFiles { view, patterns: Vec::new() });
        files[View::SubscriptionUsage as usize].patterns = patterns.collect();
        files.into()
    }

    #[test]
    fn every_view_has_its_columns_and_its_current_rows_also_without_a_file() {
        for is_live in [false, true] {
            for (name, sql) in statements(&files(&[]), is_live) {
                for view in View::ALL {
                    for created in [view.name().to_owned(), format!("current_{}", view.name())] {
                        assert!(sql.contains(&format!(" \"{created}\" ")), "{name}: {created}");
                    }
                    for column in listed(view, is_live) {
                        assert!(sql.contains(&format!("\"{}\"", column.name)), "{name}: {}", column.name);
                    }
                }
                assert_eq!(sql.contains("\"version\""), is_live, "{name}");
                assert!(!sql.contains("jsonl"), "{name}: there is no file");
            }
        }
    }

    #[test]
    fn rows_that_were_taken_back_are_left_out_where_there_may_be_some() {
        let retracted = "WHERE \"retracted\" IS NOT TRUE";
        assert!(current(View::SubscriptionUsage, true).contains(retracted));
        assert!(!current(View::SubscriptionUsage, false).contains(retracted));
        assert!(!current(View::Usage, true).contains(retracted));
    }

    #[test]
    fn files_of_both_formats_are_read_together() {
        let patterns = [
            (FileFormat::JsonLines, "subscription_usage-*.jsonl"),
            (FileFormat::Parquet, "subscription_usage-*.parquet"),
        ];
        let [(_, duckdb), (_, postgresql)] = statements(&files(&patterns), true);
        let (lines, parquet) = duckdb.split_once("\nUNION ALL\n").unwrap();
        assert!(lines.contains("read_json('subscription_usage-*.jsonl'"), "{lines}");
        assert!(parquet.contains("FROM read_parquet('subscription_usage-*.parquet');"), "{parquet}");
        assert!(postgresql.contains("'cat subscription_usage-*.jsonl'"), "{postgresql}");
        assert!(postgresql.contains("-- subscription_usage-*.parquet is Parquet,"), "{postgresql}");
    }
}
