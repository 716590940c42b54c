//! Files and standard input as bounded partitions: bytes in, blocks of whole lines out.
//!
//! ```text
//! pattern ──resolve──> Partition ── ByteStream (open late, gzip, pause) ── LineCutter ──> LineBlock
//! ```
//!
//! * A pattern's files are partitions in the order of their paths, so a partition's number depends on
//!   nothing but the names. What a regular file holds is fixed when it is listed: it is read up to the
//!   length it had then, and a file that was replaced or became shorter since is an error.
//! * A position is the byte, after decompression, at which a line starts. Block sizes don't show in it.
//! * Content decides what is gzip (the bytes `1f 8b 08`), whatever the name; but a `.gz` that isn't is an
//!   error. Members follow each other as in `cat a.gz b.gz`.
//! * Every I/O error and every damage is returned, with file and byte; nothing is skipped in silence.
//!
//! Limits: 10,000 files a pattern; one line in memory takes at most `line_bytes + 2` bytes (or the block, if
//! that is larger), longer ones are hashed and skipped as they stream by. A paused file keeps its path and
//! one number, a paused gzip file beyond its first MiB also its inflate state (about 110 KiB).

mod lines;
mod resolve;
mod stream;

use std::io;

pub use lines::{Cut, Line, LineBlock, TooLong};
pub use resolve::{MAX_FILES, resolve};
pub use stream::Partition;

/// Why a file source can't be read. All of them end a bounded run.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The pattern itself is wrong.
    #[error(
        "`{pattern}` is no file pattern: {source}; allowed are `*`, `?`, `[..]` and `**` as a whole folder"
    )]
    Pattern {
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    #[error("`{pattern}` matches no file; wildcards find no hidden files, a name written in full does")]
    NoMatch { pattern: String },
    /// More files than one source may have.
    #[error("`{pattern}` matches more than {MAX_FILES} files; split the source or join the files")]
    TooMany { pattern: String },
    /// A folder or a file could not be looked at while listing.
    #[error("listing `{pattern}` failed at {path}: {source}")]
    List { pattern: String, path: String, source: io::Error },
    /// A file could not be opened.
    #[error("opening {path} failed: {source}")]
    Open { path: String, source: io::Error },
    /// Another file stands where the listed one stood, or its end is gone.
    #[error("{path} was replaced or became shorter while the run lasted; read finished files only")]
    Changed { path: String },
    #[error("reading {path} failed at byte {byte}: {source}")]
    Read {
        /// The file, or `standard input`.
        path: String,
        /// How far it was read, in the file's own (compressed) bytes.
        byte: u64,
        source: io::Error,
    },
    /// The gzip data is damaged or cut off.
    #[error("{path} is damaged or cut off at compressed byte {byte}: {source}; `gzip -t` tells more")]
    Gzip {
        /// The file, or `standard input`.
        path: String,
        /// Where the damage was noticed, in compressed bytes.
        byte: u64,
        source: io::Error,
    },
    /// Named like gzip, but isn't.
    #[error("{path} is named .gz but doesn't begin with gzip's bytes 1f 8b 08; rename or replace it")]
    NotGzip { path: String },
}
