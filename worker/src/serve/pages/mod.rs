//! The pages: files of the program that a browser runs, and that ask the API like any other client.
//!
//! They have no data, so they are behind no token: a page asks its reader for one, or takes it from a link's fragment, which
//! never comes here. Everything that a page shows comes from `/v1` with that token.
//!
//! ```text
//! /, /me, /security   pages
//! /assets/NAME        what they load: styles, modules, pictures
//! ```
//! **Why nothing else runs in them.** Their [`policy`] lets a browser load and run files of this listener alone: no
//! script in a page, none of another host. So a name that a stranger chose can't become code, whatever a page does with it.
//! Another site can show a page in a frame only if `[pages].embed_in` names it.
//!
//! **Limits.** A page and what it loads are under 100 KB by gzip, which all browsers take. A file that the browser has is answered by 304.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use keytide_config::Pages;
use xxhash_rust::xxh3::xxh3_128;

use super::reply::{is_shown, tag, unchanged};
use super::stats::{ApiRoute, ApiStats};

/// A file, and where it is served.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const MODULE: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Names files of the folder `assets` with their paths and kinds.
macro_rules! assets {
    ($($path:literal $file:literal $kind:ident),+ $(,)?) => {
        const ASSETS: &[Asset] =
            &[$(Asset { path: $path, kind: $kind, bytes: include_bytes!(concat!("assets/", $file)) }),+];
    };
}

assets! {
    "/" "index.html" HTML,
    "/me" "me.html" HTML,
    "/security" "security.html" HTML,
    "/assets/api.js" "api.js" MODULE,
    "/assets/app.css" "app.css" CSS,
    "/assets/bill.js" "bill.js" MODULE,
    "/assets/chart.js" "chart.js" MODULE,
    "/assets/chooser.js" "chooser.js" MODULE,
    "/assets/dom.js" "dom.js" MODULE,
    "/assets/evidence.js" "evidence.js" MODULE,
    "/assets/first.js" "first.js" MODULE,
    "/assets/format.js" "format.js" MODULE,
    "/assets/home.js" "home.js" MODULE,
    "/assets/icon.svg" "icon.svg" SVG,
    "/assets/incidents.js" "incidents.js" MODULE,
    "/assets/keys.js" "keys.js" MODULE,
    "/assets/me.js" "me.js" MODULE,
    "/assets/parts.js" "parts.js" MODULE,
    "/assets/quotas.js" "quotas.js" MODULE,
    "/assets/security.js" "security.js" MODULE,
    "/assets/session.js" "session.js" MODULE,
    "/assets/shell.js" "shell.js" MODULE,
    "/assets/traffic.js" "traffic.js" MODULE,
    "/assets/uPlot.iife.min.js" "uPlot.iife.min.js" MODULE,
    "/assets/uPlot.min.css" "uPlot.min.css" CSS,
    "/assets/windows.js" "windows.js" MODULE,
    "/assets/words-en.js" "words-en.js" MODULE,
    "/assets/words-ko.js" "words-ko.js" MODULE,
    "/assets/words-security-en.js" "words-security-en.js" MODULE,
    "/assets/words-security-ko.js" "words-security-ko.js" MODULE,
    "/assets/words.js" "words.js" MODULE,
}

/// Makes the service of the pages' files.
pub(super) fn router(pages: &Pages, stats: &Arc<ApiStats>) -> Router {
    let policy = policy(&pages.embed_in);
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let file = Arc::new(File::new(asset));
        let (policy, stats) = (policy.clone(), Arc::clone(stats));
        let answer = async move |headers: HeaderMap| {
            let began = Instant::now();
            let mut response = file.answer(&headers);
            protect(response.headers_mut(), policy);
            stats.count_request(ApiRoute::pages(), response.status(), began.elapsed());
            response
        };
        router.route(asset.path, get(answer))
    })
}

/// A file that is ready to be sent.
struct File {
    kind: HeaderValue,
    tag: HeaderValue,
    bytes: Bytes,
    /// The same file, packed by gzip.
    packed: Bytes,
}

impl File {
    fn new(asset: &'static Asset) -> Self {
        Self {
            kind: HeaderValue::from_static(asset.kind),
            tag: tag(format_args!("{:x}", xxh3_128(asset.bytes))),
            bytes: Bytes::from_static(asset.bytes),
            packed: gzip(asset.bytes).into(),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        if is_shown(headers, &self.tag) {
            return unchanged(self.tag.clone());
        }
        let head = [
            (header::CONTENT_TYPE, self.kind.clone()),
            (header::ETAG, self.tag.clone()),
            (header::VARY, HeaderValue::from_static("accept-encoding")),
        ];
        match takes_gzip(headers) {
            true => (head, [(header::CONTENT_ENCODING, "gzip")], self.packed.clone()).into_response(),
            false => (head, self.bytes.clone()).into_response(),
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory can be written to")
}

/// Returns whether a client takes answers by gzip. One that forbids it by `q=0` gets the file as it is.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, rest) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip")
            && !matches!(rest.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

/// Returns what a browser may do in a page, and which sites may show it in a frame.
fn policy(embed_in: &[String]) -> HeaderValue {
    let ancestors = if embed_in.is_empty() { "'none'".to_owned() } else { embed_in.join(" ") };
    let policy = format!(
        "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; frame-ancestors {ancestors}"
    );
    // The configuration has origins alone.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Adds the headers by which a browser protects a page and its reader.
fn protect(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    /// Bytes of a page and of all that it loads at once, by gzip, at most.
    const FIRST_VIEW_BYTES: usize = 100_000;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/pages/assets")
    }

    #[test]
    fn every_file_of_the_folder_is_served_but_texts_for_developers() {
        let files =
            std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let is_served = |name: &String| !name.ends_with(".md") && !name.ends_with(".LICENSE");
        let mut expected: BTreeSet<String> = files.filter(is_served).collect();
        for Asset { path, kind, bytes } in ASSETS {
            let name = match *path {
                "/" => "index.html".to_owned(),
                path if *kind == HTML => format!("{}.html", &path[1..]),
                path => path.strip_prefix("/assets/").unwrap().to_owned(),
            };
            let length = std::fs::metadata(folder().join(&name)).unwrap().len();
            assert_eq!(length, bytes.len() as u64, "{path} is another file than {name}");
            assert!(expected.remove(&name), "{path} is served twice");
        }
        assert_eq!(expected, BTreeSet::new());
    }

    /// Returns the files that a text names with the path of files.
    fn named(text: &str) -> BTreeSet<String> {
        let names = text.split("/assets/").skip(1).chain(text.split("from \"./").skip(1));
        let name = |rest: &str| rest.split(['"', '\'', '`', ')', ' ']).next().map(str::to_owned);
        names.filter_map(name).collect()
    }

    #[test]
    fn a_client_that_takes_gzip_gets_the_same_file() {
        for (value, takes) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, GZIP;q=0.8", true),
            ("*", false),
            ("gzip;q=0", false),
            ("identity", false),
            ("xgzip", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(takes_gzip(&headers), takes, "{value}");
            let answer = File::new(&ASSETS[0]).answer(&headers);
            assert_eq!(answer.headers().contains_key(header::CONTENT_ENCODING), takes);
        }
        let mut unpacked = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&*File::new(&ASSETS[0]).packed), &mut unpacked)
            .unwrap();
        assert_eq!(unpacked, ASSETS[0].bytes);
    }

    #[test]
    fn a_page_loads_no_more_than_its_limit_and_nothing_from_elsewhere() {
        let texts: BTreeMap<String, &str> = ASSETS
            .iter()
            .map(|asset| {
                (
                    asset.path.trim_start_matches("/assets/").to_owned(),
                    std::str::from_utf8(asset.bytes).unwrap(),
                )
            })
            .collect();
        for page in ["/", "/me", "/security"] {
            let mut loaded = BTreeSet::from([page.to_owned()]);
            let mut todo = vec![page.to_owned()];
            while let Some(name) = todo.pop() {
                for found in named(texts[&name]) {
                    assert!(texts.contains_key(&found), "{name} names {found}");
                    if loaded.insert(found.clone()) {
                        todo.push(found);
                    }
                }
            }
            // Words are loaded by the names of languages.
            loaded.extend(["words-ko.js".to_owned(), "words-security-ko.js".to_owned()]);
            let bytes: usize = loaded.iter().map(|name| gzip(texts[name].as_bytes()).len()).sum();
            assert!(bytes < FIRST_VIEW_BYTES, "{page} loads {bytes} B: {loaded:?}");
            assert!(loaded.contains("app.css") && loaded.len() > 3, "{page}: {loaded:?}");
        }
        for (name, text) in &texts {
            let is_own = |address: &str| address.starts_with("//www.w3.org/2000/svg");
            let others = text
                .split("http")
                .skip(1)
                .filter_map(|rest| rest.strip_prefix("s:").or(rest.strip_prefix(":")));
            assert!(name == "uPlot.iife.min.js" || others.clone().all(is_own), "{name} names another host");
            if name.ends_with(".html") || !name.contains('.') {
                assert!(!text.contains("style=") && !text.contains(" on"), "{name} has code or styles in it");
            }
        }
    }
}
