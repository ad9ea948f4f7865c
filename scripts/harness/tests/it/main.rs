//! Alfred from outside: everything that a client can see, and everything that may break under it. Each test has a stack
//! of its own, of real processes or real parts of them, with fakes only for what lies beyond; the oracle judges each.

#![expect(clippy::unwrap_used, reason = "tests")]

mod agents;
mod agents_backlog;
mod agents_batches;
mod agents_contexts;
mod agents_load;
mod agents_trouble;
mod approvals;
mod busy;
mod cancel;
mod chat;
mod connections;
mod fairness;
mod idempotency;
mod lost_replies;
mod metrics;
mod models;
mod outages;
mod outside_tools;
mod poison;
mod providers;
mod queues;
mod readers;
mod real_servers;
mod redis_stream;
mod remote;
mod remote_faults;
mod retry;
mod rolling;
mod run;
mod semantic;
mod sessions;
mod soak;
mod streams;
mod sweeper;
mod task_chat;
mod thrift;
mod tool_cache;
mod tools_of_the_trade;
mod usage;
mod worker_death;
mod zombies;
