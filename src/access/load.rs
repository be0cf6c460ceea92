//! From a configuration to rules: reads the files of keys and secrets.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::token::SigningKey;
use super::{Access, Down, Key, Pattern};
use crate::config::{Auth, Secret};

/// The folder of the credentials that the service manager hands to a service (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The longest name of a secret, and the shortest secret, in bytes.
const ID_MAX: usize = 32;
const SECRET_MIN: usize = 16;

/// Why the rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file without a key.
    #[error("{} contains no key", .0.display())]
    Empty(PathBuf),
    /// A line that is no secret; the text is not repeated.
    #[error(
        "{}, line {line}: this is no secret: write at least 16 letters, digits and signs, not digits alone; a name \
         and a colon may stand before it",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A secret in the configuration itself.
    #[error("auth.secrets: write secrets of at least 16 letters, digits and signs, separated by commas")]
    Secrets,
}

/// Where a file of secrets is: a name without a folder is that of a credential, if the service has any.
pub fn place(path: &Path) -> PathBuf {
    place_in(path, std::env::var_os(CREDENTIALS))
}

fn place_in(path: &Path, credentials: Option<OsString>) -> PathBuf {
    match credentials {
        Some(folder) if path.components().count() == 1 && path.is_relative() => Path::new(&folder).join(path),
        _ => path.to_owned(),
    }
}

/// When the files were changed last, to see whether they were since.
pub fn changed(auth: &Auth) -> Vec<Option<SystemTime>> {
    auth.files().map(|path| std::fs::metadata(place(path)).and_then(|data| data.modified()).ok()).collect()
}

/// Reads the secrets of a file, one a line, `name:secret` or `secret`; empty lines and those that begin with `#` do
/// not count.
///
/// # Errors
/// [`AccessError`].
pub fn secrets(path: &Path) -> Result<Vec<SigningKey>, AccessError> {
    let keys = lines(path, signing_key)?;
    if keys.is_empty() { Err(AccessError::Empty(path.to_owned())) } else { Ok(keys) }
}

/// Reads all secrets of a configuration, those of the file first.
///
/// # Errors
/// [`AccessError`].
pub fn signing_keys(auth: &Auth) -> Result<Vec<SigningKey>, AccessError> {
    let in_file = Some(&auth.secret_file).filter(|path| !path.as_os_str().is_empty());
    let mut all = in_file.map_or_else(|| Ok(Vec::new()), |path| secrets(&place(path)))?;
    for text in auth.secrets.reveal().split(',').filter(|text| !text.is_empty()) {
        all.push(signing_key(text).ok_or(AccessError::Secrets)?);
    }
    Ok(all)
}

/// Makes the rules of a configuration. `own` signs for this process; it stays the same when rules are made again.
///
/// # Errors
/// [`AccessError`].
pub fn access(auth: &Auth, own: &SigningKey) -> Result<Access, AccessError> {
    let keys = auth.keys.iter().map(|rule| {
        let values = if rule.key.is_empty() {
            let path = place(&rule.key_file);
            let values = lines(&path, |line| line.parse::<Secret>().ok())?;
            if values.is_empty() { Err(AccessError::Empty(path)) } else { Ok(values) }
        } else {
            Ok(vec![rule.key.clone()])
        };
        Ok(Key { streams: Pattern::new(&rule.stream), action: rule.action, values: values? })
    });
    Ok(Access {
        publish: auth.publish,
        play: auth.play,
        hook: auth.hook.as_ref().map(|_| Down { publish: auth.hook_down_publish, play: auth.hook_down_play }),
        keys: keys.collect::<Result<_, _>>()?,
        secrets: signing_keys(auth)?,
        own: own.clone(),
        upstream_key: auth.upstream_key.clone(),
        origins: auth.origins.clone(),
        referers: auth.referers.clone(),
        hosts: auth.hosts.clone(),
    })
}

/// A secret that only this process knows.
///
/// # Panics
/// When the system has no random bytes.
pub fn own_key() -> SigningKey {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random bytes");
    SigningKey::new(Some("~"), &bytes)
}

fn lines<T>(path: &Path, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, AccessError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| AccessError::Read { path: path.to_owned(), error })?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| read(line).ok_or_else(|| AccessError::Line { path: path.to_owned(), line: at + 1 }))
        .collect()
}

/// `name:secret` or `secret`.
fn signing_key(text: &str) -> Option<SigningKey> {
    let is_id = |id: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !id.is_empty() && id.len() <= ID_MAX && id.bytes().all(plain)
    };
    let named = text.split_once(':').filter(|(id, secret)| is_id(id) && secret.len() >= SECRET_MIN);
    let (id, secret) = named.map_or((None, text), |(id, secret)| (Some(id), secret));
    let secret = secret.parse::<Secret>().ok().filter(|secret| !secret.is_empty())?;
    Some(SigningKey::new(id, secret.reveal().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::{Claims, TokenError, sign};
    use crate::access::{Action, Asker, Denied};
    use crate::config::{KeyRule, Policy};

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("uringcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_name_without_a_folder_is_a_credential() {
        let at = |path: &str, folder: Option<&str>| place_in(Path::new(path), folder.map(OsString::from));
        assert_eq!(at("secrets", Some("/run/credentials/x")), Path::new("/run/credentials/x/secrets"));
        assert_eq!(at("secrets", None), Path::new("secrets"));
        for path in ["/etc/secrets", "etc/secrets", "./secrets"] {
            assert_eq!(at(path, Some("/run/credentials/x")), Path::new(path));
        }
    }

    #[test]
    fn secrets_are_read_by_lines_and_never_shown() {
        let dir = folder("secrets");
        let file = dir.join("secrets");
        std::fs::write(&file, "# rotated in May\nmay:a-secret-of-20-bytes\n\n  another-secret-of-more \n")
            .unwrap();
        let keys = secrets(&file).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(!format!("{keys:?}").contains("secret-of"));
        for (text, line) in
            [("may:short", 1), ("\n\nalso-a-short", 3), ("good-enough-secret\n0123456789012345678", 2)]
        {
            std::fs::write(&file, text).unwrap();
            let error = secrets(&file).unwrap_err();
            assert!(error.to_string().contains(&format!("line {line}:")), "{error}");
            assert!(!error.to_string().contains("short") && !error.to_string().contains("0123"), "{error}");
        }
        std::fs::write(&file, "#\n").unwrap();
        assert!(matches!(secrets(&file), Err(AccessError::Empty(_))));
        std::fs::remove_dir_all(dir).unwrap();
        assert!(matches!(secrets(&file), Err(AccessError::Read { .. })));
    }

    #[test]
    fn several_secrets_and_keys_are_valid_at_a_time() {
        let dir = folder("rotation");
        let (secrets, keys) = (dir.join("secrets"), dir.join("keys"));
        std::fs::write(&secrets, "new:the-new-secret-of-may\nold:the-old-secret-of-april\n").unwrap();
        std::fs::write(&keys, "the-new-key-of-may\nthe-old-key-of-april\n").unwrap();
        let rule = KeyRule {
            stream: "live/*".to_owned(),
            action: Action::Publish,
            key: Secret::default(),
            key_file: keys,
        };
        let auth = Auth { publish: Policy::Deny, keys: vec![rule], secret_file: secrets, ..Auth::default() };
        let access = access(&auth, &own_key()).unwrap();
        let ask = |token: &str| {
            let asker = Asker { token: Some(token), ..Asker::default() };
            access.authorise(Action::Publish, "live/a", &asker, 100).map(|_| ())
        };
        assert_eq!(ask("the-new-key-of-may"), Ok(()));
        assert_eq!(ask("the-old-key-of-april"), Ok(()));
        let claims = Claims::new(Action::Publish, "live/a", 101);
        for (id, secret, good) in [
            (Some("new"), "the-new-secret-of-may", true),
            (Some("old"), "the-old-secret-of-april", true),
            (None, "the-old-secret-of-april", true),
            (Some("new"), "the-old-secret-of-april", false),
            (Some("other"), "the-new-secret-of-may", false),
            (None, "not-one-of-the-secrets", false),
        ] {
            let token = sign(&SigningKey::new(id, secret.as_bytes()), &claims);
            let expected = if good { Ok(()) } else { Err(Denied::Token(TokenError::Signature)) };
            assert_eq!(ask(&token), expected, "{id:?} {secret}");
        }
        assert_eq!(ask(&access.sign(&claims)), Ok(()));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
