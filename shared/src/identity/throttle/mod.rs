//! How often somebody may try to sign in.
//!
//! Three leaky buckets, shared by all processes: one for the address, one for the account, one for the two together. An
//! attempt is counted before its password is checked, so that many at once count too, and a good one is given back.
//!
//! Nobody can lock a user out for good: buckets leak, an attempt that one bucket refuses adds to none, and from an address where the user
//! has signed in before the account's own bucket does not count — so a stranger who keeps it full is in the way only of
//! sign-ins from new places, for seconds.

mod store;

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use sqlx::PgPool;

use super::EmailAddress;
use crate::error::{Code, Error, Result};

/// How a bucket fills and leaks.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    kind: &'static str,
    capacity: f64,
    leak_per_second: f64,
}

/// Many people may share an address.
const ADDRESS: Bucket = Bucket { kind: "address", capacity: 50.0, leak_per_second: 1.0 / 10.0 };
const ACCOUNT: Bucket = Bucket { kind: "account", capacity: 30.0, leak_per_second: 1.0 / 30.0 };
const ACCOUNT_AT_ADDRESS: Bucket = Bucket { kind: "both", capacity: 8.0, leak_per_second: 1.0 / 30.0 };
/// New accounts from one address.
const REGISTER: Bucket = Bucket { kind: "register", capacity: 60.0, leak_per_second: 1.0 / 60.0 };
/// Programs that register from one address. A service registers one for each of its users, from few addresses.
const REGISTER_PROGRAM: Bucket = Bucket { kind: "program", capacity: 60.0, leak_per_second: 1.0 / 10.0 };
/// Not a bucket: its row says that the account was signed in to from the address.
const KNOWN: &str = "known";

type Key = [u8; 32];

/// An attempt that was let through, to be given back when it was good.
pub(crate) struct Attempt {
    keys: Vec<Key>,
    known: Key,
}

/// Lets a login attempt through, and counts it.
///
/// # Errors
/// 429 with when to try again; the database's.
pub(super) async fn log_in(engine: &PgPool, address: IpAddr, email: &EmailAddress) -> Result<Attempt> {
    attempt(engine, address, &email.folded()).await
}

/// The same of any account that is named by a text. No text with a line break is an address.
///
/// # Errors
/// As [`log_in`].
pub(crate) async fn attempt(engine: &PgPool, address: IpAddr, account: &str) -> Result<Attempt> {
    let place = place(address);
    let both = format!("{account}\n{place}");
    let known = key(KNOWN, &both);
    let buckets = [
        (key(ADDRESS.kind, &place), ADDRESS),
        (key(ACCOUNT_AT_ADDRESS.kind, &both), ACCOUNT_AT_ADDRESS),
        (key(ACCOUNT.kind, account), ACCOUNT),
    ];
    let unless_known = Some((buckets[2].0, known));
    let keys = drip(engine, buckets.to_vec(), unless_known).await?;
    Ok(Attempt { keys, known })
}

/// Lets a registration through, and counts it.
///
/// # Errors
/// 429 with when to try again; the database's.
pub(super) async fn register(engine: &PgPool, address: IpAddr) -> Result<()> {
    one(engine, address, REGISTER).await
}

/// Lets a program register, and counts it.
///
/// # Errors
/// 429 with when to try again; the database's.
pub(crate) async fn register_program(engine: &PgPool, address: IpAddr) -> Result<()> {
    one(engine, address, REGISTER_PROGRAM).await
}

async fn one(engine: &PgPool, address: IpAddr, bucket: Bucket) -> Result<()> {
    drip(engine, vec![(key(bucket.kind, &place(address)), bucket)], None).await.map(drop)
}

impl Attempt {
    /// The attempt was good: it does not count, and the address is one of the account's.
    pub(crate) async fn was_good(self, engine: &PgPool) -> Result<()> {
        store::give_back(engine, &self.keys, &self.known).await
    }
}

/// Adds a drop to each bucket, or to none; answers which took one. The bucket of `unless_known` is left out when the place
/// beside it is known.
async fn drip(
    engine: &PgPool,
    buckets: Vec<(Key, Bucket)>,
    unless_known: Option<(Key, Key)>,
) -> Result<Vec<Key>> {
    let engine = engine.clone();
    // A task of its own: a client that goes away in the midst of it would leave drops in buckets that refused nothing.
    let dripping = tokio::spawn(async move {
        let dripped = store::drip(&engine, &buckets, unless_known).await?;
        let took: Vec<Key> = dripped.iter().filter(|(_, wait)| wait.is_none()).map(|(key, _)| *key).collect();
        if !took.is_empty() && took.len() < dripped.len() {
            store::take_back(&engine, &took).await?;
        }
        Ok::<_, Error>(dripped)
    });
    let dripped = dripping.await.map_err(Error::internal)??;
    let seconds = dripped.iter().filter_map(|(_, wait)| *wait).fold(0.0, f64::max);
    if seconds > 0.0 {
        let seconds = seconds.ceil();
        let message = format!("too many attempts; the next one is possible in {seconds} seconds");
        return Err(Error::new(Code::Rate, message).with_detail("retryAfter", seconds as i64));
    }
    Ok(dripped.into_iter().map(|(key, _)| key).collect())
}

/// An address, or the network of an IPv6 one: a household has 2^64 of those.
fn place(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x?}", &address.segments()[..4]),
    }
}

fn key(kind: &str, what: &str) -> Key {
    let mut hash = Sha256::new();
    hash.update(kind.as_bytes());
    hash.update(b"\n");
    hash.update(what.as_bytes());
    hash.finalize().into()
}

/// Removes buckets that have long been empty.
///
/// # Errors
/// The database's.
pub(super) async fn tidy(engine: &PgPool) -> Result<()> {
    store::tidy(engine).await
}
