//! What both systems are given to do.

pub mod check;
pub mod drain;
pub mod takeover;
pub(crate) mod waiting;
