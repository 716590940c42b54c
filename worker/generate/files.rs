//! The target of files: one a partition, in a folder with what belongs to them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::progress::Progress;
use super::world::{Generated, World};
use super::{Format, Settings, folder};

const BUFFER_BYTES: usize = 256 << 10;

enum Output {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Output {
    fn open(path: &Path, gzip: bool) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        Ok(if gzip { Self::Gzip(GzEncoder::new(file, Compression::default())) } else { Self::Plain(file) })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(line),
            Self::Gzip(file) => file.write_all(line),
        }
    }

    fn close(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Gzip(file) => file.finish().and_then(|mut file| file.flush()),
        }
    }
}

/// Writes the folder of a world, and all of its calls into it.
///
/// # Errors
/// If the folder isn't empty or can't be written to.
pub(super) fn write(world: &World, out: &Path, gzip: bool, progress: &Progress) -> anyhow::Result<Generated> {
    folder::create(out, world)?;
    let settings = &world.settings;
    let extension = extension(settings, gzip);
    let source = format!("kind = \"file\"\npath = \"events*{extension}\"\n");
    let configuration =
        folder::configuration(settings, "keytide replay keytide.toml --out views", &source, "", "");
    folder::write(out, "keytide.toml", configuration)?;

    let open = |partition: u32| {
        let number = if settings.partitions == 1 { String::new() } else { format!("-{partition:04}") };
        let path = out.join(format!("events{number}{extension}"));
        Output::open(&path, gzip).with_context(|| format!("can't create {}", path.display()))
    };
    let mut files = (0..settings.partitions).map(open).collect::<Result<Vec<_>, _>>()?;
    let failed = || format!("can't write events to {}", out.display());
    let mut generator = world.generator();
    while let Some(line) = generator.next_line() {
        files[line.partition].write(line.bytes).with_context(failed)?;
        progress.at(line.at_ms);
    }
    for file in files {
        file.close().with_context(failed)?;
    }
    folder::finish(out, &generator)?;
    Ok(generator.generated())
}

fn extension(settings: &Settings, gzip: bool) -> String {
    let format = if settings.format == Format::Combined { ".log" } else { ".jsonl" };
    format!("{format}{}", if gzip { ".gz" } else { "" })
}
