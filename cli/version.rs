//! Texts of `keytide --version` and `keytide -V`: which program this is, for a report of a defect.

use std::sync::LazyLock;

use keytide_connectors::kafka::client_version;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit's hash, or empty: a build for development has none.
const COMMIT: &str = env!("KEYTIDE_COMMIT");
/// The commit's day, or empty.
const DATE: &str = env!("KEYTIDE_DATE");
/// Hexadecimal digits of the commit in the short text.
const SHORT: usize = 10;

/// Optional parts of the program, each with whether it is there.
const FEATURES: [(&str, bool); 3] = [
    ("demo", cfg!(feature = "demo")),
    ("generate", cfg!(feature = "generate")),
    ("top", cfg!(feature = "top")),
];

/// The version with the commit and its day, in one line.
pub(crate) static SHORT_TEXT: LazyLock<String> = LazyLock::new(short);
/// All that is known about this build, a line each.
pub(crate) static LONG_TEXT: LazyLock<String> = LazyLock::new(long);

fn short() -> String {
    let commit = COMMIT.get(..SHORT).unwrap_or(COMMIT);
    let known: Vec<&str> = [commit, DATE].into_iter().filter(|part| !part.is_empty()).collect();
    if known.is_empty() { VERSION.to_owned() } else { format!("{VERSION} ({})", known.join(" ")) }
}

fn long() -> String {
    let or_unknown = |text: &'static str| if text.is_empty() { "unknown" } else { text };
    let features: Vec<&str> =
        FEATURES.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!(
        "{VERSION}\ncommit: {}\ndate: {}\nfeatures: {features}\nlibrdkafka: {}\ntime zones: {}",
        or_unknown(COMMIT),
        or_unknown(DATE),
        client_version(),
        keytide_billing::zone_version()
    )
}
