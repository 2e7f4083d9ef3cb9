//! Where archive files lie: directly in `partition_router.archive_directory`. Names are made of letters, digits and a few signs,
//! so that no table can be called something that leads elsewhere, and a link in the directory is never followed.

use super::Format;
use crate::error::{Error, Result};
use crate::settings;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// How much of each part of a name is kept: with four parts a name stays below the 255 bytes of a file system.
const PART: usize = 56;

/// A file name for a partition. `token` makes it one of its kind.
pub fn file_name(database: &str, schema: &str, partition: &str, token: &str, format: Format) -> String {
    let parts = [database, schema, partition, token].map(safe);
    format!("{}.{}", parts.join("."), format.extension())
}

/// Letters, digits, `_` and `-` stay; every other byte becomes `%` and two digits. Cut where it is too long.
fn safe(part: &str) -> String {
    let mut safe = String::new();
    for byte in part.bytes() {
        let next = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        };
        if safe.len() + next.len() > PART {
            break;
        }
        safe.push_str(&next);
    }
    safe
}

/// The directory of the archives.
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// # Errors
    /// `BadArgument` where no directory is set, or one by a path that is not absolute.
    pub fn configured() -> Result<Place> {
        let directory = PathBuf::from(settings::archive_directory());
        if directory.is_absolute() {
            return Ok(Place { directory });
        }
        Err(Error::BadArgument {
            argument: "partition_router.archive_directory".into(),
            reason: match directory.as_os_str().is_empty() {
                true => "it is empty".into(),
                false => "it is no absolute path".into(),
            },
            hint: "Let a superuser set it to a directory that the server's system user alone may write to."
                .into(),
        })
    }

    /// # Errors
    /// `Internal` for a name that [`file_name`] does not make.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let is_known = |b: u8| b.is_ascii_alphanumeric() || b"_-.%".contains(&b);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_known) {
            return Err(Error::Internal(format!("\"{name}\" is no name of an archive")));
        }
        Ok(self.directory.join(name))
    }

    fn partial(name: &str) -> String {
        format!("{name}.partial")
    }

    /// A new file, to be [published](Place::publish) when it is whole. What an earlier attempt left goes.
    pub fn create(&self, name: &str) -> Result<File> {
        let path = self.path(&Self::partial(name))?;
        self.remove_path(&path, name)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed("create", name))
    }

    /// Gives a file that is whole, and on disk, its name; on return that is on disk, too.
    pub fn publish(&self, name: &str) -> Result<()> {
        let (from, to) = (self.path(&Self::partial(name))?, self.path(name)?);
        fs::rename(from, to).map_err(failed("rename", name))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("flush the directory of", name))
    }

    /// Opens a file, with its length in bytes.
    pub fn open(&self, name: &str) -> Result<(File, u64)> {
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(self.directory.join(name))?;
            let metadata = file.metadata()?;
            match metadata.is_file() {
                true => Ok((file, metadata.len())),
                false => Err(io::Error::other("it is no regular file")),
            }
        };
        self.path(name)?;
        open().map_err(failed("open", name))
    }

    /// Removes a file and what is left of an attempt to write it; there may be none.
    pub fn remove(&self, name: &str) -> Result<()> {
        for name in [Self::partial(name), name.to_owned()] {
            self.remove_path(&self.path(&name)?, &name)?;
        }
        Ok(())
    }

    fn remove_path(&self, path: &PathBuf, name: &str) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", name)(error)),
            _ => Ok(()),
        }
    }
}

/// What an error of the operating system is for the caller.
pub fn failed(action: &str, name: &str) -> impl FnOnce(io::Error) -> Error {
    let (action, name) = (action.to_owned(), name.to_owned());
    move |error| Error::File {
        action,
        name,
        sqlstate: match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => "53100",
            Some(libc::ENOENT) => "58P01",
            Some(libc::EACCES | libc::EPERM) => "42501",
            _ => "58030",
        },
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for hostile in [
            "../../etc/passwd",
            "/etc/passwd",
            "..",
            ".",
            "a\0b",
            "é/ü",
            "-rf",
            "%2e%2e",
        ] {
            let name = file_name(hostile, hostile, hostile, hostile, Format::Csv);
            assert!(
                !name.contains('/') && !name.contains('\0') && name.is_ascii(),
                "{name}"
            );
            assert!(!name.starts_with('.') && !name.contains(".."), "{name}");
        }
    }

    #[test]
    fn a_name_is_short_enough_for_a_file_system() {
        let long = "ü".repeat(31);
        let name = file_name(&long, &long, &long, "0123456789abcdef", Format::Parquet);
        assert!(name.len() + ".partial".len() <= 255, "{}", name.len());
    }

    #[test]
    fn a_name_says_what_it_is() {
        assert_eq!(
            file_name("shop", "public", "t_2025_01", "7f", Format::Csv),
            "shop.public.t_2025_01.7f.csv.gz"
        );
    }
}
