//! SQL of key rotation: where sealed columns are. The engine finds rows by the id of their key; it reads no ciphertext of a
//! person's connections, which are opened in that person's own transaction.

use sqlx::{PgConnection, PgPool};

use crate::{
    error::Result,
    ids::{TenantId, UserId},
};

/// As whom a row is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Engine,
    Person,
}

/// A sealed column.
#[derive(Debug)]
pub(super) struct Column {
    /// `table.column`
    pub(super) name: &'static str,
    pub(super) purpose: &'static str,
    /// $1 tenant, $2 key: what its subject is made of, and the sealed text.
    read: &'static str,
    /// $1 tenant, $2 key, $3 as it was read, $4 sealed again.
    write: &'static str,
}

/// A table with sealed columns.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) what: &'static str,
    pub(super) reach: Reach,
    pub(super) columns: &'static [Column],
    /// As the engine: rows that key $1 did not seal, after tenant $2 and key $3, $4 at most.
    spots: &'static str,
    /// As the engine: how many rows each key has.
    left: &'static str,
}

/// A row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Spot {
    pub(super) tenant_id: TenantId,
    pub(super) user_id: UserId,
    pub(super) key: String,
}

/// A sealed text and what its subject is made of.
#[derive(sqlx::FromRow)]
pub(super) struct Sealed {
    parts: Vec<String>,
    pub(super) text: String,
}

impl Sealed {
    /// One part is the subject; several are written as JSON, as who sealed them did.
    pub(super) fn subject(&self) -> Result<String> {
        match self.parts.as_slice() {
            [one] => Ok(one.clone()),
            several => Ok(serde_json::to_string(several)?),
        }
    }
}

/// Every sealed column.
pub(super) const PLACES: &[Place] = &[
    Place {
        what: "connections",
        reach: Reach::Person,
        columns: &[
            Column {
                name: "connections.access_token_enc",
                purpose: "connection access token",
                read: "select array[user_id::text, provider, workspace_id] as parts, access_token_enc as text from connections
                       where tenant_id = $1 and id = $2::uuid and access_token_enc is not null",
                write: "update connections set access_token_enc = $4 where tenant_id = $1 and id = $2::uuid and access_token_enc = $3",
            },
            Column {
                name: "connections.refresh_token_enc",
                purpose: "connection refresh token",
                read: "select array[user_id::text, provider, workspace_id] as parts, refresh_token_enc as text from connections
                       where tenant_id = $1 and id = $2::uuid and refresh_token_enc is not null",
                write: "update connections set refresh_token_enc = $4 where tenant_id = $1 and id = $2::uuid and refresh_token_enc = $3",
            },
        ],
        spots: "select tenant_id, user_id, id::text as key from connections
                where key_id <> $1 and ($2::uuid is null or (tenant_id, id) > ($2, $3::uuid)) order by tenant_id, id limit $4",
        left: "select key_id, count(*) from connections where key_id is not null group by 1 order by 1",
    },
    Place {
        what: "registrations",
        reach: Reach::Person,
        columns: &[Column {
            name: "oauth_registrations.client_secret_enc",
            purpose: "oauth client secret",
            read: "select array[issuer, client_id] as parts, client_secret_enc as text from oauth_registrations
                   where tenant_id = $1 and id = $2::uuid and client_secret_enc is not null",
            write: "update oauth_registrations set client_secret_enc = $4
                    where tenant_id = $1 and id = $2::uuid and client_secret_enc = $3",
        }],
        spots: "select tenant_id, '00000000-0000-0000-0000-000000000000'::uuid as user_id, id::text as key from oauth_registrations
                where key_id <> $1 and ($2::uuid is null or (tenant_id, id) > ($2, $3::uuid)) order by tenant_id, id limit $4",
        left: "select key_id, count(*) from oauth_registrations where key_id is not null group by 1 order by 1",
    },
    Place {
        what: "flows",
        reach: Reach::Person,
        columns: &[Column {
            name: "oauth_flows.verifier_enc",
            purpose: "oauth verifier",
            read: "select array[id::text] as parts, verifier_enc as text from oauth_flows
                   where tenant_id = $1 and id = $2::uuid and verifier_enc is not null",
            write: "update oauth_flows set verifier_enc = $4 where tenant_id = $1 and id = $2::uuid and verifier_enc = $3",
        }],
        spots: "select tenant_id, user_id, id::text as key from oauth_flows
                where key_id <> $1 and ($2::uuid is null or (tenant_id, id) > ($2, $3::uuid)) order by tenant_id, id limit $4",
        left: "select key_id, count(*) from oauth_flows where key_id is not null group by 1 order by 1",
    },
    Place {
        what: "tokens of MCP servers",
        reach: Reach::Engine,
        columns: &[Column {
            name: "mcp_servers.bearer_enc",
            purpose: "mcp server bearer",
            read: "select array[bearer_for] as parts, bearer_enc as text from mcp_servers
                   where tenant_id = $1 and name = $2 and bearer_enc is not null",
            write: "update mcp_servers set bearer_enc = $4 where tenant_id = $1 and name = $2 and bearer_enc = $3",
        }],
        spots: "select tenant_id, '00000000-0000-0000-0000-000000000000'::uuid as user_id, name as key from mcp_servers
                where split_part(bearer_enc, '.', 1) <> $1 and ($2::uuid is null or (tenant_id, name) > ($2, $3))
                order by tenant_id, name limit $4",
        left: "select split_part(bearer_enc, '.', 1), count(*) from mcp_servers where bearer_enc is not null group by 1 order by 1",
    },
    Place {
        what: "signing keys",
        reach: Reach::Engine,
        columns: &[Column {
            name: "signing_keys.sealed_private_key",
            purpose: "signing key",
            read: "select array[kid] as parts, sealed_private_key as text from signing_keys where $1::uuid is not null and kid = $2",
            write: "update signing_keys set sealed_private_key = $4 where $1::uuid is not null and kid = $2 and sealed_private_key = $3",
        }],
        spots: "select '00000000-0000-0000-0000-000000000000'::uuid as tenant_id, '00000000-0000-0000-0000-000000000000'::uuid as user_id, kid as key
                from signing_keys where split_part(sealed_private_key, '.', 1) <> $1 and ($2::uuid is null or kid > $3) order by kid limit $4",
        left: "select split_part(sealed_private_key, '.', 1), count(*) from signing_keys group by 1 order by 1",
    },
    Place {
        what: "tenants' header secrets",
        reach: Reach::Engine,
        columns: &[Column {
            name: "tenant_header_secrets.secret_enc",
            purpose: "tenant header secret",
            read: "select array[id::text] as parts, secret_enc as text from tenant_header_secrets where tenant_id = $1 and id = $2::uuid",
            write: "update tenant_header_secrets set secret_enc = $4 where tenant_id = $1 and id = $2::uuid and secret_enc = $3",
        }],
        spots: "select tenant_id, '00000000-0000-0000-0000-000000000000'::uuid as user_id, id::text as key from tenant_header_secrets
                where split_part(secret_enc, '.', 1) <> $1 and ($2::uuid is null or (tenant_id, id) > ($2, $3::uuid))
                order by tenant_id, id limit $4",
        left: "select split_part(secret_enc, '.', 1), count(*) from tenant_header_secrets group by 1 order by 1",
    },
    Place {
        what: "agents' secrets",
        reach: Reach::Engine,
        columns: &[Column {
            name: "agent_secrets.secret_enc",
            purpose: "agent secret",
            read: "select array[agent || '/' || id::text] as parts, secret_enc as text from agent_secrets where tenant_id = $1 and id = $2::uuid",
            write: "update agent_secrets set secret_enc = $4 where tenant_id = $1 and id = $2::uuid and secret_enc = $3",
        }],
        spots: "select tenant_id, '00000000-0000-0000-0000-000000000000'::uuid as user_id, id::text as key from agent_secrets
                where split_part(secret_enc, '.', 1) <> $1 and ($2::uuid is null or (tenant_id, id) > ($2, $3::uuid))
                order by tenant_id, id limit $4",
        left: "select split_part(secret_enc, '.', 1), count(*) from agent_secrets group by 1 order by 1",
    },
];

/// Every sealed column, as `table.column`.
#[must_use]
pub fn columns() -> Vec<&'static str> {
    PLACES.iter().flat_map(|place| place.columns).map(|column| column.name).collect()
}

pub(super) async fn spots(
    engine: &PgPool,
    place: &Place,
    key_id: &str,
    after: Option<&Spot>,
    most: i64,
) -> Result<Vec<Spot>> {
    Ok(sqlx::query_as(place.spots)
        .bind(key_id)
        .bind(after.map(|spot| spot.tenant_id))
        .bind(after.map(|spot| spot.key.as_str()))
        .bind(most)
        .fetch_all(engine)
        .await?)
}

pub(super) async fn left(engine: &PgPool, place: &Place) -> Result<Vec<(String, i64)>> {
    Ok(sqlx::query_as(place.left).fetch_all(engine).await?)
}

pub(super) async fn read(
    connection: &mut PgConnection,
    column: &Column,
    spot: &Spot,
) -> Result<Option<Sealed>> {
    Ok(sqlx::query_as(column.read).bind(spot.tenant_id).bind(&spot.key).fetch_optional(connection).await?)
}

pub(super) async fn write(
    connection: &mut PgConnection,
    column: &Column,
    spot: &Spot,
    before: &str,
    sealed: &str,
) -> Result<u64> {
    let done = sqlx::query(column.write)
        .bind(spot.tenant_id)
        .bind(&spot.key)
        .bind(before)
        .bind(sealed)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
