//! SQL of the figures. Both statements are answered by the index of facts alone.

use chrono::NaiveDate;

use crate::{db::TenantTx, error::Result, identity::Role};

/// Items that have this much in common.
#[derive(sqlx::FromRow)]
pub(super) struct Count {
    pub(super) kind: String,
    pub(super) status: Option<String>,
    pub(super) archived: bool,
    pub(super) deleted: bool,
    pub(super) items: i64,
    pub(super) overdue: i64,
    pub(super) due_soon: i64,
}

pub(super) async fn counts(tx: &mut TenantTx) -> Result<Vec<Count>> {
    macro_rules! counts {
        ($whose:literal) => {
            concat!(
                "select kind, status, archived, deleted_at is not null as deleted, count(*) as items,
                        count(*) filter (where due_at < now()) as overdue,
                        count(*) filter (where due_at >= now() and due_at < now() + interval '7 days') as due_soon
                 from items where tenant_id = $1",
                $whose,
                " group by 1, 2, 3, 4"
            )
        };
    }
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let admin = tx.actor().role == Role::Admin;
    let query = sqlx::query_as(if admin { counts!("") } else { counts!(" and user_id = $2") }).bind(tenant);
    let query = if admin { query } else { query.bind(user) };
    Ok(query.fetch_all(tx.connection()).await?)
}

/// Items of a kind that were made on a day.
#[derive(sqlx::FromRow)]
pub(super) struct Day {
    pub(super) day: NaiveDate,
    pub(super) kind: String,
    pub(super) items: i64,
}

pub(super) async fn created(tx: &mut TenantTx, days: i32) -> Result<Vec<Day>> {
    macro_rules! created {
        ($whose:literal) => {
            concat!(
                "select (created_at at time zone 'UTC')::date as day, kind, count(*) as items
                 from items
                 where tenant_id = $1 and deleted_at is null
                   and created_at >= date_trunc('day', now(), 'UTC') - make_interval(days => $2 - 1)",
                $whose,
                " group by 1, 2"
            )
        };
    }
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let admin = tx.actor().role == Role::Admin;
    let query = sqlx::query_as(if admin { created!("") } else { created!(" and user_id = $3") });
    let query = query.bind(tenant).bind(days);
    let query = if admin { query } else { query.bind(user) };
    Ok(query.fetch_all(tx.connection()).await?)
}
