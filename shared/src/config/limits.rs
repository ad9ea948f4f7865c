//! How many requests a credential and an address may make.

use super::reader::Reader;

/// More than anybody makes in a minute.
const MOST: u32 = 1_000_000_000;

/// Requests a minute; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// `RATE_LIMIT_PER_MINUTE`: of a credential.
    pub per_minute: u32,
    /// `RATE_LIMIT_CHAT_PER_MINUTE`: of a credential, those that make a turn.
    pub chat_per_minute: u32,
    /// `RATE_LIMIT_ADDRESS_PER_MINUTE`: of an address, all its credentials together.
    pub address_per_minute: u32,
    /// `RATE_LIMIT_ADDRESS_CHAT_PER_MINUTE`
    pub address_chat_per_minute: u32,
    /// `RATE_LIMIT_AGENT_PER_MINUTE`: of an agent, all its sessions together.
    pub agent_per_minute: u32,
}

pub(super) fn read(reader: &mut Reader<'_>) -> RateLimits {
    RateLimits {
        per_minute: reader.number("RATE_LIMIT_PER_MINUTE", 0, MOST),
        chat_per_minute: reader.number("RATE_LIMIT_CHAT_PER_MINUTE", 0, MOST),
        address_per_minute: reader.number("RATE_LIMIT_ADDRESS_PER_MINUTE", 0, MOST),
        address_chat_per_minute: reader.number("RATE_LIMIT_ADDRESS_CHAT_PER_MINUTE", 0, MOST),
        agent_per_minute: reader.number("RATE_LIMIT_AGENT_PER_MINUTE", 0, MOST),
    }
}
