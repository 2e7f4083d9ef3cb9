//! Where a row is written down: bytes with room that is looked at once for several writes.
#![allow(unsafe_code)]

/// Bytes that may be written behind what was asked for.
const SLACK: usize = 64;
/// Bytes that the variable values of a row take mostly.
pub const VARIABLE: usize = 512;

/// Where bytes are gathered: a vector whose room is looked at once for several writes.
pub struct Out {
    pub bytes: Vec<u8>,
}

impl Out {
    pub fn new() -> Out {
        Out {
            bytes: Vec::with_capacity(4096),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length and so many bytes.
    pub fn push_sized(&mut self, bytes: &[u8]) {
        self.push(&(bytes.len() as u32).to_le_bytes());
        self.push(bytes);
    }
}

/// Room in a vector that is known to be there.
pub struct Room {
    bytes: *mut Vec<u8>,
    at: *mut u8,
    /// Values of fixed length, and the lengths of others, may go on behind this.
    end: *mut u8,
    fixed: usize,
}

impl Room {
    /// Room for `fixed` bytes of values of fixed length and `variable` bytes of others.
    pub fn of(bytes: &mut Vec<u8>, fixed: usize, variable: usize) -> Room {
        bytes.reserve(fixed + variable + SLACK);
        let spare = bytes.spare_capacity_mut().as_mut_ptr_range();
        Room {
            bytes,
            at: spare.start.cast(),
            // SAFETY: the spare room is longer than this.
            end: unsafe { spare.end.cast::<u8>().sub(fixed + SLACK) },
            fixed,
        }
    }

    /// Bytes that a variable value may take.
    pub fn left(&self) -> usize {
        (self.end as usize).saturating_sub(self.at as usize)
    }

    /// # Safety
    /// There is room.
    #[inline(always)]
    pub unsafe fn put<T>(&mut self, value: T) {
        // SAFETY: the caller's.
        unsafe {
            self.at.cast::<T>().write_unaligned(value);
            self.at = self.at.add(size_of::<T>());
        }
    }

    /// # Safety
    /// There is room, and `data` is `length` bytes long.
    #[inline(always)]
    pub unsafe fn copy(&mut self, data: *const u8, length: usize) {
        // SAFETY: the caller's. Two overlapping words are quicker than a call for the short strings that most are.
        unsafe {
            if length > 32 {
                std::ptr::copy_nonoverlapping(data, self.at, length);
            } else if length > 16 {
                self.at
                    .cast::<u128>()
                    .write_unaligned(data.cast::<u128>().read_unaligned());
                let tail = length - 16;
                self.at
                    .add(tail)
                    .cast::<u128>()
                    .write_unaligned(data.add(tail).cast::<u128>().read_unaligned());
            } else if length >= 8 {
                self.at
                    .cast::<u64>()
                    .write_unaligned(data.cast::<u64>().read_unaligned());
                let tail = length - 8;
                self.at
                    .add(tail)
                    .cast::<u64>()
                    .write_unaligned(data.add(tail).cast::<u64>().read_unaligned());
            } else if length >= 4 {
                self.at
                    .cast::<u32>()
                    .write_unaligned(data.cast::<u32>().read_unaligned());
                let tail = length - 4;
                self.at
                    .add(tail)
                    .cast::<u32>()
                    .write_unaligned(data.add(tail).cast::<u32>().read_unaligned());
            } else {
                for i in 0..length {
                    *self.at.add(i) = *data.add(i);
                }
            }
            self.at = self.at.add(length);
        }
    }

    /// More room, for a value of `length` bytes.
    #[cold]
    pub fn grow(&mut self, length: usize) {
        self.close();
        // SAFETY: the vector outlives the room.
        *self = Room::of(unsafe { &mut *self.bytes }, self.fixed, length + VARIABLE);
    }

    /// The vector is as long as what was written.
    pub fn close(&mut self) {
        // SAFETY: everything up to `at` was written, within the vector's capacity.
        unsafe {
            let bytes = &mut *self.bytes;
            bytes.set_len(self.at as usize - bytes.as_ptr() as usize);
        }
    }
}
