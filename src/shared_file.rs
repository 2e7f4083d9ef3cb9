//! Memory that all backends share, whichever way the library was loaded: a file of fixed size that each of them maps.
//! It lies where the server's extensions keep their statistics, survives a restart and stays out of base backups.
#![allow(unsafe_code)]

use memmap2::{MmapOptions, MmapRaw};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// What may lie in such a file: any bytes are valid, zeros are the beginning, and fields are changed through `&self`.
///
/// # Safety
/// Every field is an atomic.
pub unsafe trait Shared: Sync + 'static {}

/// Maps the file at `path`, relative to the data directory, where backends stand. One of another size is replaced.
///
/// # Errors
/// Those of the file system.
fn map<T: Shared>(path: &str, slots: usize) -> io::Result<&'static [T]> {
    let size = slots * std::mem::size_of::<T>();
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let is_whole = |file: &File| file.metadata().map(|found| found.len() == size as u64);
    let file = match open() {
        Ok(file) if is_whole(&file)? => file,
        Ok(_) => {
            fs::remove_file(path)?;
            make(path, size)?;
            open()?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(path, size)?;
            open()?
        }
        Err(error) => return Err(error),
    };
    let map: &'static MmapRaw = Box::leak(Box::new(MmapOptions::new().len(size).map_raw(&file)?));
    // SAFETY: the mapping has this length, is never unmapped, and every field is atomic; any bytes are valid.
    Ok(unsafe { std::slice::from_raw_parts(map.as_mut_ptr().cast(), slots) })
}

/// As [`map`]; where the file is not to be had nothing is shared, and the server's log says `what` cannot be done for want of it.
pub fn map_or_log<T: Shared>(path: &str, slots: usize, what: &str) -> Option<&'static [T]> {
    map(path, slots)
        .inspect_err(|error| pgrx::log!("partition_router cannot {what}: {error}"))
        .ok()
}

/// Makes the file with all its blocks, so that a full disk is met here and not when a page is touched; whoever is first
/// wins.
fn make(path: &str, size: usize) -> io::Result<()> {
    let own = format!("{path}.{}", std::process::id());
    let own = Path::new(&own);
    let made = File::create(own)
        .and_then(|mut file| file.write_all(&vec![0; size]))
        .and_then(|()| match fs::hard_link(own, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
    fs::remove_file(own)?;
    made
}
