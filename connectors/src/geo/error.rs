//! Errors of geo databases and of the list of networks.

use std::path::PathBuf;

use maxminddb::MaxMindDbError;

use crate::store::StoreError;

/// The reason why a database can't be used. Every one needs a person, because none goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// The file can't be read.
    #[error("can't read the geo database {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is larger than any known database.
    #[error("the geo database {} is larger than 1 GiB: use the country, ASN or City edition", path.display())]
    TooLarge { path: PathBuf },
    /// The file isn't an `.mmdb` database, or is damaged.
    #[error("{} is not a usable .mmdb database ({source}): download it again", path.display())]
    Invalid { path: PathBuf, source: Box<MaxMindDbError> },
    /// The database has none of the fields that its use needs.
    #[error(
        "{} holds no record with {expected}: {}: is it a database of another kind?",
        path.display(),
        match &fields[..] {
            [] => "it has no fields".to_owned(),
            fields => format!("it has {}", fields.join(", ")),
        }
    )]
    OtherKind {
        path: PathBuf,
        /// The fields that were looked for.
        expected: &'static str,
        /// Names of the fields that its first records have, sorted, at most 24.
        fields: Vec<String>,
    },
    /// The file of networks names no network.
    #[error("{} has no line that names a network and its class, such as 198.51.100.0/24,vpn", path.display())]
    NoNetworks { path: PathBuf },
    /// A copy can't be written or read.
    #[error("{0}")]
    Copy(#[from] StoreError),
    /// The file names more networks than there may be.
    #[error("{} has more than 1000000 networks", path.display())]
    TooManyNetworks { path: PathBuf },
}
