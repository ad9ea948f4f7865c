//! What of the Model Context Protocol is not bound to a transport: so far, how its clients come by tokens.

pub mod authorization;
