//! What goes over the wire: entries parted by spaces, at most 7900 bytes a NOTIFY (Postgres takes 8000).
//!
//! `tenant/turn:tail`, `tenant/conversation:turn_no`, `tenant/owner:server` and `tenant/user:version` with uuids as 32 hex
//! digits; a cancel is a bare turn id and a change a bare tenant.

use std::{fmt::Write as _, str::FromStr, sync::Arc};

use uuid::Uuid;

use super::{CachePlace, Channel, Heard};
use crate::ids::{ConversationId, TenantId, TurnId, UserId};

const MAX_BYTES: usize = 7900;

impl Channel {
    /// The name Postgres knows it by.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "alfred_events",
            Self::Turns => "alfred_turns",
            Self::Work => "alfred_work",
            Self::Cancel => "alfred_cancel",
            Self::Changes => "alfred_changes",
            Self::Cache => "alfred_cache",
            Self::Deliveries => "alfred_deliveries",
            Self::Switches => "alfred_switches",
            Self::Contexts => "alfred_contexts",
        }
    }
}

/// A channel that only this process listens to, so that its echo wakes nobody else.
pub(super) fn echo_channel() -> String {
    format!("alfred_echo_{}", Uuid::new_v4().simple())
}

/// Packs entries into as few payloads as fit.
pub(super) struct Packer<'a> {
    channel: &'a str,
    channels: &'a mut Vec<String>,
    payloads: &'a mut Vec<String>,
    open: bool,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        channel: &'a str,
        channels: &'a mut Vec<String>,
        payloads: &'a mut Vec<String>,
    ) -> Self {
        Self { channel, channels, payloads, open: false }
    }

    pub(super) fn counted(&mut self, tenant: TenantId, subject: impl std::fmt::Display, count: i64) {
        // Writing to a String cannot fail.
        let _ = write!(self.room_for(32 + 32 + 20 + 3), "{}/{subject}:{count}", tenant.0.simple());
    }

    pub(super) fn bare(&mut self, id: Uuid) {
        let _ = write!(self.room_for(33), "{}", id.simple());
    }

    fn room_for(&mut self, bytes: usize) -> &mut String {
        let full = self.payloads.last().is_none_or(|payload| payload.len() + bytes > MAX_BYTES);
        if !self.open || full {
            self.channels.push(self.channel.to_owned());
            self.payloads.push(String::new());
            self.open = true;
        }
        let at = self.payloads.len() - 1;
        let payload = &mut self.payloads[at];
        if !payload.is_empty() {
            payload.push(' ');
        }
        payload
    }
}

/// Reads a notification. Entries that cannot be read are passed over: the slow timers find what they spoke of.
pub(super) fn read(channel: &str, payload: &str) -> Option<Heard> {
    match channel {
        "alfred_events" => Some(Heard::Events(counted(payload, |id| Uuid::try_parse(id).ok().map(TurnId)))),
        "alfred_turns" => {
            Some(Heard::Turns(counted(payload, |id| i64::from_str(id).ok().map(ConversationId))))
        }
        "alfred_work" => Some(Heard::Work),
        "alfred_deliveries" => Some(Heard::Deliveries),
        "alfred_switches" => Some(Heard::Switches),
        "alfred_contexts" => {
            Some(Heard::Contexts(counted(payload, |id| Uuid::try_parse(id).ok().map(UserId))))
        }
        "alfred_cancel" => {
            let turns = payload.split(' ').filter_map(|id| Uuid::try_parse(id).ok()).map(TurnId);
            Some(Heard::Cancel(turns.collect()))
        }
        "alfred_changes" => {
            let tenants = payload.split(' ').filter_map(|id| Uuid::try_parse(id).ok()).map(TenantId);
            Some(Heard::Changes(tenants.collect()))
        }
        "alfred_cache" => {
            let places = counted(payload, |id| Uuid::try_parse(id).ok());
            let place = |&(tenant, owner, server): &_| CachePlace { tenant, owner, server };
            Some(Heard::Cache(places.iter().map(place).collect()))
        }
        _ => None,
    }
}

fn counted<T>(payload: &str, subject: impl Fn(&str) -> Option<T>) -> Arc<[(TenantId, T, i64)]> {
    let entry = |text: &str| {
        let (tenant, rest) = text.split_once('/')?;
        let (id, count) = rest.split_once(':')?;
        Some((TenantId(Uuid::try_parse(tenant).ok()?), subject(id)?, count.parse().ok()?))
    };
    payload.split(' ').filter_map(entry).collect()
}
