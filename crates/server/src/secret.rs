//! The secret key: what sync tokens are signed with.
//!
//! It is one of the settings, or lies in the data directory, where it is created when it is first needed. There is no
//! way to print it.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{
    Engine as _,
    alphabet::{Alphabet, STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Name of the key's file in the data directory.
pub const KEY_FILE: &str = "secret.key";

/// Beyond this many bytes a file is not read to its end: it is no key.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// The secret key, 32 bytes or more. Its value cannot be printed.
#[derive(Clone)]
pub struct SecretKey(Box<[u8]>);

impl SecretKey {
    /// Fewest bytes: as many as the hash of the signatures has.
    ///
    /// Source: RFC 7518, section 3.2.
    pub const BYTES_MIN: usize = 32;

    /// The key that is written so in hex or base64 (standard or url-safe, padded or not). A text that can be read as
    /// hex is.
    ///
    /// # Errors
    /// [`InvalidKey`] if it is neither, or too short.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim_ascii();
        let bytes = from_hex(text)
            .or_else(|| from_base64(text))
            .ok_or(InvalidKey::Encoding)?;
        if bytes.len() < Self::BYTES_MIN {
            return Err(InvalidKey::Short { bytes: bytes.len() });
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The key itself, for signing and for checking signatures.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Why a text is no key. Tells nothing of the text but its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is neither hex nor base64.
    #[error("it is neither hex nor base64")]
    Encoding,
    /// It stands for too few bytes.
    #[error("it has {bytes} bytes")]
    Short {
        /// How many it stands for.
        bytes: usize,
    },
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |char: u8| {
        char::from(char)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() {
        pairs.iter().map(byte).collect()
    } else {
        None
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let decode = |alphabet: &Alphabet| {
        let config =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(alphabet, config).decode(text).ok()
    };
    decode(&STANDARD).or_else(|| decode(&URL_SAFE))
}

/// Why there is no key in the data directory.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the secret key {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be created.
    #[error("cannot create the secret key {}", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than its owner may use the file.
    #[error(
        "others may use the secret key {path} (mode {mode:04o}): run `chmod 600 {path}`; if somebody else may have read \
         it, delete it instead, and a new one is made, with which all tokens end",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no key.
    #[error(
        "the secret key {} is not at least {} bytes in hex or base64: restore it, or delete it, and a new one is made, \
         with which all tokens end",
        path.display(),
        SecretKey::BYTES_MIN
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidKey,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for a secret key")]
    NoRandomness(#[source] getrandom::Error),
}

/// The key in `<data_dir>/secret.key`, which is created, with its directory, if it does not exist. Processes that do
/// so at once get the same key.
///
/// # Errors
/// [`KeyFileError`]; a file that is there is never replaced.
pub fn load_or_create(data_dir: &Path) -> Result<SecretKey, KeyFileError> {
    let path = data_dir.join(KEY_FILE);
    if let Some(key) = load(&path)? {
        return Ok(key);
    }
    create(data_dir, &path)?;
    // Another process may have been faster: what lies there now is the key, whoever made it.
    load(&path)?.ok_or_else(|| KeyFileError::Unreadable {
        path,
        source: io::ErrorKind::NotFound.into(),
    })
}

fn load(path: &Path) -> Result<Option<SecretKey>, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    str::from_utf8(&bytes)
        .map_err(|_| InvalidKey::Encoding)
        .and_then(SecretKey::parse)
        .map(Some)
        .map_err(|source| KeyFileError::Malformed {
            path: path.to_owned(),
            source,
        })
}

/// Puts a new key at `path`, unless there is one. A crash leaves the whole key there, or none.
fn create(data_dir: &Path, path: &Path) -> Result<(), KeyFileError> {
    let key = random_hex::<{ SecretKey::BYTES_MIN }>()?;
    let draft = data_dir.join(format!(".{KEY_FILE}.{}", random_hex::<8>()?));
    let unwritable = |source| KeyFileError::Unwritable {
        path: path.to_owned(),
        source,
    };
    create_dir(data_dir).map_err(|source| KeyFileError::Unwritable {
        path: data_dir.to_owned(),
        source,
    })?;
    let linked = write_draft(&draft, &key).and_then(|()| link(&draft, path));
    let removed = match fs::remove_file(&draft) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    linked.and(removed).map_err(unwritable)?;
    // Also if another process made the link: nothing may be signed with a key that a power cut takes away.
    fs::File::open(data_dir)
        .and_then(|dir| dir.sync_all())
        .map_err(unwritable)
}

/// Whoever needs a key has opened the account database before, and with that seen to the names of what is above it.
fn create_dir(data_dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
}

fn write_draft(draft: &Path, key: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    writeln!(file, "{key}")?;
    file.sync_all()
}

/// Gives the draft its name. A link, not a rename, because a rename would replace another process's key.
fn link(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn random_hex<const BYTES: usize>() -> Result<String, KeyFileError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(KeyFileError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
