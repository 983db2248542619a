//! The client of the platform's API against a server that is told what to answer.

mod authentication;
mod calls;
mod faults;
mod lists;
mod scripted;
mod tls;
