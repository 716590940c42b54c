//! Files and standard input as bounded partitions: bytes in, blocks of whole lines out.
//!
//! ```text
//! pattern ──resolve──> Partition ── ByteStream (open late, gzip, pause) ── LineCutter ──> LineBlock
//! ```
//!
//! * A pattern's files are partitions in the order of their paths, so a partition's number depends on the names
//!   alone. A regular file is read up to the length that it had when it was listed. A file that was replaced or
//!   became shorter since is an error.
//! * A position is the byte, after decompression, at which a line starts. It doesn't depend on the sizes of blocks.
//! * The content decides whether a file is gzip (the bytes `1f 8b 08`), whatever its name; but a `.gz` that isn't
//!   gzip is an error. Members may follow each other as in `cat a.gz b.gz`.
//! * Every I/O error and every damage is returned with file and byte. No input is skipped silently.
//!
//! Limits: 10,000 files a pattern. One line takes at most `line_bytes + 2` bytes of memory, or the block's size if
//! that is larger; longer ones are hashed and skipped as they stream by. A paused file keeps its path and one
//! number. A paused gzip file beyond its first MiB also keeps its inflate state of about 110 KiB.

mod lines;
mod resolve;
mod stream;

use std::io;

pub use lines::{Cut, Line, LineBlock, TooLong};
pub use resolve::{MAX_FILES, resolve};
pub use stream::Partition;

/// An error of a file source. All of them end a bounded run.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(
        "`{pattern}` is no file pattern: {source}; allowed are `*`, `?`, `[..]` and `**` as a whole folder"
    )]
    Pattern { pattern: String, source: glob::PatternError },
    #[error("`{pattern}` matches no file; wildcards find no hidden files, a name written in full does")]
    NoMatch { pattern: String },
    #[error("`{pattern}` matches more than {MAX_FILES} files; split the source or join the files")]
    TooMany { pattern: String },
    #[error("listing `{pattern}` failed at {path}: {source}")]
    List { pattern: String, path: String, source: io::Error },
    #[error("opening {path} failed: {source}")]
    Open { path: String, source: io::Error },
    /// Another file has the listed one's path now, or its end is gone.
    #[error("{path} was replaced or became shorter while the run lasted; read finished files only")]
    Changed { path: String },
    #[error("reading {path} failed at byte {byte}: {source}")]
    Read {
        /// The file, or `standard input`.
        path: String,
        /// The number of bytes read so far, compressed ones in a gzip file.
        byte: u64,
        source: io::Error,
    },
    #[error("{path} is damaged or cut off at compressed byte {byte}: {source}; `gzip -t` tells more")]
    Gzip {
        /// The file, or `standard input`.
        path: String,
        /// The byte at which the damage was noticed, counted compressed.
        byte: u64,
        source: io::Error,
    },
    #[error("{path} is named .gz but doesn't begin with gzip's bytes 1f 8b 08; rename or replace it")]
    NotGzip { path: String },
}
