//! End-to-end tests: real processes or real parts of them, with fakes only for what lies beyond Alfred.

mod models;
