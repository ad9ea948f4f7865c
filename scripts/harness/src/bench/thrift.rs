//! Input tokens as a provider bills them, with everything off and everything on.

use anyhow::Result;

use super::report::Table;
use crate::thrift::{self, Session};

/// Measures, on a stack of its own: no clock is involved.
///
/// # Errors
/// A turn does not succeed.
pub(super) async fn measure() -> Result<Table> {
    let mut table = Table::new(
        "Input tokens as billed, token thrift off and on",
        &["", "requests", "off", "requests", "on", "of it read from the cache", "saved"],
    );
    let (off, on) =
        (thrift::stack(false).own_cluster().start().await?, thrift::stack(true).own_cluster().start().await?);
    let whole = |tokens: f64| format!("{tokens:.0}");
    let (mut all_off, mut all_on) = (0.0, 0.0);
    for session in Session::ALL {
        let before = thrift::run(&off, session, false).await?;
        let after = thrift::run(&on, session, true).await?;
        all_off += before.billed();
        all_on += after.billed();
        table.row([
            session.name().to_owned(),
            before.requests.to_string(),
            whole(before.billed()),
            after.requests.to_string(),
            whole(after.billed()),
            format!("{:.0} %", 100.0 * after.read / after.input),
            format!("{:.1} %", 100.0 * (1.0 - after.billed() / before.billed())),
        ]);
    }
    table.row([
        "together".to_owned(),
        String::new(),
        whole(all_off),
        String::new(),
        whole(all_on),
        String::new(),
        format!("{:.1} %", 100.0 * (1.0 - all_on / all_off)),
    ]);
    table.note("Four bytes are a token; what the provider's cache has costs a tenth, writing to it a quarter more than input.");
    table.note("121 tools of connected servers, pages of 6 KB, default settings: none of these sessions is long enough for a summary.");
    table.note("Aim: 90 % saved on repeated reads.");
    Ok(table)
}
