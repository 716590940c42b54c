//! Writes lines to files, one for each partition, in a folder with tables, geo databases and labels.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::configuration::Configuration;
use super::folder;
use super::lines::Generated;
use super::progress::RunProgress;
use crate::args::GenerateArgs;
use crate::story::World;
use crate::world::settings::{GatewayFormat, WorldSettings};

const BUFFER_BYTES: usize = 256 << 10;

enum EventFile {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl EventFile {
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

/// Writes the files that `args` ask for. Returns the counts of their lines, and the seconds that it took.
///
/// # Errors
/// If the folder isn't empty or can't be written to, or if the world is too small for its scenario.
pub fn to_files(args: &GenerateArgs, now_ms: u64) -> anyhow::Result<(Generated, f64)> {
    let out = args.out.as_deref().context("--out DIR says where files go")?;
    let world = World::new(args.settings(now_ms, None)?)?;
    let progress = RunProgress::new(&world.settings);
    let generated = write(&world, out, args.gzip, &progress)?;
    progress.clear();
    Ok((generated, progress.seconds()))
}

/// Writes a folder in process, as `keytide generate --out OUT` does with `options`, which are separated by blanks.
///
/// # Errors
/// If an option isn't known or a value isn't allowed, and those of [`to_files`].
pub fn generate(out: &Path, options: &str) -> anyhow::Result<Generated> {
    let folder = ["--out".into(), out.as_os_str().to_owned()];
    let args = GenerateArgs::typed(folder.into_iter().chain(options.split_whitespace().map(Into::into)))?;
    // Files don't depend on the clock: calls that happen now need a topic.
    Ok(to_files(&args, 0)?.0)
}

/// Writes the folder of a world, and all of its calls into it.
///
/// # Errors
/// If the folder isn't empty or can't be written to.
fn write(world: &World, out: &Path, gzip: bool, progress: &RunProgress) -> anyhow::Result<Generated> {
    folder::create(out, world)?;
    let settings = &world.settings;
    let extension = extension(settings, gzip);
    let source = format!("kind = \"file\"\npath = \"events*{extension}\"\n");
    let configuration = Configuration {
        comment: &Configuration::comment(settings, "keytide replay keytide.toml --out views"),
        job: "name = \"generated\"\n",
        format: settings.format,
        source: &source,
        country: true,
        beneath: "",
        rest: "",
    };
    folder::write(out, "keytide.toml", configuration.to_string())?;

    let open = |partition: u32| {
        let number = if settings.partitions == 1 { String::new() } else { format!("-{partition:04}") };
        let path = out.join(format!("events{number}{extension}"));
        EventFile::open(&path, gzip).with_context(|| format!("can't create {}", path.display()))
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

fn extension(settings: &WorldSettings, gzip: bool) -> String {
    let format = if settings.format == GatewayFormat::Combined { ".log" } else { ".jsonl" };
    format!("{format}{}", if gzip { ".gz" } else { "" })
}
