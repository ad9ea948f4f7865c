//! What tests, benches and chaos runs share: fakes of what lies beyond Alfred, clients that forget nothing, processes
//! and clusters that can be broken at will, and the oracle that judges every run. Nothing here is part of the product.

pub mod bench;
pub mod chaos;
pub mod client;
pub mod database;
pub mod fakes;
pub mod folder;
pub mod load;
pub mod oracle;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod real;
pub mod redis_server;
pub mod stack;
pub mod thrift;
