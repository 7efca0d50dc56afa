//! The master key: 32 bytes from the environment or a file, which seal every stored secret
//! ([`SealingKey`]).

use super::sealing::{KEY_BYTES, SealingKey};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Permission bits that let others than owner and group at the file.
const OTHERS: u32 = 0o007;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not a key.
    #[error("a master key is {} hexadecimal characters", KEY_BYTES * 2)]
    Form,
    /// The file can be read by everybody.
    #[error("{} is accessible to every user of this machine: chmod 600 it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or made.
    #[error("master key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The key that seals the others.
pub struct MasterKey(SealingKey);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// From its text form: 64 hexadecimal characters, white space around them ignored.
    pub fn from_hex(text: &str) -> Result<Self, MasterKeyError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| MasterKeyError::Form)?;
        Ok(Self(SealingKey(key)))
    }

    /// Reads the file; where there is none, makes one (0600, on disk before this returns).
    pub fn load_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        let failed = |source| MasterKeyError::File { path: path.to_owned(), source };
        match Self::load(path) {
            Err(MasterKeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(path).map_err(failed)?;
                Self::load(path)
            }
            other => other,
        }
    }

    fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let failed = |source| MasterKeyError::File { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.mode();
        if mode & OTHERS != 0 {
            return Err(MasterKeyError::Permissions { path: path.to_owned() });
        }
        Self::from_hex(&Zeroizing::new(fs::read_to_string(path).map_err(failed)?))
    }

    /// Written aside and linked into place, so that a crash leaves a whole key or none, and that of two
    /// processes that start together one wins.
    fn create(path: &Path) -> io::Result<()> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(key.as_mut_slice());
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*key))));
        let staged = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let linked = match fs::hard_link(&staged, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        fs::remove_file(&staged)?;
        linked?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Nonce and ciphertext, base64.
    pub fn seal(&self, purpose: &str, id: &str, secret: &[u8]) -> String {
        self.0.seal(purpose, id, secret)
    }

    /// The secret, unless another key, purpose or id sealed it, or it was altered.
    pub fn open(&self, purpose: &str, id: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.0.open(purpose, id, sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_purpose_and_id() {
        let key = MasterKey::from_hex(&"0f".repeat(32)).unwrap();
        let other = MasterKey::from_hex(&"1f".repeat(32)).unwrap();
        let sealed = key.seal("ca", "1", b"secret");
        assert_eq!(key.open("ca", "1", &sealed).unwrap().as_slice(), b"secret");
        assert!(key.open("ca", "2", &sealed).is_none());
        assert!(key.open("cb", "1", &sealed).is_none());
        assert!(other.open("ca", "1", &sealed).is_none());
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(key.open("ca", "1", &STANDARD.encode(&bytes)).is_none());
        assert!(key.open("ca", "1", "AAAA").is_none());
        assert_ne!(key.seal("ca", "1", b"secret"), sealed, "nonces must differ");
    }

    #[test]
    fn the_file_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let sealed = MasterKey::load_or_create(&path).unwrap().seal("p", "1", b"x");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(MasterKey::load_or_create(&path).unwrap().open("p", "1", &sealed).is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(MasterKey::load_or_create(&path), Err(MasterKeyError::Permissions { .. })));
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(MasterKey::load_or_create(&path), Err(MasterKeyError::Form)));
    }
}
