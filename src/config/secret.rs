//! The token secret that a node makes for itself, in its data directory.
//!
//! Owns: the file `token.secret`: base64url of 32 random bytes, readable by its owner alone.
//! Invariants: it is either absent or whole; of two that make it at once, one wins and both use it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;

use crate::protocol::b64::B64URL;
use crate::session::auth::{SecretError, TokenKeys};

/// Its name in the data directory.
pub const SECRET_FILE: &str = "token.secret";

/// Why there is no secret, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error(
        "cannot make the data directory {0}: {1}. Name another with --data-dir, or set \
                THRONG_TOKEN_SECRET"
    )]
    Directory(PathBuf, io::Error),
    #[error(
        "cannot write {0}: {1}. Make the directory writable for the server's user, or set \
                THRONG_TOKEN_SECRET"
    )]
    Write(PathBuf, io::Error),
    #[error("cannot read {0}: {1}. Run as the user that the server runs as")]
    Read(PathBuf, io::Error),
    #[error(
        "{0} can be read by others than its owner (mode {1:03o}), who could sign tokens: \
                chmod 600 {0}, and replace it if somebody may have"
    )]
    Open(PathBuf, u32),
    #[error(
        "{0} holds no good secret: {1}. Remove it and the node makes a new one; all tokens \
                end with it"
    )]
    Bad(PathBuf, SecretError),
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The secret in `data_dir`, if there is one.
pub fn load_secret(data_dir: &Path) -> Result<Option<String>, SecretFileError> {
    read(&data_dir.join(SECRET_FILE))
}

/// The secret in `data_dir`; it (and the directory) is made where there is none.
pub fn load_or_create_secret(data_dir: &Path) -> Result<String, SecretFileError> {
    let path = data_dir.join(SECRET_FILE);
    if let Some(secret) = read(&path)? {
        return Ok(secret);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|e| SecretFileError::Directory(data_dir.to_owned(), e))?;
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(SecretFileError::Random)?;
    let secret = B64URL.encode(bytes);
    match write_whole(data_dir, &path, &secret) {
        Ok(()) => Ok(secret),
        // Another start was quicker: its secret is the node's.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(&path)?.ok_or(SecretFileError::Read(path, error))
        }
        Err(error) => Err(SecretFileError::Write(path, error)),
    }
}

/// Puts another secret in the place of the one in `data_dir`, which is there: the one that the
/// nodes of a cluster share.
pub fn replace_secret(data_dir: &Path, secret: &str) -> Result<(), SecretFileError> {
    let path = data_dir.join(SECRET_FILE);
    let unwritable = |error| SecretFileError::Write(path.clone(), error);
    let draft = draft(data_dir, secret).map_err(unwritable)?;
    fs::rename(&draft, &path).map_err(unwritable)
}

/// A link, unlike a rename, fails where the name is taken: the first writer wins, and nobody
/// ever reads half a file.
fn write_whole(dir: &Path, path: &Path, secret: &str) -> io::Result<()> {
    let draft = draft(dir, secret)?;
    let result = fs::hard_link(&draft, path).and_then(|()| fs::File::open(dir)?.sync_all());
    let _ = fs::remove_file(&draft);
    result
}

/// A whole file, under a name by which nobody looks for it.
fn draft(dir: &Path, secret: &str) -> io::Result<PathBuf> {
    let draft = dir.join(format!(".{SECRET_FILE}.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        writeln!(file, "{secret}")?;
        file.sync_all()
    };
    let written: io::Result<()> = write();
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| draft)
}

fn read(path: &Path) -> Result<Option<String>, SecretFileError> {
    let unreadable = |error| SecretFileError::Read(path.to_owned(), error);
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        // Where the path goes through a file there is nothing either, and no directory can be made.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Open(path.to_owned(), mode));
    }
    let mut secret = String::new();
    file.read_to_string(&mut secret).map_err(unreadable)?;
    TokenKeys::parse(&secret).map_err(|error| SecretFileError::Bad(path.to_owned(), error))?;
    Ok(Some(secret.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("throng-secret-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_secret_is_made_once_and_is_the_owners_alone() {
        let dir = folder("once").join("deep");
        let made = load_or_create_secret(&dir).unwrap();
        assert_eq!(load_or_create_secret(&dir).unwrap(), made);
        assert_eq!(made.len(), 43);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, [SECRET_FILE], "no draft is left");
        fs::set_permissions(dir.join(SECRET_FILE), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load_or_create_secret(&dir),
            Err(SecretFileError::Open(_, 0o640))
        ));
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }

    #[test]
    fn starts_at_once_agree_on_one_secret() {
        let dir = folder("race");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("first"), "").unwrap();
        let path = dir.join(SECRET_FILE);
        assert_eq!(read(&path).unwrap(), None);
        write_whole(&dir, &path, &"a".repeat(43)).unwrap();
        let error = write_whole(&dir, &path, &"b".repeat(43)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(load_or_create_secret(&dir).unwrap(), "a".repeat(43));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_path_through_a_file_holds_nothing_and_another_is_asked_for() {
        let dir = folder("file");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        for through in ["file", "file/data"] {
            let path = dir.join(through);
            assert_eq!(load_secret(&path).unwrap(), None);
            let error = load_or_create_secret(&path).unwrap_err().to_string();
            assert!(error.contains("--data-dir"), "{error}");
            assert!(!error.contains("Run as"), "{error}");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_spoiled_file_is_not_replaced() {
        let dir = folder("spoiled");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(SECRET_FILE), "short").unwrap();
        fs::set_permissions(dir.join(SECRET_FILE), fs::Permissions::from_mode(0o600)).unwrap();
        let error = load_or_create_secret(&dir).unwrap_err().to_string();
        assert!(error.contains("Remove it"), "{error}");
        assert!(!error.contains("short"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }
}
