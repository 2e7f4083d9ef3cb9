//! Where a row is written down: bytes with room that is looked at once for several writes.
#![allow(unsafe_code)]

/// Bytes that may be written behind what was asked for.
const SLACK: usize = 64;
/// Bytes behind the beginning of a value that are copied with it, however short it is.
pub const READ_AT_ONCE: usize = 32;
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
    /// Values may go on behind this, by no more than the slack.
    end: *mut u8,
}

impl Room {
    /// Room for so many bytes, or more.
    #[inline(always)]
    pub fn of(bytes: &mut Vec<u8>, length: usize) -> Room {
        bytes.reserve(length + SLACK);
        let spare = bytes.spare_capacity_mut().as_mut_ptr_range();
        Room {
            bytes,
            at: spare.start.cast(),
            // SAFETY: the spare room is longer than this.
            end: unsafe { spare.end.cast::<u8>().sub(SLACK) },
        }
    }

    /// Bytes that there is room for.
    #[inline(always)]
    pub fn left(&self) -> usize {
        (self.end as usize).saturating_sub(self.at as usize)
    }

    /// Leaves out `length` bytes, for others to write; gives where it was `before` bytes ago.
    ///
    /// # Safety
    /// There is room, and there were so many bytes.
    #[inline(always)]
    pub unsafe fn skip(&mut self, length: usize, before: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            let from = self.at.sub(before);
            self.at = self.at.add(length);
            from
        }
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
    /// There is room, `data` is `length` bytes long, and all bytes from there to `limit`, if any, can be read.
    #[inline(always)]
    pub unsafe fn copy(&mut self, data: *const u8, length: usize, limit: *const u8) {
        // SAFETY: the caller's. Most values are short: to copy more than them, over the slack, is quicker than to ask how short.
        unsafe {
            if length <= READ_AT_ONCE && data.wrapping_add(READ_AT_ONCE) <= limit {
                let (from, to) = (data.cast::<u128>(), self.at.cast::<u128>());
                to.write_unaligned(from.read_unaligned());
                to.add(1).write_unaligned(from.add(1).read_unaligned());
            } else {
                std::ptr::copy_nonoverlapping(data, self.at, length);
            }
            self.at = self.at.add(length);
        }
    }

    /// More room, for a value of `length` bytes.
    #[cold]
    pub fn grow(&mut self, length: usize) {
        self.close();
        // SAFETY: the vector outlives the room.
        *self = Room::of(unsafe { &mut *self.bytes }, length + VARIABLE);
    }

    /// The vector is as long as what was written.
    #[inline(always)]
    pub fn close(&mut self) {
        // SAFETY: everything up to `at` was written, within the vector's capacity.
        unsafe {
            let bytes = &mut *self.bytes;
            bytes.set_len(self.at as usize - bytes.as_ptr() as usize);
        }
    }
}
