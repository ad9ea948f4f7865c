//! SQL of usage.

use chrono::NaiveDate;

use super::UsageDay;
use crate::{db::TenantTx, error::Result, ids::UserId};

pub(super) async fn by_day(
    tx: &mut TenantTx,
    own: Option<UserId>,
    first: NaiveDate,
    last: NaiveDate,
) -> Result<Vec<UsageDay>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select day, provider, model, sum(calls)::bigint as calls, sum(input_tokens)::bigint as input_tokens,
                sum(output_tokens)::bigint as output_tokens, sum(cache_read_tokens)::bigint as cache_read_tokens,
                sum(cache_write_tokens)::bigint as cache_write_tokens, sum(cost_micros)::bigint as cost_micros
         from (
           select date_trunc('day', sent_at, 'UTC') as day, provider, model, 1::bigint as calls, input_tokens, output_tokens,
                  cache_read_tokens, cache_write_tokens, cost_micros
           from model_calls
           where tenant_id = $1 and ($4::uuid is null or user_id = $4)
             and sent_at >= $2::date::timestamp at time zone 'UTC' and sent_at < ($3::date + 1)::timestamp at time zone 'UTC'
           union all
           select day, provider, model, calls, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_micros
           from usage_days
           where tenant_id = $1 and ($4::uuid is null or user_id = $4)
             and day >= $2::date::timestamp at time zone 'UTC' and day < ($3::date + 1)::timestamp at time zone 'UTC'
         ) used
         group by day, provider, model order by day, provider, model",
    )
    .bind(tenant)
    .bind(first)
    .bind(last)
    .bind(own)
    .fetch_all(tx.connection())
    .await?)
}
