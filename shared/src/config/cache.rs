//! The variables of the tool cache and of token thrift.

use super::reader::Reader;
use crate::cache::{Backend, CacheSettings, Lifetimes};

/// How a worker keeps down what a model is sent [M6]. What is stored never changes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThriftConfig {
    /// `TOKEN_THRIFT`: off sends everything, every time, and marks nothing for the provider's cache.
    pub on: bool,
    /// `MODEL_RESULT_BYTES`: of one tool result in the turn that called the tool.
    pub result_bytes: usize,
    /// `MODEL_OLD_RESULT_BYTES`: of one tool result of an earlier turn.
    pub old_result_bytes: usize,
    /// `TOOLS_ON_DEMAND_ABOVE`: with more tools than this a model is offered a few and a way to find the others.
    pub tools_on_demand_above: usize,
    /// `HISTORY_COMPACT_ABOVE_TOKENS`: old turns of a longer conversation become a summary; none is never.
    pub compact_above_tokens: Option<i64>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> CacheSettings {
    CacheSettings {
        backend: match reader.text("CACHE_BACKEND").unwrap_or_default() {
            "postgres" => Backend::Postgres,
            "memory" => Backend::Memory,
            other => {
                reader.refuse("CACHE_BACKEND", format!("{other:?} is not postgres or memory"));
                Backend::Postgres
            }
        },
        lifetimes: Lifetimes {
            default: reader.seconds("CACHE_DEFAULT_TTL_SECONDS", 0.0, 31_536_000.0),
            notion_page: reader.seconds("CACHE_NOTION_PAGE_TTL_SECONDS", 0.0, 31_536_000.0),
            notion_search: reader.seconds("CACHE_NOTION_SEARCH_TTL_SECONDS", 0.0, 31_536_000.0),
        },
        memory_bytes: reader.number("CACHE_MEMORY_BYTES", 0, 4 << 30),
    }
}

pub(super) fn read_thrift(reader: &mut Reader<'_>) -> ThriftConfig {
    ThriftConfig {
        on: match reader.text("TOKEN_THRIFT").unwrap_or_default() {
            "on" => true,
            "off" => false,
            other => {
                reader.refuse("TOKEN_THRIFT", format!("{other:?} is not on or off"));
                true
            }
        },
        result_bytes: reader.number("MODEL_RESULT_BYTES", 256, 64 << 20),
        old_result_bytes: reader.number("MODEL_OLD_RESULT_BYTES", 256, 64 << 20),
        tools_on_demand_above: reader.number("TOOLS_ON_DEMAND_ABOVE", 0, 100_000),
        compact_above_tokens: Some(reader.number("HISTORY_COMPACT_ABOVE_TOKENS", 0, 100_000_000))
            .filter(|tokens| *tokens > 0),
    }
}
