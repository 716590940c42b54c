//! Stores of objects by URL: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.
//!
//! Credentials and addresses come from the environment, by the names that `object_store` documents (`AWS_*`, `GOOGLE_*`,
//! `AZURE_*`), and from `[state.options]`, which wins.
//!
//! Limits: a request is tried [`RETRIES`] times again, within [`RETRY_FOR`]. Callers try longer where that is right.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use keytide_config::{RemotePlace, Secret};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Error, ObjectStore, Result, RetryConfig};

use super::http::Connector;

/// How often a request is sent again.
const RETRIES: usize = 4;
/// The time after which a request isn't sent again.
const RETRY_FOR: Duration = Duration::from_secs(20);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Returns the store of a URL with its prefix. It connects nowhere.
///
/// # Errors
/// If an option is unknown, or settings don't fit each other.
pub(super) fn open(place: &RemotePlace, options: &BTreeMap<String, Secret>) -> Result<Arc<dyn ObjectStore>> {
    let url = place.url();
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: MAX_BACKOFF, ..BackoffConfig::default() },
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
    };
    match place.scheme() {
        "gs" => {
            let of_env =
                GoogleCloudStorageBuilder::from_env().with_retry(retry).with_http_connector(Connector);
            let builder =
                with_options(of_env, options, |builder, key, value| builder.with_config(key, value))?;
            prefixed(builder.with_url(url).build()?, place)
        }
        "az" => {
            let of_env = MicrosoftAzureBuilder::from_env().with_retry(retry).with_http_connector(Connector);
            let builder =
                with_options(of_env, options, |builder, key, value| builder.with_config(key, value))?;
            prefixed(builder.with_url(url).build()?, place)
        }
        _ => {
            let of_env = AmazonS3Builder::from_env().with_retry(retry).with_http_connector(Connector);
            let builder =
                with_options(of_env, options, |builder, key, value| builder.with_config(key, value))?;
            prefixed(builder.with_url(url).build()?, place)
        }
    }
}

fn with_options<B, K: FromStr<Err = Error>>(
    builder: B,
    options: &BTreeMap<String, Secret>,
    set: impl Fn(B, K, String) -> B,
) -> Result<B> {
    options.iter().try_fold(builder, |builder, (name, value)| {
        Ok(set(builder, name.parse()?, value.reveal().to_owned()))
    })
}

/// Returns why settings can't be used, without a value of theirs.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::UnknownConfigurationKey { key, .. } => {
            format!("state.options has no option \"{key}\" of this store")
        }
        Error::Generic { store: "Config", .. } => "an option has a value that can't be used".to_owned(),
        error => error.to_string(),
    }
}

fn prefixed<S: ObjectStore>(store: S, place: &RemotePlace) -> Result<Arc<dyn ObjectStore>> {
    Ok(match place.prefix() {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, Path::parse(prefix)?)),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keytide_config::StatePlace;

    use super::super::{Store, StoreError};
    use super::*;

    fn refusal(url: &str, options: &[(&str, &str)]) -> Option<String> {
        let place = StatePlace::parse(url, Path::new("")).unwrap();
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        match Store::look_at(&place, &options) {
            Ok(store) => {
                assert_eq!(store.place(), url);
                None
            }
            Err(error @ StoreError::Refused { .. }) => Some(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_store_is_opened_by_its_url_and_options_without_a_connection() {
        let key = [("access_key_id", "key-1"), ("secret_access_key", "hunter2"), ("region", "eu-central-1")];
        assert_eq!(refusal("s3://bucket/prefix", &key), None);
        assert_eq!(
            refusal("az://container/prefix", &[("account_name", "a"), ("account_key", "aHVudGVyMg==")]),
            None
        );
        assert_eq!(refusal("gs://bucket", &[("skip_signature", "true")]), None);
    }

    #[test]
    fn settings_that_can_not_be_used_are_named_without_their_values() {
        for (url, options, expected) in [
            ("s3://bucket/a", [("secret_access_key", "hunter2")], "Missing AccessKeyId"),
            ("s3://bucket/a", [("conditional", "hunter2")], "has no option \"conditional\""),
            ("s3://bucket/a", [("imdsv1_fallback", "hunter2")], "an option has a value that can't be used"),
            ("gs://bucket/a", [("endpoint_of", "hunter2")], "has no option \"endpoint_of\""),
        ] {
            let refusal = refusal(url, &options).unwrap();
            assert!(refusal.starts_with("state.url: ") && refusal.contains(expected), "{refusal}");
            assert!(refusal.contains(url) && !refusal.contains("hunter2"), "{refusal}");
        }
    }
}
