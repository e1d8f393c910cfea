//! FNV-1a with 128 bits: ten lines that any language can repeat. Guards against mistakes, not against forgery.

/// A running hash.
pub(super) struct Fnv128(u128);

impl Fnv128 {
    pub(super) fn new() -> Self {
        Self(0x6c62272e07bb014262b821756295c58d)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u128::from(b)).wrapping_mul(0x0000000001000000000000000000013B);
        }
    }

    pub(super) fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Fnv128;

    #[test]
    fn published_vectors() {
        let hash = |text: &str| {
            let mut h = Fnv128::new();
            h.update(text.as_bytes());
            h.hex()
        };
        assert_eq!(hash(""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(hash("a"), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(hash("foobar"), "343e1662793c64bf6f0d3597ba446f18");
    }
}
