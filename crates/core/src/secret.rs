//! Hashing of secrets without leaving a copy of them in memory.

use sha2::digest::FixedOutputReset;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a secret. The hasher buffers the last bytes of the secret, so it stays on the heap and is wiped in
/// place: moving it, as `Sha256::digest` does, leaves copies on the stack.
#[must_use]
pub fn digest(secret: &[u8]) -> [u8; 32] {
    let mut hasher = Box::new(Sha256::new());
    hasher.update(secret);
    let mut digest = [0; 32];
    FixedOutputReset::finalize_into_reset(&mut *hasher, (&mut digest).into());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha_256() {
        for text in [&b""[..], b"abc", &[7; 200]] {
            assert_eq!(digest(text), <[u8; 32]>::from(Sha256::digest(text)));
        }
    }
}
