//! The product: domains and their rules, with the SQL they need. Knows no HTTP server.

pub mod model;
