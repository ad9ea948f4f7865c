//! Somebody else's authorization server, with a server that its tokens are for: metadata, client documents and
//! registration, codes with PKCE, refresh tokens that rotate and whose reuse ends their family, revocation, userinfo. Beside
//! it the dialect of Notion's API. Every way in which the real ones fail can be had by asking.

mod grants;
mod notion;
mod server;

pub use self::{
    grants::{Family, Grants},
    server::{FakeAuthorization, Knobs, Mishap},
};
