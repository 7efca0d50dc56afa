//! Streams made by hand.

/// The uuid that crafted streams give their subvolume.
pub const OWN: [u8; 16] = [7; 16];

pub struct Stream(Vec<u8>);

impl Stream {
    /// The beginning of a whole subvolume.
    pub fn new() -> Self {
        Self::empty().command(1, &[(15, b"x"), (1, &OWN), (2, &number(5))])
    }

    /// Only the header.
    pub fn empty() -> Self {
        Self(b"btrfs-stream\0\x01\0\0\0".to_vec())
    }

    pub fn command(mut self, command: u16, attributes: &[(u16, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_le_bytes());
            body.extend((value.len() as u16).to_le_bytes());
            body.extend(*value);
        }
        self.0.extend((body.len() as u32).to_le_bytes());
        self.0.extend(command.to_le_bytes());
        self.0.extend([0; 4]);
        self.0.extend(body);
        self
    }

    pub fn file(self, path: &str) -> Self {
        self.command(3, &[(15, path.as_bytes())])
    }

    pub fn folder(self, path: &str) -> Self {
        self.command(4, &[(15, path.as_bytes())])
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.command(8, &[(15, path.as_bytes()), (17, target.as_bytes())])
    }

    pub fn write(self, path: &str, offset: u64, data: &[u8]) -> Self {
        self.command(15, &[(15, path.as_bytes()), (18, &number(offset)), (19, data)])
    }

    pub fn clone_from(self, path: &str, subvolume: &[u8; 16], source: &str) -> Self {
        let zero = number(0);
        self.command(
            16,
            &[
                (15, path.as_bytes()),
                (18, &zero),
                (24, &number(4096)),
                (20, subvolume),
                (21, &zero),
                (22, source.as_bytes()),
                (23, &zero),
            ],
        )
    }

    pub fn end(self) -> Vec<u8> {
        self.command(21, &[]).0
    }
}

pub fn number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}
