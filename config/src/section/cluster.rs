//! The section `[cluster]` of a job with several processes.
//!
//! No setting of it is in the fingerprint. Results don't depend on the number of workers, and so not on how they are
//! spread over processes. Processes compare the number of processes and of workers when they meet.

use std::net::SocketAddr;

use super::prelude::*;
use super::sink::Sinks;
use super::state::{State, StatePlace};

/// Workers of all processes, at most: one for each bucket of keys.
const MAX_WORKERS: usize = 256;
/// Bytes of the secret, at least. It also protects what processes say in the clear before they know each other.
const MIN_SECRET_BYTES: usize = 32;
/// Bytes of an advertised address, at most.
const MAX_ADDRESS_BYTES: usize = 261;
/// The share of workers that have work, in percent, below which a warning says so.
const GOOD_SHARE: usize = 80;

section! {
    /// The section `[cluster]`, with which several processes do the work of one job.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Cluster, RawCluster, pub new(listen: SocketAddr, secret: Secret) {
        /// The address at which this process listens for the others.
        other listen: SocketAddr = listen(SocketAddr);
        /// The address at which the others reach it, `HOST:PORT`.
        other advertise: String = _ or String::new();
        key advertise(AdvertisedAddress);
        /// The number of processes that the job should have.
        other processes: usize = processes(Count, 1..=MAX_WORKERS as u64) or 1;
        /// The number of processes with which it starts after `settle_ms`.
        other min_processes: usize = min_processes(Count, 1..=MAX_WORKERS as u64) or 1;
        /// How long a start waits for all processes, in milliseconds.
        other settle_ms: u64 = settle(Millis, 1_000..=10 * MINUTE_MS) or 10_000;
        /// How long a process is silent before it counts as gone, in milliseconds.
        other dead_after_ms: u64 = dead_after(Millis, 3_000..=10 * MINUTE_MS) or 10_000;
        /// The secret by which processes of this job know each other.
        other secret: Secret = secret(SecretRef);
        /// Without `[cluster.tls]` the processes' links aren't encrypted.
        other tls: Option<ClusterTls> = tls(RawClusterTls) or None;
    }
}

section! {
    /// The section `[cluster.tls]`, with which both sides of each link show a certificate.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ClusterTls, RawClusterTls, by hand {
        /// This process's certificate, in PEM.
        other cert: PathBuf = cert(PathText);
        /// The certificate's private key, in PEM.
        other key: PathBuf = key(PathText);
        /// The authority that signed the certificates of all processes, in PEM.
        other ca: PathBuf = ca(PathText);
    }
}

/// An address with a name or number of a host, as other processes use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdvertisedAddress(String);

parsed! {
    AdvertisedAddress: advertised, "host:port, such as \"10.0.0.7:9465\"";
}

fn advertised(text: &str) -> Option<AdvertisedAddress> {
    let (host, port) = text.rsplit_once(':')?;
    let is_whole = is_host(host) && port_number(port).is_some() && text.len() <= MAX_ADDRESS_BYTES;
    // Other machines can't connect to an address that stands for all of a machine's.
    let is_any = matches!(host, "0.0.0.0" | "[::]");
    (is_whole && !is_any).then(|| AdvertisedAddress(text.to_owned()))
}

impl Validate<Cluster> for RawCluster {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Cluster> {
        let keys = &spot.value;
        let listen = check.required(&keys.listen, spot, "listen").copied();
        check.required(&keys.processes, spot, "processes");
        check.required(&keys.secret, spot, "secret");
        let secret = keys.secret.given().and_then(|secret| long_secret(secret, check));
        let advertise = advertise(keys, listen, check);
        let is_whole = listen.is_some() && secret.is_some() && advertise.is_some();
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut cluster = Cluster::new(listen, secret.unwrap_or_else(|| Secret::new(String::new())));
        keys.fill(&mut cluster, check);
        cluster.advertise = advertise.unwrap_or_default();
        match keys.min_processes.given() {
            None => cluster.min_processes = cluster.processes,
            Some(least) if cluster.min_processes > cluster.processes => {
                let message = format!("found {}, allowed: at most cluster.processes", least.shown);
                check.refuse(least, message);
            }
            Some(_) => {}
        }
        is_whole.then_some(cluster)
    }
}

/// Returns the address at which others reach the process: that at which it listens, unless it stands for several.
fn advertise(keys: &RawCluster, listen: Option<SocketAddr>, check: &mut Check<'_>) -> Option<String> {
    if let Some(spot) = keys.listen.given().filter(|_| listen.is_some_and(|at| at.port() == 0)) {
        let message = format!("found {}, allowed: a port above 0, which others can know", spot.shown);
        check.refuse(spot, message);
    }
    match (keys.advertise.given(), listen) {
        (Some(address), _) => Some(address.value.0.clone()),
        (None, Some(listen)) if keys.advertise.is_absent() && listen.ip().is_unspecified() => {
            let location = keys.listen.given().map(|spot| spot.location.clone()).unwrap_or_default();
            let message = format!(
                "found {listen}, which stands for all addresses of this machine, without `advertise`, allowed: one \
                 address, or advertise = {}",
                AdvertisedAddress::allowed()
            );
            check.refuse(&location, message);
            None
        }
        (None, listen) => listen.map(|listen| listen.to_string()),
    }
}

fn long_secret(spot: &Spot<SecretRef>, check: &mut Check<'_>) -> Option<Secret> {
    let secret = check.referred(&spot.value, &spot.location)?;
    if secret.len() < MIN_SECRET_BYTES {
        let message = format!(
            "the secret has {} bytes, allowed: at least {MIN_SECRET_BYTES}, such as the output of \
             `openssl rand -hex 32`",
            secret.len()
        );
        check.refuse(spot, message);
        return None;
    }
    Some(Secret::new(secret))
}

impl Validate<ClusterTls> for RawClusterTls {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<ClusterTls> {
        let keys = &spot.value;
        let base = check.base;
        let mut path = |entry: &Entry<PathText>, key: &str| {
            check.required(entry, spot, key).map(|path| base.join(&path.0))
        };
        let (cert, key, ca) = (path(&keys.cert, "cert"), path(&keys.key, "key"), path(&keys.ca, "ca"));
        Some(ClusterTls { cert: cert?, key: key?, ca: ca? })
    }
}

impl RawCluster {
    /// Checks what the section needs of others: the number of workers of each process, and the place of the state.
    pub(crate) fn with_others(
        spot: &Spot<Self>,
        cluster: &Cluster,
        workers: usize,
        (state, sinks): (Option<&State>, &Sinks),
        check: &mut Check<'_>,
    ) {
        match state {
            None => check.refuse(spot, "needs [state], in which processes find each other, add it"),
            Some(State { place: StatePlace::Folder(dir), shared: false, .. }) => {
                let message = format!(
                    "needs a state that all processes share, and state.url is the folder {}, allowed: s3://, gs:// or \
                     az://, or shared = true in [state] for a folder that all nodes mount",
                    dir.display()
                );
                check.refuse(spot, message);
            }
            Some(_) => {}
        }
        if cluster.tls.is_none() && !cluster.listen.ip().is_loopback() {
            check.warn(
                spot,
                "links between processes aren't encrypted: add [cluster.tls], or keep them on a network of their own",
            );
        }
        if sinks.files.is_some() {
            check.warn(
                spot,
                "[sink.files] is written by the process that leads, and any of them may: its folder must be one that all \
                 nodes mount",
            );
        }
        let location = spot.value.processes.given().map_or(&spot.location, |processes| &processes.location);
        let all = cluster.processes.saturating_mul(workers);
        if all > MAX_WORKERS {
            let message = format!(
                "found {} processes of {workers} workers each, allowed: at most {MAX_WORKERS} workers in all",
                cluster.processes
            );
            check.refuse(location, message);
            return;
        }
        // The busiest worker decides how long all take.
        let busiest = MAX_WORKERS.div_ceil(all);
        if MAX_WORKERS * 100 < GOOD_SHARE * busiest * all {
            let message = format!(
                "of {all} workers some have {busiest} of {MAX_WORKERS} buckets of keys and others fewer, so that {} \
                 workers would be as fast",
                MAX_WORKERS.div_ceil(busiest)
            );
            check.warn(location, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    const SECRET: (&str, &str) = ("SECRET", "0123456789abcdef0123456789abcdef");
    const STATE: &str = "[state]\nurl = \"s3://bucket/orders\"\n";
    const LEAST: &str = "[cluster]\nlisten = \"10.0.0.7:9465\"\nprocesses = 3\nsecret = \"env:SECRET\"\n";

    /// Problems of a job with `lines`, without the lines' numbers.
    fn told(lines: &str) -> String {
        let loaded = parse_with(&format!("{SMALL}{lines}"), &[SECRET]);
        let found = loaded.map_or_else(|error| error.to_string(), |_| String::new());
        let told = |line: &str| line.split_once(": ").map_or(line, |(_, told)| told).to_owned();
        found.lines().map(told).collect::<Vec<_>>().join("\n")
    }

    fn cluster(lines: &str) -> Cluster {
        parse_with(&format!("{SMALL}{STATE}{lines}"), &[SECRET]).unwrap().job.cluster.unwrap()
    }

    #[test]
    fn the_least_section_waits_for_all_processes_and_advertises_where_it_listens() {
        let found = cluster(LEAST);
        assert_eq!((found.processes, found.min_processes), (3, 3));
        assert_eq!((found.settle_ms, found.dead_after_ms), (10_000, 10_000));
        assert_eq!(found.advertise, "10.0.0.7:9465");
        assert_eq!(found.tls, None);
        assert!(!format!("{found:?}").contains(SECRET.1));
        let tls = "[cluster.tls]\ncert = \"node.pem\"\nkey = \"/k/node.key\"\nca = \"ca.pem\"\n";
        let lines = LEAST.replace("10.0.0.7", "0.0.0.0");
        let found =
            cluster(&format!("{lines}advertise = \"keytide-1.internal:9465\"\nmin_processes = 2\n{tls}"));
        assert_eq!((found.min_processes, found.advertise.as_str()), (2, "keytide-1.internal:9465"));
        let [cert, key, ca] =
            ["/etc/keytide/node.pem", "/k/node.key", "/etc/keytide/ca.pem"].map(PathBuf::from);
        let tls = ClusterTls { cert, key, ca };
        assert_eq!(found.tls, Some(tls));
    }

    #[test]
    fn what_can_not_be_a_cluster_is_refused() {
        let with = |from: &str, to: &str| told(&format!("{STATE}{}", LEAST.replace(from, to)));
        for (found, expected) in [
            (
                with("10.0.0.7", "0.0.0.0"),
                "cluster.listen: found 0.0.0.0:9465, which stands for all addresses",
            ),
            (with("10.0.0.7", "[::]"), "cluster.listen: found [::]:9465, which stands for all addresses"),
            (with("9465", "0"), "cluster.listen: found \"10.0.0.7:0\", allowed: a port above 0"),
            (
                with("listen = \"10.0.0.7:9465\"\n", ""),
                "cluster.listen: missing, allowed: an address with a port",
            ),
            (with("processes = 3\n", ""), "cluster.processes: missing"),
            (with("= 3", "= 0"), "cluster.processes: found 0, allowed: 1 to 256"),
            (with("secret = \"env:SECRET\"\n", ""), "cluster.secret: missing"),
            (with("env:SECRET", "hunter2"), "cluster.secret: found a value that is not shown"),
            (
                with("= 3", "= 3\nmin_processes = 4"),
                "cluster.min_processes: found 4, allowed: at most cluster.processes",
            ),
            (
                with("= 3", "= 3\nadvertise = \"0.0.0.0:1\""),
                "cluster.advertise: found \"0.0.0.0:1\", allowed: host:port",
            ),
            (with("= 3", "= 3\ndead_after = \"2s\""), "cluster.dead_after: found \"2s\", allowed: 3s to 10m"),
            (with("= 3", "= 3\nsettle = \"11m\""), "cluster.settle: found \"11m\", allowed: 1s to 10m"),
            (
                told(&format!("{STATE}{LEAST}[cluster.tls]\ncert = \"a\"\nkey = \"b\"\n")),
                "cluster.tls.ca: missing",
            ),
            (told(LEAST), "cluster: needs [state], in which processes find each other, add it"),
            (
                told(&format!("[state]\nurl = \"file:///state\"\n{LEAST}")),
                "cluster: needs a state that all processes share, and state.url is the folder /state, allowed: ",
            ),
            (told(&format!("[state]\nurl = \"/state\"\nshared = true\n{LEAST}")), ""),
        ] {
            assert!(found.starts_with(expected) && found.lines().count() <= 1, "{expected}: {found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{expected}: {found}");
        }
        let text = format!("{SMALL}{STATE}{LEAST}");
        let error = parse_with(&text, &[("SECRET", &SECRET.1[1..])]).unwrap_err().to_string();
        assert!(error.contains("cluster.secret: the secret has 31 bytes, allowed: at least 32"), "{error}");
        assert!(!error.contains(&SECRET.1[1..]), "{error}");
    }

    #[test]
    fn there_are_at_most_256_workers_and_a_warning_if_many_of_them_have_little_to_do() {
        let with = |processes: usize, workers: usize| {
            let lines = LEAST.replace("= 3", &format!("= {processes}"));
            let text = format!("{SMALL}[job]\nworkers = {workers}\n{STATE}{lines}");
            parse_with(&text, &[SECRET])
        };
        assert!(with(256, 1).is_ok() && with(1, 256).is_ok() && with(2, 128).is_ok());
        for (processes, workers) in [(129, 2), (256, 256), (86, 3)] {
            let error = with(processes, workers).unwrap_err().to_string();
            assert!(error.contains("allowed: at most 256 workers in all"), "{error}");
        }
        let uneven = |processes| {
            let warnings = with(processes, 1).unwrap().warnings;
            warnings.iter().map(ToString::to_string).find(|warning| warning.contains("buckets of keys"))
        };
        // The share is counted here from what each worker has.
        for all in 1..=256_usize {
            let busiest = (0..all).map(|worker| (worker..256).step_by(all).count()).max().unwrap();
            let is_uneven = 256 * 10 < busiest * all * 8;
            assert_eq!(uneven(all).is_some(), is_uneven, "{all}");
        }
        let warning = uneven(127).unwrap();
        let expected = "of 127 workers some have 3 of 256 buckets of keys and others fewer, so that 86 workers would be as fast";
        assert!(warning.ends_with(expected), "{warning}");
    }

    #[test]
    fn links_in_the_clear_and_files_of_whoever_leads_are_warned_of() {
        let warned = |lines: &str| {
            let found = parse_with(&format!("{SMALL}{STATE}{lines}"), &[SECRET]).unwrap().warnings;
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert!(warned(LEAST).contains("links between processes aren't encrypted: add [cluster.tls]"));
        let tls = "[cluster.tls]\ncert = \"a\"\nkey = \"b\"\nca = \"c\"\n";
        assert!(!warned(&format!("{LEAST}{tls}")).contains("encrypted"));
        assert!(!warned(&LEAST.replace("10.0.0.7", "127.0.0.1")).contains("encrypted"));
        let files = "[sink.files]\ndir = \"out\"\n";
        assert!(warned(&format!("{files}{LEAST}")).contains("one that all nodes mount"));
        assert!(!warned(LEAST).contains("mount"));
    }

    #[test]
    fn no_setting_of_it_changes_results() {
        let without = parse_with(&format!("{SMALL}{STATE}"), &[]).unwrap().job.fingerprint();
        let with = parse_with(&format!("{SMALL}{STATE}{LEAST}"), &[SECRET]).unwrap().job.fingerprint();
        assert_eq!(with, without);
    }
}
