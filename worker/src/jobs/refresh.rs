//! Refreshing connections by the clock: each minute one ticket for each that is due, and each ticket refreshes one. A
//! connection whose refresh failed is due again once its pause is over.

use apalis::prelude::BoxDynError;
use chrono::Utc;
use shared::{
    Error,
    connections::{self, Connections, Due, Outcome},
    jobs::RefreshTicket,
};
use sqlx::PgPool;

use super::{guarded, store};

/// Connections that one tick writes tickets for; the next one goes on.
const MOST: i64 = 1000;

/// Writes a ticket for every connection that is due; answers how many.
pub(super) async fn write_tickets(engine: &PgPool) -> Result<u64, Error> {
    let tick = Utc::now().timestamp() / 60;
    let mut written = 0;
    for due in connections::due(engine, MOST).await? {
        let ticket = RefreshTicket { tenant: due.tenant_id, user: due.user_id, connection: due.id };
        written += u64::from(store::push_refresh(engine, &ticket, tick).await?);
    }
    Ok(written)
}

/// Refreshes the connection of a ticket.
pub(crate) async fn run(ticket: RefreshTicket, connections: &Connections) -> Result<(), BoxDynError> {
    let due = Due { tenant_id: ticket.tenant, user_id: ticket.user, id: ticket.connection };
    let refreshing = async {
        match connections.refresh(&due).await? {
            Outcome::Done => Ok(()),
            Outcome::SignInAgain => {
                Err(Error::new(shared::Code::OauthRefresh, "its person has to sign in again"))
            }
        }
    };
    guarded("refresh", refreshing).await
}
