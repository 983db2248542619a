//! The client of the platform's API against a scripted server.

mod against_simulator;
mod authentication;
mod calls;
mod faults;
mod lists;
mod official_sdk;
mod scripted_server;
mod tls;
