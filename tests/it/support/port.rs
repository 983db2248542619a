//! Ports that stay ours while the server behind them is down.
//!
//! A port from "bind 0 and close" may be taken by any outgoing connection before the server binds it, and again while
//! the server is being restarted. These come from below the range that the system gives to outgoing connections, and
//! each is leased by a lock on a file, so that tests of other processes keep off it too.

use std::{
    env,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port on 127.0.0.1, ours until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: File,
}

impl Port {
    pub fn lease() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let folder = env::temp_dir().join(format!("convoke-test-ports-{user}"));
        fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let count = RANGE.len() as u32;
        // Neighbouring process ids start far apart.
        let start = std::process::id().wrapping_mul(101) % count;
        for step in 0..count {
            let number = RANGE.start + ((start + step) % count) as u16;
            let lease = File::create(folder.join(number.to_string())).expect("the temporary folder can be written");
            if lease.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lease: lease };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}
