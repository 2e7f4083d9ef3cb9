//! Partitions as files on the server: written ([`mod@write`]), read back ([`read`]) and put somewhere safe ([`place`]). A file of
//! either format is read as CSV with a header, by the server's own COPY, so that checking and restoring go one way. When to
//! do what is `crate::maintenance::archive`'s affair.

pub mod csv;
pub mod parquet;
pub mod pipe;
pub mod place;
pub mod read;
mod render;
mod time;
pub mod write;

use crate::parity::digest::Tally;

/// What a file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CSV as COPY writes it, with a header, compressed by gzip.
    Csv,
    /// Parquet, compressed by Snappy.
    Parquet,
}

impl Format {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv.gz",
            Self::Parquet => "parquet",
        }
    }
}

/// What was written: the rows with their digest, and the length of the file in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub tally: Tally,
    pub bytes: u64,
}
