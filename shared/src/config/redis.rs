//! The Redis stream that events about users go to as well.

use secrecy::ExposeSecret as _;

use super::reader::Reader;
use crate::redis_stream::RedisConfig;

/// None when it is off, or a problem was noted.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<RedisConfig> {
    let url = reader.secret("REDIS_URL");
    let max_length = reader.number("REDIS_STREAM_MAX_LENGTH", 1, 1_000_000_000);
    let group = reader.text("REDIS_CONSUMER_GROUP").unwrap_or_default().to_owned();
    let is_on = match reader.text("REDIS_STREAMS_ENABLED") {
        Some("on" | "true") => true,
        Some("off" | "false") => false,
        _ => {
            reader.refuse("REDIS_STREAMS_ENABLED", "is not true or false");
            return None;
        }
    };
    if !is_on {
        return None;
    }
    let Some(url) = url else {
        reader.refuse("REDIS_URL", "is needed when REDIS_STREAMS_ENABLED is true");
        return None;
    };
    // The problem is not shown: it may quote the password.
    if redis::Client::open(url.expose_secret()).is_err() {
        reader.refuse("REDIS_URL", "is not a redis or rediss URL");
    }
    if group.is_empty() {
        reader.refuse("REDIS_CONSUMER_GROUP", "is empty");
    }
    Some(RedisConfig { url, max_length, group })
}
