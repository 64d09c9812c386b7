//! Object stores of others: where they are, who we are to them, how long we wait.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::words;

/// What holds for all of them. The endpoint is named by the operator: one on plain HTTP is one on
/// the same machine or network. No request has a bound as a whole: whoever is sent an image may be
/// slow. But a server that says nothing for a minute is gone.
const CLIENT: [(ClientConfigKey, &str); 4] = [
    (ClientConfigKey::AllowHttp, "true"),
    (ClientConfigKey::ConnectTimeout, "5 seconds"),
    (ClientConfigKey::ReadTimeout, "60 seconds"),
    (ClientConfigKey::Timeout, "1 day"),
];

/// Whoever waits for us has others to ask: a node takes 503 and keeps what it has.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(15),
    }
}

/// A location, taken apart.
struct Parts<'a> {
    scheme: &'a str,
    bucket: &'a str,
    prefix: &'a str,
    options: Vec<(&'a str, &'a str)>,
    /// What the file of `keys` says.
    keys: Vec<(String, String)>,
}

fn parts(url: &str) -> Result<Parts<'_>, String> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = place.split_once("://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let options = query.split('&').filter(|o| !o.is_empty());
    let options = options.map(|o| o.split_once('=').ok_or_else(|| format!("{o} has no value")));
    let mut options = options.collect::<Result<Vec<_>, _>>()?;
    let mut keys = Vec::new();
    for (_, path) in options.extract_if(.., |(name, _)| *name == "keys") {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the keys in {path}: {e}"))?;
        keys.extend(keys_in(&text).map_err(|line| {
            format!("line {line} of the keys in {path} is not of the form NAME=VALUE")
        })?);
    }
    Ok(Parts { scheme, bucket, prefix, options, keys })
}

/// `NAME=VALUE` a line; empty lines and those with `#` in front say nothing. The number of a line
/// that is none.
fn keys_in(text: &str) -> Result<Vec<(String, String)>, usize> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let key = |(at, line): (usize, &str)| {
        let (name, value) = line.split_once('=').ok_or(at + 1)?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    lines.map(key).collect()
}

/// The name of a setting in a file of keys, as the library knows it.
fn setting<K: std::str::FromStr>(name: &str) -> Result<K, String> {
    name.parse().map_err(|_| format!("the file of keys has an unknown {}", name.to_uppercase()))
}

/// Opens one.
pub(super) fn open(url: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let Parts { scheme, bucket, prefix, options, keys } = parts(url)?;
    let known = |name: &str| format!("there is no option {name}");
    let fail = |e: object_store::Error| words(&e);
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            for (key, value) in CLIENT {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            for (name, value) in keys {
                builder = builder.with_config(setting(&name)?, value);
            }
            for (key, value) in options {
                builder = match key {
                    "endpoint" => builder.with_endpoint(value),
                    "region" => builder.with_region(value),
                    _ => return Err(known(key)),
                };
            }
            Arc::new(builder.with_retry(retries()).build().map_err(fail)?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            for (key, value) in CLIENT {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            for (name, value) in keys {
                builder = builder.with_config(setting(&name)?, value);
            }
            for (key, value) in options {
                builder = match key {
                    "endpoint" => builder.with_base_url(value),
                    "service_account" => builder.with_service_account_path(value),
                    _ => return Err(known(key)),
                };
            }
            Arc::new(builder.with_retry(retries()).build().map_err(fail)?)
        }
        "az" => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            for (key, value) in CLIENT {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            for (name, value) in keys {
                builder = builder.with_config(setting(&name)?, value);
            }
            for (key, value) in options {
                builder = match key {
                    "account" => builder.with_account(value),
                    "endpoint" => builder.with_endpoint(value.to_owned()),
                    _ => return Err(known(key)),
                };
            }
            Arc::new(builder.with_retry(retries()).build().map_err(fail)?)
        }
        _ => return Err("of this kind there is none".to_owned()),
    };
    Ok(match prefix.trim_matches('/') {
        "" => store,
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_is_read() {
        let text = "# ours\n\nAWS_ACCESS_KEY_ID=a\n AWS_SECRET_ACCESS_KEY = b=c \n";
        let named = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let all = [named("aws_access_key_id", "a"), named("aws_secret_access_key", "b=c")];
        assert_eq!(keys_in(text).unwrap(), all);
        assert_eq!(keys_in("A=b\nnothing\n"), Err(2));
    }

    #[test]
    fn what_is_wrong_with_keys_is_said_without_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        let url = format!("s3://b?region=x&keys={}", file.display());
        let e = open(&url).unwrap_err();
        assert!(e.contains("cannot read the keys in"), "{e}");
        store::save(dir.path(), "keys", b"AWS_COLOUR=secret\n").unwrap();
        let e = open(&url).unwrap_err();
        assert_eq!(e, "the file of keys has an unknown AWS_COLOUR");
        store::save(dir.path(), "keys", b"AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n").unwrap();
        open(&url).unwrap();
    }
}
